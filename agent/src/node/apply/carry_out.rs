//! Owns carrying out a whole set of changes: what may go side by side goes side by side, and each part is timed.
//! Touches what `Executor` touches.
//!
//! Files are written by several threads: each is synced, and a file system makes many syncs at once hardly dearer than
//! one (twelve files of 2 KiB: 8 ms instead of 120 ms on the ext4 where it was tried). Any of them may be there and
//! any missing when a run dies, which is as good as dying between two: what they belong to was forgotten before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::change::{Change, ChangeSet};
use super::execute::{ExecuteError, Executor, file, serve};
use super::judge::JudgeError;
use crate::host::{FileError, Files};
use crate::node::render::Unit;
use crate::node::report::Timeline;

/// Writers at once. More make nothing faster: the disk is what they wait for.
const WRITERS: usize = 8;

/// Who hears of what is done.
pub(crate) struct Listeners<'a> {
    /// Hears of each change before it is carried out.
    pub(crate) tell: &'a mut dyn FnMut(&Change),
    /// Asked once for each unit that ends badly after it was started: whether its product refuses its configuration.
    pub(crate) refusal: &'a dyn Fn(Unit) -> Option<JudgeError>,
    /// Asked before a unit is started: why it must not be.
    pub(crate) guard: &'a dyn Fn(Unit) -> Result<(), ExecuteError>,
    /// Records how long each part took.
    pub(crate) timeline: &'a Timeline,
}

/// What changes may be carried out together.
#[derive(PartialEq, Eq)]
enum Kind {
    Files,
    Enable,
    Start,
    Await,
    Alone,
}

impl Kind {
    fn of(change: &Change) -> Self {
        match change {
            Change::Write { .. } | Change::Link { .. } | Change::Remove { .. } => Self::Files,
            Change::Enable { .. } => Self::Enable,
            // systemd orders what is asked for at once: the watcher would come after all that it sees out.
            Change::Start { unit: Unit::Watch } => Self::Alone,
            Change::Start { .. } => Self::Start,
            Change::Await { .. } | Change::Stamp { .. } => Self::Await,
            _ => Self::Alone,
        }
    }
}

