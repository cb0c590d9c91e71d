//! Owns proving that a node does its work: each check with its own last reason, all with one deadline.
//! Touches local HTTP and Docker's socket.

mod api;
mod checks;

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::render::Record;
use super::wait::{self, Backoff, WaitError};

pub use api::{CONSUL_URL, ConsulApi, DOCKER_SOCKET, LocalApis, LocalConsul, NOMAD_URL};
pub use checks::Check;

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Check.
    pub check: Check,
    /// Whether it passed.
    pub healthy: bool,
    /// What proved it, or the last reason why not.
    pub reason: String,
    /// Milliseconds until it passed, or until the deadline.
    pub milliseconds: u128,
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether every check passed.
    pub healthy: bool,
    /// Every check of the node's role.
    pub checks: Vec<Outcome>,
}

/// Runs every check of the role side by side until each has passed, or the deadline.
pub fn prove(record: &Record, apis: &LocalApis, deadline: Duration) -> Health {
    let checks: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = Check::of(&record.roles)
            .into_iter()
            .map(|check| scope.spawn(move || run(check, record, apis, deadline)))
            .collect();
        let join = |check: thread::ScopedJoinHandle<'_, Outcome>| {
            check
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(join).collect()
    });
    Health {
        healthy: checks.iter().all(|outcome| outcome.healthy),
        checks,
    }
}

fn run(check: Check, record: &Record, apis: &LocalApis, deadline: Duration) -> Outcome {
    let start = Instant::now();
    let ended: Result<String, WaitError<std::convert::Infallible>> =
        wait::until(deadline, Backoff::LOCAL, || {
            Ok(match check.probe(record, apis) {
                Ok(proof) => ControlFlow::Break(proof),
                Err(reason) => ControlFlow::Continue(reason),
            })
        });
    let milliseconds = start.elapsed().as_millis();
    match ended {
        Ok(reason) => Outcome {
            check,
            healthy: true,
            reason,
            milliseconds,
        },
        Err(WaitError::Deadline {
            last_reason: reason, ..
        }) => Outcome {
            check,
            healthy: false,
            reason,
            milliseconds,
        },
        Err(WaitError::Probe(never)) => match never {},
    }
}
