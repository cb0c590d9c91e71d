//! Owns putting right what is no longer what it should be, as far as nothing has to start or stop for it; the rest is
//! told. So new certificates and tokens reach a node without an operator, and never cost it a restart.
//! Touches what `apply` touches, and its lock.

mod cli;
mod harmless;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::apply::{Change, ChangeSet, Executor, Listeners, Ports, diff, judge};
use super::error::NodeError;
use super::health::ConsulApi;
use super::pipeline::{self, Compared};
use super::render::{Product, Unit};
use super::report::Timeline;
use super::services::ServiceManager;
use super::sources::Imds;
use crate::error::one_line;
use crate::host::{Files, Programs};

pub use cli::ReconcileArguments;
pub use harmless::{Pending, spare};

/// What a reconciliation came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// What was put right, in order; or would be.
    pub repaired: Vec<String>,
    /// What waits for an operator, for each unit that would have to start or stop.
    pub pending: Vec<Pending>,
}

/// Whom it asks, and whom it changes.
#[derive(Clone, Copy)]
struct Node<'a> {
    files: &'a Files,
    programs: &'a (dyn Programs + Sync),
    manager: &'a dyn ServiceManager,
    consul: &'a dyn ConsulApi,
    imds: &'a Imds,
    deadline: Duration,
}

/// Compares the node with its configuration and with the secrets as they are now, and puts right what can be.
fn reconcile(node: &Node, dry_run: bool) -> Result<Reconciled, NodeError> {
    let mut compared = pipeline::compare(node.files, Some(node.manager), node.programs, node.imds)?;
    let mut pending = spare(&mut compared.desired, &compared.observed);
    pending.extend(spare_what_is_refused(&mut compared, node));
    let changes = diff(&compared.desired, &compared.observed);
    if !dry_run {
        carry_out(&changes, node)?;
    }
    let effect = |change: &&Change| !matches!(change, Change::Await { .. } | Change::Stamp { .. });
    let effects = changes.0.iter().filter(effect);
    Ok(Reconciled {
        repaired: effects.map(ToString::to_string).collect(),
        pending,
    })
}

/// Leaves alone what its product would refuse to read again: since 1.10.1 Nomad ends if it does not like what it reads.
fn spare_what_is_refused(compared: &mut Compared, node: &Node) -> Vec<Pending> {
    let mut pending = Vec::new();
    for (unit, product) in [(Unit::Consul, Product::Consul), (Unit::Nomad, Product::Nomad)] {
        let changes = diff(&compared.desired, &compared.observed).0;
        if !changes.contains(&Change::Reload { unit }) {
            continue;
        }
        let judged = judge(
            &compared.desired,
            &compared.versions,
            &compared.secrets,
            node.files,
            node.programs,
            &[product],
        );
        if let Err(refused) = judged {
            compared.desired.leave_alone(unit);
            let reason = compared.secrets.redact(&one_line(&refused));
            pending.push(Pending::new(unit, vec![reason]));
        }
    }
    pending
}

fn carry_out(changes: &ChangeSet, node: &Node) -> Result<(), NodeError> {
    let ports = Ports {
        files: node.files,
        manager: node.manager,
        consul: node.consul,
    };
    let mut listeners = Listeners {
        tell: &mut |_| {},
        refusal: &|_| None,
        guard: &|_| Ok(()),
        timeline: &Timeline::new(),
    };
    Ok(Executor::new(ports, node.deadline).carry_out(changes, &mut listeners)?)
}