impl Executor<'_> {
    /// Carries out all changes, in order as far as order matters.
    pub(crate) fn carry_out(
        &self,
        changes: &ChangeSet,
        listeners: &mut Listeners<'_>,
    ) -> Result<(), ExecuteError> {
        let timeline = listeners.timeline;
        let mut begun = BTreeMap::new();
        let mut put_off = false;
        let together = |one: &Change, other: &Change| {
            let kind = Kind::of(one);
            kind != Kind::Alone && kind == Kind::of(other)
        };
        let mut ahead = &changes.0[..];
        for group in changes.0.chunk_by(together) {
            ahead = &ahead[group.len()..];
            for change in group {
                (listeners.tell)(change);
                if let Change::Start { unit } | Change::Restart { unit } = change {
                    begun.insert(*unit, Instant::now());
                }
            }
            let [first, ..] = group else { continue };
            let manager = self.ports.manager;
            match Kind::of(first) {
                Kind::Files => timeline.measure("write files", || write_all(self.ports.files, group))?,
                Kind::Enable => timeline.measure("enable", || {
                    serve(words(group), manager.enable_all(&names(group)))
                })?,
                Kind::Start => {
                    self.guard(group, listeners)?;
                    let asked = timeline.measure(format!("ask to {}", words(group)), || {
                        serve(words(group), manager.start_all(&names(group)))
                    });
                    // A script of System V tells at once that its program is gone again.
                    asked.map_err(|error| self.explain(group, error, listeners))?;
                }
                Kind::Await => {
                    self.reload(std::mem::take(&mut put_off), timeline)?;
                    self.come_up(group, &begun, listeners)?;
                }
                Kind::Alone if *first == Change::ReloadDefinitions && self.can_wait(ahead) => put_off = true,
                Kind::Alone => timeline.measure(first.to_string(), || self.execute(first))?,
            }
        }
        self.reload(put_off, timeline)
    }

    /// Whether all that is started before the next wait starts with what is on the disk, though the definitions are not
    /// reloaded first. On a first boot that is so: the manager reads a unit that nobody has asked for when it starts it.
    /// Reloading takes systemd a tenth of a second, and is then done while the units come up.
    fn can_wait(&self, ahead: &[Change]) -> bool {
        let next = ahead.iter().take_while(|change| Kind::of(change) != Kind::Await);
        let started: Option<Vec<&str>> = next
            .map(|change| match change {
                Change::Start { unit } => Some(unit.name()),
                _ => None,
            })
            .collect();
        started.is_some_and(|started| self.ports.manager.has_read(&started))
    }

    /// Reloads definitions if that was put off.
    fn reload(&self, put_off: bool, timeline: &Timeline) -> Result<(), ExecuteError> {
        if !put_off {
            return Ok(());
        }
        let change = Change::ReloadDefinitions;
        timeline.measure(change.to_string(), || self.execute(&change))
    }

    /// Waits for units side by side, and keeps what each was started with as soon as it is up.
    fn come_up(
        &self,
        group: &[Change],
        begun: &BTreeMap<Unit, Instant>,
        listeners: &Listeners<'_>,
    ) -> Result<(), ExecuteError> {
        let units: Vec<Unit> = group
            .iter()
            .filter_map(|change| match change {
                Change::Await { unit } => Some(*unit),
                _ => None,
            })
            .collect();
        let now = Instant::now();
        let since = |unit: Unit| begun.get(&unit).copied().unwrap_or(now);
        let mut asked = Vec::new();
        let mut up = Vec::new();
        let waited = self.wait(
            &units,
            |unit| {
                listeners.timeline.record(unit.name(), since(unit), 0, false);
                up.push(unit);
                let stamp =
                    |change: &&Change| matches!(change, Change::Stamp { unit: of, .. } if *of == unit);
                group
                    .iter()
                    .find(stamp)
                    .map_or(Ok(()), |stamp| self.execute(stamp))
            },
            |unit| {
                if asked.contains(&unit) {
                    return Ok(());
                }
                asked.push(unit);
                match (listeners.refusal)(unit) {
                    Some(refusal) => Err(self.give_up(unit, ExecuteError::Refused(Box::new(refusal)))),
                    None => Ok(()),
                }
            },
        );
        for unit in units
            .into_iter()
            .filter(|unit| waited.is_err() && !up.contains(unit))
        {
            listeners.timeline.record(unit.name(), since(unit), 0, true);
        }
        waited
    }

    /// Why a start failed: a refused configuration is a better answer than a status.
    fn explain(&self, group: &[Change], error: ExecuteError, listeners: &Listeners<'_>) -> ExecuteError {
        let refused = group.iter().find_map(|change| match change {
            Change::Start { unit } => Some((*unit, (listeners.refusal)(*unit)?)),
            _ => None,
        });
        match refused {
            Some((unit, refusal)) => self.give_up(unit, ExecuteError::Refused(Box::new(refusal))),
            None => error,
        }
    }

    /// Gives up where one of these units must not start.
    fn guard(&self, group: &[Change], listeners: &Listeners<'_>) -> Result<(), ExecuteError> {
        for change in group {
            if let Change::Start { unit } = change {
                (listeners.guard)(*unit).map_err(|error| self.give_up(*unit, error))?;
            }
        }
        Ok(())
    }

    /// A product that refuses its configuration would be started again and again, at each boot too.
    fn give_up(&self, unit: Unit, error: ExecuteError) -> ExecuteError {
        let stopped = self
            .execute(&Change::Stop { unit })
            .and_then(|()| self.execute(&Change::Disable { unit }));
        stopped.err().unwrap_or(error)
    }
}

fn names(group: &[Change]) -> Vec<&'static str> {
    group
        .iter()
        .filter_map(|change| match change {
            Change::Enable { unit } | Change::Start { unit } => Some(unit.name()),
            _ => None,
        })
        .collect()
}

/// Such as `start consul, docker`.
fn words(group: &[Change]) -> String {
    let verb = match group.first() {
        Some(Change::Enable { .. }) => "enable",
        _ => "start",
    };
    format!("{verb} {}", names(group).join(", "))
}

/// Changes files, several at a time; the first error in the order of the changes is the one that is told.
fn write_all(files: &Files, group: &[Change]) -> Result<(), FileError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(change) = group.get(index) else {
                return failed;
            };
            if let Err(error) = file(files, change) {
                failed.push((index, error));
            }
        }
    };
    let mut failed = thread::scope(|scope| {
        let others: Vec<_> = (1..group.len().min(WRITERS)).map(|_| scope.spawn(work)).collect();
        let mut failed = work();
        for other in others {
            let theirs = other.join();
            failed.extend(theirs.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        failed
    });
    failed.sort_by_key(|(index, _)| *index);
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
