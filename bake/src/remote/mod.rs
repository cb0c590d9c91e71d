//! Owns the port `Remote`: a script on a machine and what it left behind.
//! Touches nothing; `ssm.rs` is the one real implementation (Run Command), `fake.rs` the one fake.

pub mod fake;
pub mod ssm;

use std::future::Future;
use std::time::Duration;

use crate::cloud::{CloudError, InstanceId};

/// A script to run on a machine with `sh` as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it does, in a few words; shows in the command's comment (at most 100 characters).
    pub name: String,
    /// The text, at most about 48 KiB (Run Command's document limit is 64 KB).
    pub text: String,
    /// Longest time it may run, in whole seconds from 5 to 172,800.
    pub deadline: Duration,
}

/// What a script left behind. Run Command keeps the first 24,000 characters of standard output and the first 8,000 of
/// standard error, so scripts print little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptOutput {
    /// Exit status; none if it was ended by its deadline.
    pub status: Option<i32>,
    /// Beginning of standard output.
    pub stdout: String,
    /// Beginning of standard error.
    pub stderr: String,
}

/// Commands on machines.
pub trait Remote: Send + Sync {
    /// Whether the machine takes commands now.
    fn online(&self, instance: &InstanceId) -> impl Future<Output = Result<bool, CloudError>> + Send;

    /// Runs a script to its end, polling once a second. An error means that it could not be run, not that it failed.
    fn run(
        &self,
        instance: &InstanceId,
        script: &Script,
    ) -> impl Future<Output = Result<ScriptOutput, CloudError>> + Send;
}
