//! Owns a node's data disks: from what a configuration says to mounted file systems, without ever losing a byte.
//! Touches disks, mounts, and the files that say what is mounted at boot.
//!
//! ```text
//! Request ─▶ observe (waits for disks; reads only) ─▶ Observed ─▶ plan (pure) ─▶ Plan ─▶ execute, step by step
//! ```
//!
//! A disk gets a file system only if every piece of evidence says that nothing was ever written to it
//! ([`evidence::objections`]), once when it is planned and once more right before. A mount that fails is an error
//! and nothing else. A run that dies between any two steps is finished by the next one.

mod array;
mod bring_up;
pub mod cli;
mod efs;
mod error;
pub mod evidence;
mod execute;
pub mod identify;
pub mod inventory;
pub mod matching;
mod mountable;
pub mod mounts;
mod nvme;
mod observe;
mod order;
mod plan;
pub mod probe;
pub mod spec;
pub mod step;
mod uevent;
pub mod units;
pub mod uuid;
pub mod zeros;

pub use bring_up::{Outcome, PROOFS, REPORT, Report, StepRecord, bring_up, check, dry_run, execute, refused};
pub use error::{DisksError, StepError};
pub use execute::Executor;
pub use observe::{Environment, Looked, Observed, ObservedDisk, ObservedPoint, observe};
pub use plan::{Decision, MountPlan, Plan, plan};
pub use spec::{
    DiskSource, DiskSpec, EfsSpec, EfsTarget, FileSystem, Format, Request, RootAccess, SpecFault,
};
pub use step::{Planned, Step};
pub use uevent::{Uevent, Uevents, parse as parse_uevent};
pub use units::{Keeper, MountEntry, nomad_drop_in};

/// The mount units of a plan, by path, as they are or will be.
pub fn render_units(plan: &Plan) -> Vec<(String, String)> {
    let entries = plan.mounts.iter().filter_map(|mount| mount.entry.as_ref());
    entries
        .map(|entry| (entry.unit_path(), entry.unit_content()))
        .collect()
}
