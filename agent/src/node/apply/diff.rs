//! Owns what must be done to make a node what it should be, as data, in the order in which it must be done.
//! Touches nothing.
//!
//! A unit is restarted when it runs with something else than it should, not when a file was just written: the
//! digest of what it was started with is stamped after the start. The stamp of a unit goes before anything of
//! the unit changes and comes back last. So a run that dies between any two changes leaves either a true stamp or
//! none, and the next run does what is missing, at worst with one restart too many.

use std::fmt;

use serde::Serialize;

use super::observe::{Observed, ObservedUnit};
use crate::node::render::{self, DesiredFile, DesiredState, DesiredUnit, Unit};
use crate::node::services::Activity;

/// One step. Each has one effect, so that a run can die only between steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Forget what a unit was started with.
    Forget {
        /// Unit.
        unit: Unit,
    },
    /// Stop a unit and wait until it has stopped.
    Stop {
        /// Unit.
        unit: Unit,
    },
    /// Keep a unit from starting at boot.
    Disable {
        /// Unit.
        unit: Unit,
    },
    /// Write a file.
    Write {
        /// Path.
        path: String,
        /// Digest of the new content.
        sha256: String,
        /// Permission bits.
        mode: u32,
        /// User.
        user: String,
        /// Group.
        group: String,
        #[serde(skip)]
        /// Number of the user.
        uid: u32,
        #[serde(skip)]
        /// Number of the group.
        gid: u32,
        #[serde(skip)]
        /// Content.
        content: Vec<u8>,
    },
    /// Make a symbolic link.
    Link {
        /// Path.
        path: String,
        /// What it points to.
        target: String,
    },
    /// Remove a file.
    Remove {
        /// Path.
        path: String,
    },
    /// Let the service manager read its definitions anew.
    ReloadDefinitions,
    /// Make a unit start at boot.
    Enable {
        /// Unit.
        unit: Unit,
    },
    /// Let the service manager forget how often a unit failed: it refuses to start it otherwise.
    ResetFailures {
        /// Unit.
        unit: Unit,
    },
    /// Begin to start a unit.
    Start {
        /// Unit.
        unit: Unit,
    },
    /// Begin to restart a unit.
    Restart {
        /// Unit.
        unit: Unit,
    },
    /// Wait until a unit does its work.
    Await {
        /// Unit.
        unit: Unit,
    },
    /// Keep the digest of what a unit was started with.
    Stamp {
        /// Unit.
        unit: Unit,
        /// Digest.
        sha256: String,
    },
}

impl Change {
    /// The file that it changes.
    fn path(&self) -> Option<&str> {
        match self {
            Self::Write { path, .. } | Self::Remove { path } => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forget { unit } => write!(formatter, "forget what {} was started with", unit.name()),
            Self::Stop { unit } => write!(formatter, "stop {}", unit.name()),
            Self::Disable { unit } => write!(formatter, "disable {}", unit.name()),
            Self::Write {
                path,
                mode,
                user,
                group,
                ..
            } => write!(formatter, "write {path} ({mode:04o} {user}:{group})"),
            Self::Link { path, target } => write!(formatter, "link {path} to {target}"),
            Self::Remove { path } => write!(formatter, "remove {path}"),
            Self::ReloadDefinitions => formatter.write_str("reload the service manager's definitions"),
            Self::Enable { unit } => write!(formatter, "enable {}", unit.name()),
            Self::ResetFailures { unit } => write!(formatter, "reset the failures of {}", unit.name()),
            Self::Start { unit } => write!(formatter, "start {}", unit.name()),
            Self::Restart { unit } => write!(formatter, "restart {}", unit.name()),
            Self::Await { unit } => write!(formatter, "wait for {}", unit.name()),
            Self::Stamp { unit, .. } => write!(formatter, "note what {} was started with", unit.name()),
        }
    }
}

/// Steps in order; empty if the node is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ChangeSet(pub Vec<Change>);

/// Compares. What was not observed (units where there is no service manager) is taken to be absent.
///
/// What can start with the definitions that the service manager has read already starts first: reading them anew
/// takes a tenth of a second or more, in which Consul and Docker are on their way. Nomad comes last, when both answer.
pub fn diff(desired: &DesiredState, observed: &Observed) -> ChangeSet {
    let files = file_changes(desired, observed);
    let links = link_changes(desired, observed);
    let mut changes = forget_and_stop(desired, observed, &files);
    let Starts { enable, first, last } = starts(desired, observed, &changes);
    let has_definition = |begun: &Begun| match desired.units.get(&begun.unit) {
        Some(DesiredUnit::Running(Some(with))) => with.files.iter().any(|path| is_definition(path)),
        _ => false,
    };
    let (defined, plain): (Vec<_>, Vec<_>) = first.iter().partition(|begun| has_definition(begun));
    // Not only when one was written: a run may have died between writing and reading, so a unit that has one is never
    // started without. And a manager that has not read what was enabled still says that it is not.
    let reload = !enable.is_empty()
        || files.iter().filter_map(Change::path).any(is_definition)
        || defined
            .iter()
            .chain(&last.iter().collect::<Vec<_>>())
            .any(|begun| begun.change.is_some() && has_definition(begun));
    changes.extend(files);
    changes.extend(links);
    changes.extend(plain.iter().flat_map(|begun| begun.changes()));
    changes.extend(enable);
    changes.extend(reload.then_some(Change::ReloadDefinitions));
    changes.extend(defined.iter().flat_map(|begun| begun.changes()));
    changes.extend(first.iter().flat_map(Begun::finish));
    changes.extend(last.iter().flat_map(Begun::changes));
    changes.extend(last.iter().flat_map(Begun::finish));
    ChangeSet(changes)
}

