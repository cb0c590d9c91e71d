//! Owns the record that `apply` leaves of a node: what `health` and others must know long after it ended.
//! Touches nothing. No secret is in it.

use serde::{Deserialize, Serialize};

use super::{RenderError, Version, Versions, json};
use crate::node::config::{NodeSpec, Roles};

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record.
    pub version: u32,
    /// What the node is for.
    #[serde(rename = "role")]
    pub roles: Roles,
    /// Name in Consul and Nomad.
    pub name: String,
    /// COS's datacenter.
    pub datacenter: String,
    /// Number of Consul servers, on one of them.
    pub consul_servers: Option<u32>,
    /// Number of Nomad servers, on one of them.
    pub nomad_servers: Option<u32>,
    /// Installed Consul.
    pub consul: Version,
    /// Installed Nomad.
    pub nomad: Version,
    /// Whether Consul asks for tokens.
    #[serde(default)]
    pub consul_acl: bool,
    /// Whether Nomad asks for tokens.
    #[serde(default)]
    pub nomad_acl: bool,
    /// Whether Nomad's HTTP API is encrypted.
    #[serde(default)]
    pub nomad_https: bool,
}

pub(super) fn record(spec: &NodeSpec, versions: &Versions) -> Result<String, RenderError> {
    let nomad = spec.nomad.as_ref();
    let nomad_tls = nomad.and_then(|nomad| nomad.tls.as_ref());
    json(&Record {
        version: 1,
        roles: spec.roles.clone(),
        name: spec.name.clone(),
        datacenter: spec.datacenter.clone(),
        consul_servers: spec.consul.server,
        nomad_servers: nomad
            .and_then(|nomad| nomad.server.as_ref())
            .map(|server| server.expect),
        consul: versions.consul,
        nomad: versions.nomad,
        consul_acl: spec.consul.acl.is_some(),
        nomad_acl: nomad.is_some_and(|nomad| nomad.acl),
        nomad_https: nomad_tls.is_some_and(|tls| tls.http),
    })
}
