//! Owns the way from what a node should be to what it is: observe, diff, judge, execute.
//! Touches `host` and the service manager.

mod carry_out;
mod change;
mod diff;
mod execute;
mod judge;
mod observe;
mod stamp;
mod verdict;

pub(crate) use carry_out::Listeners;
pub use change::{Change, ChangeSet, Content};
pub use diff::diff;
pub use execute::{ExecuteError, Executor, Ports};
pub use judge::{JudgeError, judge, validators, write_tree};
pub(crate) use observe::{Conditions, conditions, observe_after};
pub use observe::{ObserveError, Observed, ObservedDirectory, ObservedFile, ObservedUnit, observe};
pub(crate) use verdict::{Judgement, Verdicts};
