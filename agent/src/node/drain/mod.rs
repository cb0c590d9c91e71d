//! Owns how a node gives up its work and its place: eligibility, drain, leaving, each by a port with one real
//! implementation. Touches the agents of this machine, through their own HTTP and signals.

mod api;
mod by_hand;
pub mod cli;
mod consul;
mod nomad;
mod raft;
mod services;

use std::time::Duration;

use thiserror::Error;

pub use consul::ConsulAgent;
pub use nomad::{NOMAD_DATA, NomadAgent};
pub use raft::{Peer, Raft, may_leave};
pub use services::ManagedServices;

/// An agent of this machine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiError {
    /// It may not be asked for this (403): a token is missing, or has not the right.
    #[error("{0}")]
    Denied(String),
    /// Nobody listens.
    #[error("{0}")]
    Absent(String),
    /// Anything else; it may pass.
    #[error("{0}")]
    Failed(String),
}

/// The node as Nomad's servers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Whether it may get jobs.
    pub eligible: bool,
    /// The drain.
    pub drain: DrainView,
}

/// A drain as Nomad's servers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainView {
    /// There is none, and there was none, or it was cancelled.
    None,
    /// It goes on.
    Running,
    /// All allocations were told to stop, and all but those of system jobs have.
    Complete,
}

/// Nomad's agent on this machine.
pub trait Nomad {
    /// The node, as the servers see it.
    fn node(&self) -> Result<NodeView, ApiError>;
    /// How many allocations have not ended, those of system jobs counted or not; none if nobody may tell.
    fn allocations(&self, ignore_system_jobs: bool) -> Result<Option<u32>, ApiError>;
    /// Makes the node ineligible, with all its jobs.
    fn take_out(&self) -> Result<(), ApiError>;
    /// Moves the jobs away; what is left after `deadline` is stopped. Nothing left of it stops all at once.
    fn drain(&self, deadline: Duration, ignore_system_jobs: bool, reason: &str) -> Result<(), ApiError>;
    /// Ends a drain, if there is one; makes the node eligible, if asked, whether there was one or not.
    fn end_drain(&self, eligible: bool) -> Result<(), ApiError>;
    /// The servers, as they see each other; this one among them.
    fn raft(&self) -> Result<Raft, ApiError>;
    /// Whether SIGTERM makes the agent leave; none if it does not tell.
    fn leaves_on_signal(&self) -> Result<Option<bool>, ApiError>;
}

/// Consul's agent on this machine.
pub trait Consul {
    /// Leaves the cluster and ends.
    fn leave(&self) -> Result<(), ApiError>;
    /// Begins or ends maintenance mode, in which every service of this node is critical.
    fn maintenance(&self, on: bool, reason: &str) -> Result<(), ApiError>;
    /// The servers, as they see each other; this one among them.
    fn raft(&self) -> Result<Raft, ApiError>;
}

/// Services of this machine, named without a suffix.
pub trait Services {
    /// Whether it runs, or is about to.
    fn runs(&self, service: &str) -> Result<bool, String>;
    /// Stops it and waits until it has stopped.
    fn stop(&self, service: &str) -> Result<(), String>;
    /// Begins to start it.
    fn start(&self, service: &str) -> Result<(), String>;
    /// Sends SIGTERM to its main process, which its unit would not do.
    fn terminate(&self, service: &str) -> Result<(), String>;
}
