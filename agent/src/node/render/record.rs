//! Owns the record that `apply` leaves of a node: what `health` and others must know long after it ended.
//! Touches nothing. No secret is in it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dns::Resolver;
use super::{RenderError, Version, Versions, json};
use crate::node::config::{NodeSpec, Role, Roles, WatchSettings};

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
    /// File systems that must be mounted. Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ExpectedMount>,
    /// How names below `.consul` resolve; none if they need not. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<RecordedDns>,
    /// ECR registries that the node pulls from. Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<String>,
    /// How the node is watched; none where it is not. Since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchSettings>,
}

/// A file system that must be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedMount {
    /// Where.
    pub point: String,
    /// What: a device by any of its names, or the source as the kernel shows it; anything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// How names resolve on a node, as far as it must be proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDns {
    /// Who resolves names below `.consul`.
    pub resolver: Resolver,
    /// The network's own servers.
    pub upstream: Vec<IpAddr>,
    /// A name outside `.consul`, which must resolve as well as it does at those servers.
    pub witness: String,
}

/// Every file system that the node must have, whatever device it is on.
fn mounts(spec: &NodeSpec) -> Vec<ExpectedMount> {
    let disks = spec.disks.disks.iter().map(|disk| &disk.mount_point);
    let efs = spec.disks.efs.iter().map(|efs| &efs.mount_point);
    let expected = |point: &String| ExpectedMount {
        point: point.clone(),
        source: None,
    };
    disks.chain(efs).map(expected).collect()
}

/// What the record says of DNS.
fn recorded_dns(spec: &NodeSpec) -> Option<RecordedDns> {
    let plan = spec.dns.plan.as_ref()?;
    (plan.resolver != Resolver::Off).then(|| RecordedDns {
        resolver: plan.resolver,
        upstream: plan.upstream.clone(),
        witness: spec.dns.witness.clone(),
    })
}

pub(super) fn record(spec: &NodeSpec, versions: &Versions) -> Result<String, RenderError> {
    let nomad = spec.nomad.as_ref();
    let nomad_tls = nomad.and_then(|nomad| nomad.tls.as_ref());
    json(&Record {
        version: 3,
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
        mounts: mounts(spec),
        dns: recorded_dns(spec),
        registries: if spec.roles.has(Role::NomadClient) {
            spec.registries.clone()
        } else {
            Vec::new()
        },
        watch: spec.watch.clone(),
    })
}
