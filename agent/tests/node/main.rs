//! Tests of what the agent does on a node, against real files, real HTTP and a machine that is made of memory.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must end, with the place where it could not"
)]

mod binaries;
mod cases;
mod cluster;
mod commands;
mod converge;
mod dns;
mod doctor;
mod drop_ins;
mod first_start;
mod guide;
mod health;
mod imds;
mod judgement;
mod products;
mod reconcile;
mod secrets;
mod settings;
mod sources;
mod starts;
mod templates;
mod watch;

mod machine;
mod nodes;
mod server;
