//! Owns the way from what a node should be to what it is: observe, diff, judge, execute.
//! Touches `host` and the service manager.

mod carry_out;
mod diff;
mod execute;
mod judge;
mod observe;
mod verdict;

pub(crate) use carry_out::Listeners;
pub use diff::{Change, ChangeSet, Content, diff};
pub use execute::{ExecuteError, Executor, Ports};
pub use judge::{JudgeError, judge, validators, write_tree};
pub use observe::{ObserveError, Observed, ObservedDirectory, ObservedFile, ObservedUnit, observe};
pub(crate) use verdict::{Judgement, Verdicts};

use super::render::Unit;

/// Where the digest of what a unit was started with is kept. `/run` is empty after a boot, as it must be.
pub(crate) fn stamp(unit: Unit) -> String {
    format!("/run/cos-agent/started/{}", unit.name())
}
