//! Owns what must be done to make a node what it should be, as data, in the order in which it must be done.
//! Touches nothing.
//!
//! What a running unit can read again by itself is reloaded, not restarted.
//!
//! A unit is restarted when it runs with something else than it should, not when a file was just written: the
//! digest of what it was started with is stamped after the start. The stamp of a unit goes before anything of
//! the unit changes and comes back last. So a run that dies between any two changes leaves either a true stamp or
//! none, and the next run does what is missing, at worst with one restart too many. For what is reloaded the stamp
//! has a second line, which goes and comes by itself: a reload that died ends in another reload, not in a restart.

use super::change::{Change, ChangeSet, Content};
use super::observe::{Observed, ObservedUnit};
use crate::node::render::{self, DesiredFile, DesiredState, DesiredUnit, RECORD, RunsWith, Unit};
use crate::node::services::Activity;

/// Compares. What was not observed (units where there is no service manager) is taken to be absent.
///
/// What can start with the definitions that the service manager has read already starts first: reading them anew
/// takes a tenth of a second or more, in which Consul and Docker are on their way. Nomad comes last, when both answer.
pub fn diff(desired: &DesiredState, observed: &Observed) -> ChangeSet {
    let directories = directory_changes(desired, observed);
    let files = file_changes(desired, observed);
    let links = link_changes(desired, observed);
    let comparison = Comparison {
        desired,
        observed,
        touched: files.iter().filter_map(Change::path).collect(),
        handed_over: handed_over(desired, &directories),
    };
    let mut changes = comparison.forget_and_stop();
    let Starts { enable, first, last } = comparison.starts();
    // One that is there, or that goes away now.
    let defines = |path: &String| {
        is_definition(path)
            && (matches!(desired.files.get(path), Some(Some(_)))
                || files
                    .iter()
                    .filter_map(Change::path)
                    .any(|changed| changed == path))
    };
    let has_definition = |begun: &Begun| match desired.units.get(&begun.unit) {
        Some(DesiredUnit::Running(Some(with))) => with.files.iter().any(defines),
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
    changes.extend(directories);
    // Before the record is written, by which the next run would take the node for one that is not new.
    changes.extend((is_watched(desired) && is_new(observed)).then_some(Change::MarkArriving));
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

/// Whether somebody will see the node in.
fn is_watched(desired: &DesiredState) -> bool {
    matches!(desired.units.get(&Unit::Watch), Some(DesiredUnit::Running(_)))
}

/// Whether the node was never configured before. One that works already goes on working.
fn is_new(observed: &Observed) -> bool {
    !observed.files.contains_key(RECORD)
}

/// Units whose state changes its owner.
fn handed_over(desired: &DesiredState, directories: &[Change]) -> Vec<Unit> {
    let unit = |change: &Change| match change {
        Change::MakeDirectory {
            path, contents: true, ..
        } => desired.directories.get(path)?.state_of,
        _ => None,
    };
    directories.iter().filter_map(unit).collect()
}

fn is_definition(path: &str) -> bool {
    path.starts_with("/etc/systemd/system/")
}

/// What decides about units.
struct Comparison<'a> {
    desired: &'a DesiredState,
    observed: &'a Observed,
    /// Files that are about to change.
    touched: Vec<&'a str>,
    /// Units whose state is about to change its owner: they must not run meanwhile.
    handed_over: Vec<Unit>,
}

/// How what a unit runs with compares with what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// It is the same.
    All,
    /// All but what it can read again.
    AllButReloads,
    /// It is not, or nobody knows.
    Not,
}

