//! Owns carrying out changes: one `match`, one effect for each, waits with a deadline.
//! Touches files, the service manager and Consul's local API.

use std::io::Write;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, fchown};
use thiserror::Error;

use super::change::Change;
use super::judge::JudgeError;
use super::stamp::{self, Stamp};
use crate::host::{FileError, Files, ProgramError};
use crate::node::health::ConsulApi;
use crate::node::render::Unit;
use crate::node::services::{Activity, ServiceManager};
use crate::node::wait::{self, Backoff, WaitError};
use crate::node::watch::hold_back;

/// What carrying out a change needs of the world.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// Files of the machine.
    pub files: &'a Files,
    /// Its service manager.
    pub manager: &'a dyn ServiceManager,
    /// Its Consul agent.
    pub consul: &'a dyn ConsulApi,
}

/// A change could not be carried out.
#[derive(Debug, Error)]
pub enum ExecuteError {
    /// A file could not be changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The service manager refused.
    #[error("could not {change}")]
    Service {
        /// The change in words.
        change: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A product that was started refuses its configuration.
    #[error(transparent)]
    Refused(Box<JudgeError>),
    /// A server would elect itself while another one answers.
    #[error(
        "{0} would begin a second cluster: a server answers at {address}, and {0}.bootstrap_expect is 1",
        unit.name()
    )]
    SecondCluster {
        /// Unit.
        unit: Unit,
        /// Where the other one is.
        address: IpAddr,
    },
    /// A unit does not do its work.
    #[error("{} {reason}", unit.name())]
    Unit {
        /// Unit.
        unit: Unit,
        /// How it fares.
        reason: String,
    },
}

/// Carries out changes with one deadline for all waits together.
pub struct Executor<'a> {
    pub(super) ports: Ports<'a>,
    start: Instant,
    deadline: Duration,
}

impl<'a> Executor<'a> {
    /// An executor whose waits must all end within `deadline` from now.
    pub fn new(ports: Ports<'a>, deadline: Duration) -> Self {
        Self {
            ports,
            start: Instant::now(),
            deadline,
        }
    }

    /// Carries out one change.
    pub fn execute(&self, change: &Change) -> Result<(), ExecuteError> {
        let Ports { files, manager, .. } = self.ports;
        let serve = |done: Result<(), ProgramError>| serve(change.to_string(), done);
        match change {
            Change::Forget { unit } => Ok(stamp::forget(files, *unit)?),
            Change::Stop { unit } => serve(manager.stop(unit.name())),
            Change::Disable { unit } => serve(manager.disable(unit.name())),
            Change::MakeDirectory {
                path,
                mode,
                uid,
                gid,
                contents,
                ..
            } => Ok(files.make_directory_for(path, *mode, (*uid, *gid), *contents)?),
            Change::Write { .. } | Change::Remove { .. } | Change::Link { .. } => Ok(file(files, change)?),
            Change::ReloadDefinitions => serve(manager.reload_definitions()),
            Change::Enable { unit } => serve(manager.enable(unit.name())),
            Change::ResetFailures { unit } => serve(manager.reset_failures(unit.name())),
            Change::MarkArriving => Ok(hold_back(files)?),
            Change::Start { unit } => serve(manager.start(unit.name())),
            Change::Restart { unit } => serve(manager.restart(unit.name())),
            Change::Reload { unit } => serve(manager.reload(unit.name())),
            Change::Await { unit } => self.wait(&[*unit], |_| Ok(()), |_| Ok(())),
            Change::Stamp {
                unit,
                sha256,
                reloaded_sha256,
            } => {
                let stamp = Stamp {
                    started_with: Some(sha256.clone()),
                    reloaded: reloaded_sha256.clone(),
                };
                Ok(stamp::write(files, *unit, &stamp)?)
            }
        }
    }

