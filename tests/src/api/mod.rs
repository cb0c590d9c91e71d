//! Owns the EC2 half of the sandbox: AWS's HTTP on loopback, disks, and what instances and commands do over time.
//! Touches the port `Machines`, one folder of disk files, and moto, which it runs as a child process.

pub mod blocks;
pub mod call;
pub mod control;
pub mod cut;
pub mod executor;
pub mod faults;
pub mod front;
pub mod mirror;
pub mod moto;
pub mod notice;
pub mod record;
pub mod store;
pub mod timeline;
pub mod wire;
