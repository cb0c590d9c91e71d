//! Thousands of nodes that boot in the same moment, in virtual time: the agent's own code against AWS's published limits.
//!
//! Real are: reading user-data and `include`, the secrets that a node needs, requests and their signatures, answers,
//! credentials from the metadata service, and when what is asked again. Played are: the network, the clock, chance.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must end, with the place where it could not"
)]

mod cases;

mod limits;
mod metadata;
mod node;
mod parameter_store;
mod report;
mod schedule;
mod storm;
mod world;