    /// Waits until every unit does its work. `ready` hears of each as it comes up; `trouble` hears of each that ended
    /// badly at least once, and may say that waiting is of no use.
    pub(super) fn wait(
        &self,
        units: &[Unit],
        mut ready: impl FnMut(Unit) -> Result<(), ExecuteError>,
        mut trouble: impl FnMut(Unit) -> Result<(), ExecuteError>,
    ) -> Result<(), ExecuteError> {
        let left = self.deadline.saturating_sub(self.start.elapsed());
        let mut pending = units.to_vec();
        let mut last = pending.first().copied().unwrap_or(Unit::Consul);
        let ended = wait::until(left, Backoff::UNITS, || {
            let names: Vec<&str> = pending.iter().map(|unit| unit.name()).collect();
            let conditions = serve(
                format!("ask how {} fares", names.join(", ")),
                self.ports.manager.conditions(&names),
            )?;
            let mut reasons = Vec::new();
            for (unit, condition) in pending.clone().into_iter().zip(conditions) {
                if condition.activity.ended_badly() {
                    trouble(unit)?;
                }
                match self.answers(unit, condition.activity)? {
                    ControlFlow::Break(()) => {
                        ready(unit)?;
                        pending.retain(|other| *other != unit);
                    }
                    ControlFlow::Continue(reason) => reasons.push((unit, reason)),
                }
            }
            Ok(match reasons.into_iter().next() {
                None => ControlFlow::Break(()),
                Some((unit, reason)) => {
                    last = unit;
                    ControlFlow::Continue(reason)
                }
            })
        });
        ended.map_err(|error| match error {
            WaitError::Deadline { last_reason, .. } => ExecuteError::Unit {
                unit: last,
                reason: format!(
                    "does not do its work ({last_reason}), {:.0} s after its start was asked for",
                    self.start.elapsed().as_secs_f64()
                ),
            },
            WaitError::Probe(error) => error,
        })
    }

    /// Whether a unit does its work; if not, why not yet, or why it never will.
    fn answers(&self, unit: Unit, activity: Activity) -> Result<ControlFlow<(), String>, ExecuteError> {
        let broken = |reason| Err(ExecuteError::Unit { unit, reason });
        Ok(match activity {
            Activity::Failed(how) => return broken(format!("failed: {how}")),
            // The job that starts it may not have begun; a unit that ends at once becomes `Failed`, or is
            // started again by its manager until the deadline.
            Activity::Inactive => ControlFlow::Continue("it does not run".to_owned()),
            Activity::Absent => return broken("is not on this machine".to_owned()),
            Activity::Changing => ControlFlow::Continue("it has not restarted yet".to_owned()),
            // Consul tells systemd that it is ready when it has joined others. Its work for this node begins
            // before that, and a first server may be alone for long.
            Activity::Active | Activity::Activating(_) if unit == Unit::Consul => {
                match self.ports.consul.answers() {
                    Ok(()) => ControlFlow::Break(()),
                    Err(reason) => ControlFlow::Continue(reason),
                }
            }
            Activity::Active => ControlFlow::Break(()),
            Activity::Activating(how) => ControlFlow::Continue(format!("it is still starting: {how}")),
        })
    }
}

pub(super) fn serve<T>(change: String, done: Result<T, ProgramError>) -> Result<T, ExecuteError> {
    done.map_err(|source| ExecuteError::Service { change, source })
}

/// Carries out a change that is about one file and nothing else.
pub(super) fn file(files: &Files, change: &Change) -> Result<(), FileError> {
    match change {
        Change::Write {
            path,
            mode,
            user,
            uid,
            gid,
            content,
            ..
        } if user != "root" => files.write_for(path, &content.0, *mode, (*uid, *gid)),
        Change::Write {
            path,
            mode,
            uid,
            gid,
            content,
            ..
        } => files.write_atomic_with(path, *mode, |file| {
            // The owner before the name: whoever sees the file under its name can read it if it may.
            fchown(file.as_fd(), Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
            file.write_all(&content.0)
        }),
        Change::Link { path, target } => files.link(path, target),
        Change::Remove { path } => files.remove(path),
        _ => Ok(()),
    }
}
