//! Owns what the agent does on a node: apply, check, health. Touches `host`, the metadata service and local HTTP.

pub mod apply;
pub mod cli;
pub mod config;
pub mod disks;
pub mod health;
mod http;
mod pipeline;
pub mod render;
pub mod services;
pub mod sources;
mod wait;

use std::path::Path;

use config::{ConsulConfig, NodeConfig, NomadConfig, RetryJoin, Role};
use render::Versions;
use sources::InstanceFacts;

pub use pipeline::{Applied, Environment, Mode, NodeError, apply_spec, configure};

use crate::host::{Files, Invocation};

/// Writes what a node of `role` would get below `directory`, and returns the products' own validators, to be run
/// one after the other: `programs.check(&invocation)` fails if a product refuses what was written.
///
/// `files` tells where the binaries are, `versions` (see [`Versions::detect`]) what they are, and `facts` may be
/// [`InstanceFacts::sample`]. Nothing else of the machine is read or changed.
pub fn render_for_validation(
    role: Role,
    facts: &InstanceFacts,
    versions: &Versions,
    files: &Files,
    directory: &Path,
) -> Result<Vec<Invocation>, NodeError> {
    let spec = config::resolve(&sample(role), facts);
    let desired = render::render(&spec, versions)?;
    apply::write_tree(&desired, directory)?;
    let validators = apply::validators(&desired, files, directory);
    Ok(validators.into_iter().map(|(_, invocation)| invocation).collect())
}

/// What a usual user says of a node of this role.
fn sample(role: Role) -> NodeConfig {
    let servers = |owner| (role == owner).then_some(3);
    NodeConfig {
        role,
        datacenter: Some("private-services".to_owned()),
        consul: ConsulConfig {
            datacenter: None,
            retry_join: RetryJoin::Tag {
                key: "cos:consul".to_owned(),
                value: "sample".to_owned(),
            },
            bootstrap_expect: servers(Role::ConsulServer),
            recursors: Vec::new(),
        },
        nomad: NomadConfig {
            bootstrap_expect: servers(Role::NomadServer),
            ..NomadConfig::default()
        },
        registries: Vec::new(),
        docker_privileged: role == Role::NomadClient,
    }
}
