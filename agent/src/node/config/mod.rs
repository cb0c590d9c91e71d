//! Owns what a user may say of a node, and the `NodeSpec` that it becomes on an instance.
//! Touches nothing.
//!
//! `node_config` has every key, with its documentation; `values` what single values may be; `record` how a type is
//! read and described; `roles` and `rules` what goes together; `tree` and `merge` documents before they have a meaning.

#[cfg(test)]
mod agreement;
mod check;
mod defaults;
mod disks;
mod fault;
mod merge;
mod node_config;
mod node_spec;
mod read;
mod record;
mod resolve;
mod roles;
mod rules;
mod schema;
mod tree;
mod values;

pub use defaults::{Default, defaults};
pub use fault::{Fault, Faults};
pub use node_config::*;
pub use node_spec::{
    AclSpec, AutopilotSpec, ConsulSpec, ConsulTlsSpec, HostVolumeSpec, KeyPair, KeyringSpec, NodeSpec,
    NomadClientSpec, NomadServerSpec, NomadSpec, NomadTlsSpec, ServiceSpec, TelemetrySpec, WatchSettings,
};
pub use read::{Explained, Included, explain, included, read, roles};
pub use record::Number;
pub use resolve::{ResolveError, asks_for_group, resolve};
pub use roles::{Role, Roles};
pub use schema::{Slot, json_schema, reference, slot, top_keys};
pub(crate) use tree::plain;
pub use values::*;

/// Version of the document that this code reads.
pub const VERSION: u64 = 1;
