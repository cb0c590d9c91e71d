//! Owns what a user may say of a node: `NodeConfig`, version 1, and the `NodeSpec` that it becomes on an instance.
//! Touches nothing.
//!
//! No secret has a place here: user-data is readable by every process of the instance.

mod check;
mod fault;
mod read;
mod resolve;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

pub use fault::{Fault, Faults};
pub use read::read;
pub use resolve::resolve;

/// Version of the document that this code reads.
pub const VERSION: u64 = 1;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A Consul server and nothing else.
    ConsulServer,
    /// A Nomad server with a Consul client beside it.
    NomadServer,
    /// A Nomad client, which runs jobs, with Docker and a Consul client beside it.
    NomadClient,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::ConsulServer, Self::NomadServer, Self::NomadClient];

    /// The role's name in documents and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsulServer => "consul-server",
            Self::NomadServer => "nomad-server",
            Self::NomadClient => "nomad-client",
        }
    }

    /// Whether Nomad runs on such a node.
    pub const fn has_nomad(self) -> bool {
        !matches!(self, Self::ConsulServer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a user says of a node. Each value is well-formed by itself and allowed for the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// What the node is for.
    pub role: Role,
    /// Nomad's datacenter; the availability zone if absent. COS's usual five are `leader`, `backoffice`,
    /// `public-services`, `private-services` and `content-connector`.
    pub datacenter: Option<String>,
    /// Consul's part.
    pub consul: ConsulConfig,
    /// Nomad's part; empty for `consul-server`.
    pub nomad: NomadConfig,
    /// Registries beside the instance's own account and region, whose credentials come from ECR.
    pub registries: Vec<Registry>,
    /// Whether jobs may ask Docker for privileged containers.
    pub docker_privileged: bool,
}

/// What a user says of Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulConfig {
    /// Consul's datacenter; the AWS region if absent. All five Nomad datacenters share it.
    pub datacenter: Option<String>,
    /// How the Consul servers are found.
    pub retry_join: RetryJoin,
    /// How many servers form the cluster; some for `consul-server` only.
    pub bootstrap_expect: Option<u32>,
    /// DNS servers for names outside `.consul`.
    pub recursors: Vec<IpAddr>,
}

/// How Consul servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryJoin {
    /// Instances of this region with this tag.
    Tag {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
    },
    /// Addresses or host names, each with a port if it is not 8301.
    Addresses(Vec<String>),
}

/// What a user says of Nomad.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NomadConfig {
    /// How many servers form the cluster; some for `nomad-server` only.
    pub bootstrap_expect: Option<u32>,
    /// Nomad's region; the AWS region if absent.
    pub region: Option<String>,
    /// Pool of a client; Nomad's `default` if absent.
    pub node_pool: Option<String>,
    /// Metadata of a client, which jobs may constrain on.
    pub meta: BTreeMap<String, String>,
}

/// A private ECR registry. What is absent is the instance's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// Account, twelve digits.
    pub account: Option<String>,
    /// Region.
    pub region: Option<String>,
}

/// A node with no choice left open: what a user said, and what the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// What the node is for.
    pub role: Role,
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
    /// Nomad's part; none for `consul-server`.
    pub nomad: Option<NomadSpec>,
    /// Host names of the ECR registries, sorted, without duplicates.
    pub registries: Vec<String>,
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

/// Nomad on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadSpec {
    /// Nomad's region.
    pub region: String,
    /// Server or client.
    pub kind: NomadKind,
}

/// Which half of Nomad runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NomadKind {
    /// A server.
    Server {
        /// How many servers form the cluster.
        bootstrap_expect: u32,
    },
    /// A client.
    Client {
        /// Node pool, if one was asked for.
        node_pool: Option<String>,
        /// Metadata.
        meta: BTreeMap<String, String>,
        /// Whether jobs may ask Docker for privileged containers.
        docker_privileged: bool,
    },
}
