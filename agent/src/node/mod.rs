//! Owns what the agent does on a node: apply, check, health, drain, watch. Touches `host`, the metadata service and local HTTP.

pub mod accounts;
pub mod apply;
mod bootstrap;
pub mod cli;
mod cloud;
pub mod commands;
pub mod config;
pub mod disks;
pub mod doctor;
pub mod drain;
mod error;
pub mod health;
mod http;
mod lock;
mod log;
mod notes;
mod pipeline;
pub mod reconcile;
pub mod render;
pub mod report;
pub mod secrets;
pub mod services;
pub mod shims;
pub mod sources;
pub(crate) mod wait;
mod warm;
pub mod watch;

use std::path::Path;

use accounts::Accounts;
use config::{NodeConfig, Role};
use render::{Installed, Versions};
use secrets::Fetched;
use sources::InstanceFacts;

pub use bootstrap::Neighbours;
pub use error::NodeError;
pub use pipeline::{
    Applied, Effect, Environment, Mode, Outlook, Planned, apply_spec, apply_spec_with_last_words, configure,
    look_ahead, plan_spec,
};

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
    let spec = config::resolve(&sample(role)?, facts, None)?;
    let installed = Installed {
        versions: *versions,
        accounts: Accounts::read(files)?,
    };
    let desired = render::render(&spec, &installed, &Fetched::default())?;
    apply::write_tree(&desired, directory)?;
    let validators = apply::validators(&desired, versions, files, directory);
    Ok(validators.into_iter().map(|(_, invocation)| invocation).collect())
}

/// What a usual user says of a node of this role.
fn sample(role: Role) -> Result<NodeConfig, NodeError> {
    let own = match role {
        Role::ConsulClient => r#""consul": {"retry_join": JOIN}"#,
        Role::ConsulServer => r#""consul": {"bootstrap_expect": 3, "retry_join": JOIN}"#,
        Role::NomadServer => r#""consul": {"retry_join": JOIN}, "nomad": {"bootstrap_expect": 3}"#,
        Role::NomadClient => r#""consul": {"retry_join": JOIN}, "docker": {"privileged": true}"#,
    };
    let own = own.replace("JOIN", r#"{"tag_key": "cos:consul", "tag_value": "sample"}"#);
    let text = format!(r#"{{"version": 1, "role": "{role}", "datacenter": "private-services", {own}}}"#);
    let document = sources::Document {
        origin: sources::Origin::Sample,
        bytes: text.into_bytes(),
    };
    Ok(config::read(&[document])?)
}
