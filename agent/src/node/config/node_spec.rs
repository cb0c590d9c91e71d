//! Owns a node with no choice left open: what a user said, and what the instance is.
//! Touches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::roles::Roles;
use crate::node::render::dns::{self, DnsRefusal, DnsSpec};
use crate::node::sources::resolver::ResolverFacts;

/// A node with no choice left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// What the node is for.
    pub roles: Roles,
    /// Name in Consul and Nomad: the instance id.
    pub name: String,
    /// Address at which other nodes reach this one.
    pub address: Ipv4Addr,
    /// Availability zone.
    pub zone: String,
    /// COS's datacenter: Nomad's where it runs, and on every node part of what Consul knows of it.
    pub datacenter: String,
    /// Consul's part.
    pub consul: ConsulSpec,
    /// Nomad's part; none where it does not run.
    pub nomad: Option<NomadSpec>,
    /// Host names of the ECR registries, sorted, without duplicates.
    pub registries: Vec<String>,
    /// Names below `.consul`.
    pub dns: DnsSpec,
}

impl NodeSpec {
    /// Settles how names below `.consul` resolve, by what the machine has.
    pub fn settle_dns(&mut self, facts: &ResolverFacts) -> Result<(), DnsRefusal> {
        let plan = dns::plan(self.dns.mode, facts)?;
        if plan.recursors && self.consul.recursors.is_empty() {
            self.consul.recursors.clone_from(&plan.upstream);
        }
        self.dns.plan = Some(plan);
        Ok(())
    }
}

/// Consul on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSpec {
    /// Consul's datacenter.
    pub datacenter: String,
    /// Values of `retry_join`, ready to write.
    pub retry_join: Vec<String>,
    /// Number of servers if this is one.
    pub server: Option<u32>,
    /// DNS servers for names outside `.consul`.
    pub recursors: Vec<IpAddr>,
}

/// Nomad on a node: a server, a client, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadSpec {
    /// Nomad's region.
    pub region: String,
    /// Number of servers if this is one.
    pub server: Option<u32>,
    /// The client, if this is one.
    pub client: Option<NomadClientSpec>,
}

/// A Nomad client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadClientSpec {
    /// Node pool, if one was asked for.
    pub node_pool: Option<String>,
    /// Metadata.
    pub meta: BTreeMap<String, String>,
    /// Whether jobs may ask Docker for privileged containers.
    pub docker_privileged: bool,
}