impl Comparison<'_> {
    fn holds(&self, unit: Unit, with: &RunsWith, seen: &ObservedUnit) -> Holds {
        let touched = |files: &[String]| files.iter().any(|file| self.touched.contains(&file.as_str()));
        let started = seen.started_with.as_ref() == Some(&with.digest);
        if !started || touched(&with.files) || self.handed_over.contains(&unit) {
            return Holds::Not;
        }
        match &with.reloads {
            Some(reloads) if touched(&reloads.files) || seen.reloaded.as_ref() != Some(&reloads.digest) => {
                Holds::AllButReloads
            }
            _ => Holds::All,
        }
    }

    /// Before anything else changes: what no longer holds is forgotten, and what must not run is stopped.
    fn forget_and_stop(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (unit, wanted) in &self.desired.units {
            let unit = *unit;
            let Some(seen) = self.observed.units.get(&unit) else {
                continue;
            };
            let holds = match wanted {
                DesiredUnit::Running(Some(with)) => self.holds(unit, with, seen),
                DesiredUnit::Running(None) | DesiredUnit::Stopped => Holds::Not,
            };
            match (&seen.started_with, holds) {
                (Some(_), Holds::Not) => changes.push(Change::Forget { unit }),
                (Some(started), Holds::AllButReloads) if seen.reloaded.is_some() => {
                    changes.push(Change::Stamp {
                        unit,
                        sha256: started.clone(),
                        reloaded_sha256: None,
                    });
                }
                _ => {}
            }
            let stopped = *wanted == DesiredUnit::Stopped;
            if (stopped || self.handed_over.contains(&unit)) && runs(seen) {
                changes.push(Change::Stop { unit });
            }
            if stopped && seen.condition.enabled {
                changes.push(Change::Disable { unit });
            }
        }
        changes
    }

    /// Consul, Docker and what else a node runs side by side; Nomad when all of them answer: it looks for Consul and
    /// for Docker at its start, and again only after 15 and 30 seconds.
    fn starts(&self) -> Starts {
        let mut starts = Starts::default();
        for (unit, wanted) in &self.desired.units {
            let unit = *unit;
            let DesiredUnit::Running(with) = wanted else {
                continue;
            };
            let seen = self.observed.units.get(&unit);
            if !seen.is_some_and(|seen| seen.condition.enabled) {
                starts.enable.push(Change::Enable { unit });
            }
            let running = seen.filter(|seen| runs(seen));
            let active = running.is_some_and(|seen| seen.condition.activity == Activity::Active);
            let holds = match (running, with) {
                (Some(seen), Some(with)) => self.holds(unit, with, seen),
                (Some(_), None) => Holds::All,
                (None, _) => Holds::Not,
            };
            let change = match holds {
                Holds::All if active => continue,
                Holds::All => None,
                Holds::AllButReloads if active => Some(Change::Reload { unit }),
                // What is still starting cannot be asked to reload.
                Holds::AllButReloads | Holds::Not => Some(match running {
                    Some(_) if with.is_some() => Change::Restart { unit },
                    _ => Change::Start { unit },
                }),
            };
            let begun = Begun {
                unit,
                change,
                failed: seen.is_some_and(|seen| matches!(seen.condition.activity, Activity::Failed(_))),
                with: with.clone(),
            };
            if unit == Unit::Nomad {
                starts.last.push(begun);
            } else {
                starts.first.push(begun);
            }
        }
        starts
    }
}

/// What is to be started, and in which order.
#[derive(Default)]
struct Starts {
    enable: Vec<Change>,
    first: Vec<Begun>,
    last: Vec<Begun>,
}

/// A unit that is to run and does not, or not as it should.
struct Begun {
    unit: Unit,
    /// What begins it; none if it was begun before, perhaps by a run that died, and has yet to come up.
    change: Option<Change>,
    /// Its failures keep the service manager from starting it.
    failed: bool,
    /// What it runs with then, where that is to be kept.
    with: Option<RunsWith>,
}

impl Begun {
    fn changes(&self) -> impl Iterator<Item = Change> + use<> {
        let reset =
            (self.failed && self.change.is_some()).then_some(Change::ResetFailures { unit: self.unit });
        reset.into_iter().chain(self.change.clone())
    }

    fn finish(&self) -> impl Iterator<Item = Change> + use<> {
        let unit = self.unit;
        let with = self.with.clone().filter(|_| self.change.is_some());
        let stamp = with.map(|with| Change::Stamp {
            unit,
            sha256: with.digest,
            reloaded_sha256: with.reloads.map(|reloads| reloads.digest),
        });
        [Change::Await { unit }].into_iter().chain(stamp)
    }
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

/// Numbers of a user and a group; that they exist was found when the node was looked at.
fn numbers(observed: &Observed, user: &str, group: &str) -> (u32, u32) {
    let user = observed.accounts.users.get(user);
    let gid = observed.accounts.groups.get(group);
    (
        user.map(|user| user.uid).unwrap_or_default(),
        gid.copied().unwrap_or_default(),
    )
}

fn directory_changes(desired: &DesiredState, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, wanted) in &desired.directories {
        let (uid, gid) = numbers(observed, &wanted.user, &wanted.group);
        let seen = observed.directories.get(path);
        let owned = seen.is_some_and(|seen| (seen.uid, seen.gid) == (uid, gid));
        if !owned || seen.is_none_or(|seen| seen.mode != wanted.mode) {
            changes.push(Change::MakeDirectory {
                path: path.clone(),
                mode: wanted.mode,
                user: wanted.user.clone(),
                group: wanted.group.clone(),
                contents: wanted.state_of.is_some() && seen.is_some() && !owned,
                uid,
                gid,
            });
        }
    }
    changes
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
                let (uid, gid) = numbers(observed, user, group);
                let same = seen.is_some_and(|seen| {
                    seen.digest == sha256 && seen.mode == *mode && seen.uid == uid && seen.gid == gid
                });
                if !same {
                    let (path, content) = (path.clone(), Content(content.clone()));
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
