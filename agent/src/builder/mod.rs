//! Owns what the agent does on the builder and in the boot test: install, verify, seal. Touches `host` only.

mod accounts;
mod booted;
mod digest;
mod docker;
mod error;
mod extract;
mod identity;
mod install;
mod machine;
mod packet_filter;
mod parallel;
mod payload;
mod report;
mod residue;
mod run_command;
mod seal;
mod unpack;
mod verify;

#[cfg(test)]
mod sample;

pub use error::BuilderError;
pub use install::install;
pub use machine::{Accounts, Machine};
pub use report::{Check, InstallReport, Phase, SealReport, VerifyReport};
pub use seal::seal;
pub use verify::{Booted, verify};

/// Where the agent lies on a machine.
pub const AGENT_PATH: &str = "/opt/cos/bin/cos-agent";