fn is_definition(path: &str) -> bool {
    path.starts_with("/etc/systemd/system/")
}

/// Before anything else changes: what no longer holds is forgotten, and what must not run is stopped.
fn forget_and_stop(desired: &DesiredState, observed: &Observed, files: &[Change]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (unit, wanted) in &desired.units {
        let unit = *unit;
        let Some(seen) = observed.units.get(&unit) else {
            continue;
        };
        let holds = match wanted {
            DesiredUnit::Running(Some(with)) => {
                let rewritten = files
                    .iter()
                    .filter_map(Change::path)
                    .any(|path| with.files.iter().any(|file| file == path));
                !rewritten && seen.started_with.as_ref() == Some(&with.digest)
            }
            DesiredUnit::Running(None) | DesiredUnit::Stopped => false,
        };
        if seen.started_with.is_some() && !holds {
            changes.push(Change::Forget { unit });
        }
        if *wanted == DesiredUnit::Stopped {
            if runs(seen) {
                changes.push(Change::Stop { unit });
            }
            if seen.condition.enabled {
                changes.push(Change::Disable { unit });
            }
        }
    }
    changes
}

/// A unit that is to run and does not, or not as it should.
struct Begun {
    unit: Unit,
    /// What begins it; none if it was begun before, perhaps by a run that died, and has yet to come up.
    change: Option<Change>,
    /// Its failures keep the service manager from starting it.
    failed: bool,
    /// What it is started with, where that is to be kept.
    digest: Option<String>,
}

impl Begun {
    fn changes(&self) -> impl Iterator<Item = Change> + use<> {
        let reset =
            (self.failed && self.change.is_some()).then_some(Change::ResetFailures { unit: self.unit });
        reset.into_iter().chain(self.change.clone())
    }

    fn finish(&self) -> impl Iterator<Item = Change> + use<> {
        let unit = self.unit;
        let sha256 = self.digest.clone().filter(|_| self.change.is_some());
        let stamp = sha256.map(|sha256| Change::Stamp { unit, sha256 });
        [Change::Await { unit }].into_iter().chain(stamp)
    }
}

struct Starts {
    enable: Vec<Change>,
    first: Vec<Begun>,
    last: Vec<Begun>,
}

/// Consul, Docker and what else a node runs side by side; Nomad when all of them answer: it looks for Consul and for
/// Docker at its start, and again only after 15 and 30 seconds.
fn starts(desired: &DesiredState, observed: &Observed, before: &[Change]) -> Starts {
    let mut starts = Starts {
        enable: Vec::new(),
        first: Vec::new(),
        last: Vec::new(),
    };
    for (unit, wanted) in &desired.units {
        let unit = *unit;
        let DesiredUnit::Running(with) = wanted else {
            continue;
        };
        let seen = observed.units.get(&unit);
        if !seen.is_some_and(|seen| seen.condition.enabled) {
            starts.enable.push(Change::Enable { unit });
        }
        let digest = with.as_ref().map(|with| &with.digest);
        let running = seen.is_some_and(runs);
        let stamped = seen.and_then(|seen| seen.started_with.as_ref());
        let forgotten = before.contains(&Change::Forget { unit });
        let as_it_should = running && !forgotten && (digest.is_none() || digest == stamped);
        if as_it_should && seen.is_some_and(|seen| seen.condition.activity == Activity::Active) {
            continue;
        }
        let change = match (as_it_should, running && digest.is_some()) {
            (true, _) => None,
            (false, true) => Some(Change::Restart { unit }),
            (false, false) => Some(Change::Start { unit }),
        };
        let begun = Begun {
            unit,
            change,
            failed: seen.is_some_and(|seen| matches!(seen.condition.activity, Activity::Failed(_))),
            digest: digest.cloned(),
        };
        if unit == Unit::Nomad {
            starts.last.push(begun);
        } else {
            starts.first.push(begun);
        }
    }
    starts
}

/// Whether something of the unit may be running.
fn runs(seen: &ObservedUnit) -> bool {
    matches!(
        seen.condition.activity,
        Activity::Active | Activity::Activating(_) | Activity::Changing
    )
}

fn link_changes(desired: &DesiredState, observed: &Observed) -> Vec<Change> {
    let missing = desired
        .links
        .iter()
        .filter(|(path, target)| observed.links.get(*path) != Some(target));
    missing
        .map(|(path, target)| Change::Link {
            path: path.clone(),
            target: target.clone(),
        })
        .collect()
}

fn file_changes(desired: &DesiredState, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, wanted) in &desired.files {
        let seen = observed.files.get(path);
        match wanted {
            None if seen.is_some() => changes.push(Change::Remove { path: path.clone() }),
            None => {}
            Some(DesiredFile {
                content,
                mode,
                user,
                group,
            }) => {
                let sha256 = render::digest(content);
                let uid = observed.users.get(user).copied().unwrap_or_default();
                let gid = observed.groups.get(group).copied().unwrap_or_default();
                let same = seen.is_some_and(|seen| {
                    seen.digest == sha256 && seen.mode == *mode && seen.uid == uid && seen.gid == gid
                });
                if !same {
                    let (path, content) = (path.clone(), content.clone());
                    changes.push(Change::Write {
                        path,
                        sha256,
                        mode: *mode,
                        user: user.clone(),
                        group: group.clone(),
                        uid,
                        gid,
                        content,
                    });
                }
            }
        }
    }
    changes
}
