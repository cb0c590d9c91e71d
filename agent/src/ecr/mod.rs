//! Owns `docker-credential-ecr-login`: logins for ECR registries, for Docker and for Nomad.
//! Touches AWS (one call in half the life of a login) and a folder in memory.

mod cache;
mod cli;
mod error;
mod helper;
mod host;

pub use cli::{EcrLoginArguments, NAME, main};
pub use error::EcrError;
pub use helper::{DEADLINE, FOLDER, Helper, Login};
pub use host::Registry;
