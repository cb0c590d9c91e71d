//! Tests of the client of AWS and of the credential helper: real HTTP, real TLS, real processes, and AWS's own models.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must end, with the place where it could not"
)]

mod calls;
mod ecr;
mod faults;
mod models;
mod moto;
mod tls;

mod fake;
mod node;
mod server;
