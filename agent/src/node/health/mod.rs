//! Owns proving that a node does its work: each check with its own last reason, all with one deadline.
//! Touches local HTTP, Docker's socket, DNS, the CNI plug-ins, and through a port the registries' tokens.

mod api;
mod checks;
mod cni;
mod failure;
mod gate;
mod mounts;
mod query;
mod registries;
mod resolution;

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::render::Record;
use super::wait::{self, Backoff, WaitError};
use crate::host::{Files, Programs};

pub use api::{CONSUL_URL, ConsulApi, DOCKER_SOCKET, LocalApis, LocalConsul, NOMAD_URL};
pub use checks::Check;
pub use failure::Failure;
pub use gate::{Decision, Gate};
pub use registries::Ecr;
pub use resolution::System;

/// Whether images can be pulled: a token for the node's own registries, from the cache or from AWS.
pub trait RegistryTokens {
    /// Obtains one for each of these hosts, or says why one cannot be had; that the role lacks the permission is a
    /// failure with the missing IAM line as its hint. Must end within some seconds. Never returns a token's text.
    fn obtainable(&self, hosts: &[String]) -> Result<String, Failure>;
}

/// Whom checks ask.
#[derive(Clone, Copy)]
pub struct Probes<'a> {
    /// Consul, Nomad and Docker of this machine.
    pub apis: &'a LocalApis,
    /// Files of the machine.
    pub files: &'a Files,
    /// Its programs.
    pub programs: &'a (dyn Programs + Sync),
    /// The resolver that its programs use.
    pub system: System,
    /// Tokens of registries; without it they are not checked.
    pub registries: Option<&'a (dyn RegistryTokens + Sync)>,
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Check.
    pub check: Check,
    /// Whether it passed.
    pub healthy: bool,
    /// What proved it, or the last reason why not.
    pub reason: String,
    /// What may be done about it, where it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether waiting is of no use.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
    /// Milliseconds until it passed, or until it was given up.
    pub milliseconds: u128,
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether every check passed.
    pub healthy: bool,
    /// Every check of the node.
    pub checks: Vec<Outcome>,
}

/// Runs every check side by side until each has passed, cannot pass any more, or the deadline.
pub fn prove(record: &Record, probes: &Probes, deadline: Duration) -> Health {
    let checks = side_by_side(record, probes, deadline);
    Health {
        healthy: checks.iter().all(|outcome| outcome.healthy),
        checks,
    }
}

/// Asks each check once, side by side: what a [`Gate`] decides by.
pub fn examine(record: &Record, probes: &Probes) -> Vec<Outcome> {
    side_by_side(record, probes, Duration::ZERO)
}

fn side_by_side(record: &Record, probes: &Probes, deadline: Duration) -> Vec<Outcome> {
    thread::scope(|scope| {
        let running: Vec<_> = Check::of(record, probes)
            .into_iter()
            .map(|check| scope.spawn(move || run(check, record, probes, deadline)))
            .collect();
        let join = |check: thread::ScopedJoinHandle<'_, Outcome>| {
            check
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(join).collect()
    })
}

fn run(check: Check, record: &Record, probes: &Probes, deadline: Duration) -> Outcome {
    let start = Instant::now();
    // The last one met, with its hint; the wait itself keeps its reason only.
    let mut last = None;
    let ended = wait::until(deadline, Backoff::LOCAL, || match check.probe(record, probes) {
        Ok(proof) => Ok(ControlFlow::Break(proof)),
        Err(failure) if failure.hard => Err(failure),
        Err(failure) => {
            let reason = failure.reason.clone();
            last = Some(failure);
            Ok(ControlFlow::Continue(reason))
        }
    });
    let (healthy, reason, failure) = match ended {
        Ok(proof) => (true, proof, None),
        Err(WaitError::Deadline { last_reason, .. }) => (false, last_reason, last),
        Err(WaitError::Probe(failure)) => (false, failure.reason.clone(), Some(failure)),
    };
    Outcome {
        check,
        healthy,
        reason,
        hard: failure.as_ref().is_some_and(|failure| failure.hard),
        hint: failure.and_then(|failure| failure.hint),
        milliseconds: start.elapsed().as_millis(),
    }
}
