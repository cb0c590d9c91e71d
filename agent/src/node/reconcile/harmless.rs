//! Owns which changes of a node cost nobody anything: those for which no unit starts, stops or starts again.
//! Touches nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::apply::{Change, Observed, diff};
use crate::node::render::{DesiredState, DesiredUnit, Unit};

/// A unit that would have to start or stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its name.
    pub unit: String,
    /// What would be changed, in order; or why it cannot be.
    pub changes: Vec<String>,
}

impl fmt::Display for Pending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, changes } = self;
        write!(
            formatter,
            "{unit} waits for cos-agent apply: {}",
            changes.join(", ")
        )
    }
}

impl Pending {
    pub(super) fn new(unit: Unit, changes: Vec<String>) -> Self {
        Self {
            unit: unit.name().to_owned(),
            changes,
        }
    }
}

/// Takes every unit that would have to start or stop out of what is wanted, with what it reads.
pub fn spare(desired: &mut DesiredState, observed: &Observed) -> Vec<Pending> {
    let mut pending = Vec::new();
    // One unit less may be one reason less for another.
    loop {
        let changes = diff(desired, observed).0;
        let disturbed: BTreeSet<Unit> = changes.iter().filter_map(disturbs).collect();
        if disturbed.is_empty() {
            return pending;
        }
        for unit in disturbed {
            let concerns = |change: &&Change| disturbs(change) == Some(unit) || reads(unit, change, desired);
            let concerned = changes.iter().filter(concerns);
            pending.push(Pending::new(unit, concerned.map(ToString::to_string).collect()));
            desired.leave_alone(unit);
        }
    }
}

/// The unit that this change starts, stops, or prepares to.
fn disturbs(change: &Change) -> Option<Unit> {
    match change {
        Change::Forget { unit }
        | Change::Stop { unit }
        | Change::Disable { unit }
        | Change::ResetFailures { unit }
        | Change::Start { unit }
        | Change::Restart { unit } => Some(*unit),
        _ => None,
    }
}

/// Whether it changes a file that the unit reads.
fn reads(unit: Unit, change: &Change, desired: &DesiredState) -> bool {
    let Some(DesiredUnit::Running(Some(with))) = desired.units.get(&unit) else {
        return false;
    };
    change
        .path()
        .is_some_and(|path| with.reads().any(|read| read == path))
}
