//! Owns carrying out changes: one `match`, one effect for each, waits with a deadline.
//! Touches files, the service manager and Consul's local API.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, fchown};
use thiserror::Error;

use super::diff::Change;
use super::stamp;
use crate::host::{FileError, Files, ProgramError};
use crate::node::health::ConsulApi;
use crate::node::render::Unit;
use crate::node::services::{Activity, ServiceManager};
use crate::node::wait::{self, Backoff, WaitError};

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
    ports: Ports<'a>,
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
        let serve = |done: Result<(), ProgramError>| {
            done.map_err(|source| ExecuteError::Service {
                change: change.to_string(),
                source,
            })
        };
        match change {
            Change::Forget { unit } => Ok(files.remove(stamp(*unit))?),
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
            Change::Write {
                path,
                mode,
                user,
                uid,
                gid,
                content,
                ..
            } if user != "root" => Ok(files.write_for(path, &content.0, *mode, (*uid, *gid))?),
            Change::Write {
                path,
                mode,
                uid,
                gid,
                content,
                ..
            } => {
                // The owner before the name: whoever sees the file under its name can read it if it may.
                Ok(files.write_atomic_with(path, *mode, |file| {
                    fchown(file.as_fd(), Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
                    file.write_all(&content.0)
                })?)
            }
            Change::Remove { path } => Ok(files.remove(path)?),
            Change::ReloadDefinitions => serve(manager.reload_definitions()),
            Change::Enable { unit } => serve(manager.enable(unit.name())),
            Change::Start { unit } => serve(manager.start(unit.name())),
            Change::Restart { unit } => serve(manager.restart(unit.name())),
            Change::Reload { unit } => serve(manager.reload(unit.name())),
            Change::Await { unit } => self.wait(*unit),
            Change::Stamp {
                unit,
                sha256,
                reloaded_sha256,
            } => {
                let digests: Vec<&str> = [sha256]
                    .into_iter()
                    .chain(reloaded_sha256)
                    .map(String::as_str)
                    .collect();
                Ok(files.write_atomic(stamp(*unit), digests.join("\n").as_bytes(), 0o644)?)
            }
        }
    }

    fn wait(&self, unit: Unit) -> Result<(), ExecuteError> {
        let left = self.deadline.saturating_sub(self.start.elapsed());
        let broken = |reason| ExecuteError::Unit { unit, reason };
        let ended = wait::until(left, Backoff::LOCAL, || {
            let condition = self.ports.manager.condition(unit.name());
            let condition = condition.map_err(|source| ExecuteError::Service {
                change: format!("ask how {} fares", unit.name()),
                source,
            })?;
            Ok(match condition.activity {
                Activity::Failed(how) => return Err(broken(format!("failed: {how}"))),
                // The job that starts it may not have begun; a unit that ends at once becomes `Failed`, or is
                // started again by its manager until the deadline.
                Activity::Inactive => ControlFlow::Continue("it does not run".to_owned()),
                Activity::Absent => return Err(broken("is not on this machine".to_owned())),
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
        });
        ended.map_err(|error| match error {
            WaitError::Deadline { last_reason, .. } => broken(format!(
                "does not do its work ({last_reason}), {:.0} s after its start was asked for",
                self.start.elapsed().as_secs_f64()
            )),
            WaitError::Probe(error) => error,
        })
    }
}
