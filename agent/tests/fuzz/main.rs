//! Bytes from outside, damaged: every reader of them gives an answer, and none brings the agent down.
//!
//! Real samples are taken apart and put together wrongly; the same seed damages them the same way. Variables:
//! `COS_FUZZ_COUNT` (inputs over all targets), `COS_FUZZ_SEED`, `COS_FUZZ_TARGET` (part of a name). `./dev fuzz` sets
//! them.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must end, with the place where it could not"
)]

mod cases;

mod damage;
mod runner;
mod server;
mod target;
mod targets;
