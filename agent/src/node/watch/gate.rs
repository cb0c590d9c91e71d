//! Owns what a node must prove before it takes work, and marking it as one that has yet to.
//! Touches the agents of this machine, through `health`.

use std::time::Duration;

use super::journal::Journal;
use super::notice::Target;
use crate::host::{FileError, Files, RealPrograms};
use crate::node::health::{self, Decision, Ecr, LocalApis, Probes, System};
use crate::node::render::Record;

/// What a look at the node's readiness found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can work.
    Ready,
    /// Not yet, because of this.
    NotYet(String),
    /// It will never be, because of this; only somebody's hand can change it.
    Hopeless(String),
}

/// The gate between a node that is up and one that works.
pub trait Gate {
    /// Looks once, within seconds.
    fn prove(&self) -> Verdict;
}

/// The checks of `cos-agent health`, each of which must pass.
#[derive(Debug)]
pub struct HealthGate<'a> {
    record: &'a Record,
    apis: LocalApis,
    files: Files,
    registries: Ecr,
}

impl<'a> HealthGate<'a> {
    /// The checks of a node of which `apply` wrote this record.
    pub fn new(record: &'a Record, apis: LocalApis, files: &Files) -> Self {
        Self {
            record,
            apis,
            files: files.clone(),
            registries: Ecr::new(files),
        }
    }
}

impl Gate for HealthGate<'_> {
    fn prove(&self) -> Verdict {
        let probes = Probes {
            apis: &self.apis,
            files: &self.files,
            programs: &RealPrograms,
            system: System::Configured,
            registries: Some(&self.registries),
        };
        // Whoever watches has a deadline of its own for how long it may take.
        let gate = health::Gate {
            deadline: Duration::MAX,
        };
        match gate.decide(&health::examine(self.record, &probes), Duration::ZERO) {
            Decision::Ready => Verdict::Ready,
            Decision::Wait(missing) => Verdict::NotYet(missing),
            Decision::Abandon { reason, .. } => Verdict::Hopeless(reason),
        }
    }
}

/// Marks the node as one that has yet to prove that it is ready. To be called before Nomad starts for the first
/// time: from then on the watcher keeps a client ineligible, proves the node, makes it eligible, and completes the
/// launch hook. Where Nomad knows `client.default_ineligible` (2.0.3) the node is ineligible from its first breath; older
/// ones are made so as soon as their API answers.
pub fn hold_back(files: &Files) -> Result<(), FileError> {
    Journal::new(files).set_arriving(true)
}

/// Whether a node with this target may join the cluster: one in a warm pool waits until it is called.
pub fn may_join(target: Option<&Target>) -> bool {
    target.is_none_or(Target::joins)
}
