//! Owns what an `apply` did and how long each part of it took: recorded, kept on disk, and shown.
//! Touches the clock and one file.

mod boot;
mod cli;
mod timeline;
mod waterfall;

pub use boot::{BOOT_REPORT, BootReport, NodeName, Outcome};
pub use cli::ReportArguments;
pub use timeline::{Decision, Phase, Running, Timeline};
pub use waterfall::{Style, waterfall};
