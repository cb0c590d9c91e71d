//! Owns the demo: what a user would do with COS, step by step, on this machine.
//! Touches a sandbox through its own command, and AWS's API through cos-bake's ports.

mod child;
mod cluster;
mod life;
mod steps;

pub(crate) use child::cancelled_by_signals;
pub use cluster::main_job;
pub(crate) use cluster::{CLUSTER_TAG, NODES, Node, bake, launch_node, online, run as run_on, take_down};
pub use life::{Tools, run};
pub use steps::Steps;
