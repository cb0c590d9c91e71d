//! Owns the demo: what a user would do with COS, step by step, on this machine.
//! Touches a sandbox through its own command, and AWS's API through cos-bake's ports.

mod child;
mod cluster;
mod life;
mod steps;

pub use cluster::main_job;
pub use life::{Tools, run};
pub use steps::Steps;
