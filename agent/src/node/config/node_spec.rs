//! Owns a node with no choice left open: what a user said, and what the instance is.
//! Touches nothing. Secrets are not in it, only where they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::resolve::VPC_RESOLVER;
use super::roles::Roles;
use super::values::{
    ClientIntroduction, DefaultPolicy, JoinTag, LogLevel, OnDrift, OnRebalance, SecretSource,
};
use crate::node::disks::Request;
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
    /// Disks that are mounted before anything starts.
    pub disks: Request,
    /// Host names of the ECR registries, sorted, without duplicates.
    pub registries: Vec<String>,
    /// Users beside root whose `docker pull` finds those registries.
    pub registry_users: Vec<String>,
    /// Names below `.consul`.
    pub dns: DnsSpec,
    /// How the node is seen into the cluster and out of it; none where nobody watches.
    pub watch: Option<WatchSettings>,
}

/// How a node is seen into the cluster and out of it. The defaults are what a user gets who says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSettings {
    /// Whether a client takes no jobs before it is ready.
    pub hold_until_ready: bool,
    /// Longest time until the node must be ready.
    pub ready_deadline: Duration,
    /// Launch hook; found by itself if absent and the group has only one.
    pub launch_hook: Option<String>,
    /// What a recommendation to rebalance does.
    pub rebalance: OnRebalance,
    /// Longest time for jobs to move away. A notice that leaves less makes it less.
    pub drain_deadline: Duration,
    /// How long before a scheduled event jobs move away.
    pub scheduled_event_lead: Duration,
    /// Termination hook; found by itself if absent and the group has only one.
    pub termination_hook: Option<String>,
    /// What is done about files and secrets that are no longer what they should be.
    pub drift: OnDrift,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            hold_until_ready: true,
            ready_deadline: Duration::from_mins(5),
            launch_hook: None,
            rebalance: OnRebalance::Ineligible,
            drain_deadline: Duration::from_mins(15),
            scheduled_event_lead: Duration::from_mins(15),
            termination_hook: None,
            drift: OnDrift::Repair,
        }
    }
}

impl NodeSpec {
    /// Settles how names below `.consul` resolve, by what the machine has.
    pub fn settle_dns(&mut self, facts: &ResolverFacts) -> Result<(), DnsRefusal> {
        let plan = dns::plan(self.dns.mode, facts)?;
        // What the machine asked until now is nearer than what every VPC has.
        if plan.recursors && self.consul.recursors == [VPC_RESOLVER] {
            self.consul.recursors.clone_from(&plan.upstream);
        }
        self.dns.plan = Some(plan);
        Ok(())
    }
}

/// Consul on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSpec {
    /// Whether COS writes its configuration.
    pub managed: bool,
    /// Consul's datacenter.
    pub datacenter: String,
    /// Values of `retry_join`, ready to write; empty only where COS does not write the configuration.
    pub retry_join: Vec<String>,
    /// The tag of EC2 by which servers are found, where it is a tag.
    pub join_tag: Option<JoinTag>,
    /// Number of servers if this is one.
    pub server: Option<u32>,
    /// DNS servers for names outside `.consul`.
    pub recursors: Vec<IpAddr>,
    /// Folder of its state.
    pub data_dir: String,
    /// Whether it shows the web interface.
    pub ui: bool,
    /// Key that encrypts gossip.
    pub gossip_key: Option<SecretSource>,
    /// Encryption of RPC and HTTPS.
    pub tls: Option<ConsulTlsSpec>,
    /// Access control, where it is on.
    pub acl: Option<AclSpec>,
    /// How servers look after each other.
    pub autopilot: AutopilotSpec,
    /// How much it says.
    pub log_level: LogLevel,
    /// How the service runs.
    pub service: ServiceSpec,
}

/// Encryption between Consul's agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulTlsSpec {
    /// Certificate of the authority.
    pub ca: SecretSource,
    /// The node's own certificate and its key; none where the servers hand it out.
    pub pair: Option<KeyPair>,
    /// Whether others must show a certificate.
    pub verify_incoming: bool,
    /// Whether the node checks the certificates of others.
    pub verify_outgoing: bool,
    /// Whether a server must prove by its certificate that it is one.
    pub verify_server_hostname: bool,
    /// Whether servers hand certificates to clients.
    pub auto_encrypt: bool,
    /// Whether the HTTPS API listens.
    pub https: bool,
    /// Whether its users must show a certificate.
    pub verify_https_client: bool,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Certificate.
    pub certificate: SecretSource,
    /// Its key.
    pub key: SecretSource,
}

/// Access control of Consul, switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclSpec {
    /// What is done where no rule speaks.
    pub default_policy: DefaultPolicy,
    /// Token of the agent itself.
    pub agent: Option<SecretSource>,
    /// Token of requests that bring none.
    pub default: Option<SecretSource>,
    /// Token that may do everything, for the first start of a cluster.
    pub initial_management: Option<SecretSource>,
}

/// Autopilot of servers. None is the product's own default, which is also what COS's scripts used to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AutopilotSpec {
    /// Whether dead servers are removed.
    pub cleanup_dead_servers: Option<bool>,
    /// Longest time without contact with the leader of a healthy server.
    pub last_contact_threshold: Option<Duration>,
    /// How many log entries a healthy server may be behind.
    pub max_trailing_logs: Option<u32>,
    /// How long a new server must be healthy before it may vote.
    pub server_stabilization_time: Option<Duration>,
    /// Fewest servers that removal of dead ones leaves.
    pub min_quorum: Option<u32>,
    /// Enterprise: whether upgrade migration is off.
    pub disable_upgrade_migration: Option<bool>,
    /// Consul Enterprise: key of `node_meta` that names the zone.
    pub redundancy_zone_tag: Option<String>,
    /// Consul Enterprise: key of `node_meta` that names the version.
    pub upgrade_version_tag: Option<String>,
}

/// How a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// User.
    pub user: String,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Where standard output goes, as systemd has it; none for systemd's default.
    pub standard_output: Option<String>,
    /// Where standard error goes, as systemd has it; none for systemd's default.
    pub standard_error: Option<String>,
}

/// Nomad on a node: a server, a client, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadSpec {
    /// Whether COS writes its configuration.
    pub managed: bool,
    /// Nomad's region.
    pub region: String,
    /// The server, if this is one.
    pub server: Option<NomadServerSpec>,
    /// The client, if this is one.
    pub client: Option<NomadClientSpec>,
    /// Folder of its state.
    pub data_dir: String,
    /// Folder of log files, if there are any.
    pub log_dir: Option<String>,
    /// Encryption of RPC and HTTP.
    pub tls: Option<NomadTlsSpec>,
    /// Whether access control is on.
    pub acl: bool,
    /// Token with which Nomad speaks to Consul.
    pub consul_token: Option<SecretSource>,
    /// What it measures.
    pub telemetry: TelemetrySpec,
    /// How much it says.
    pub log_level: LogLevel,
    /// How the service runs.
    pub service: ServiceSpec,
}

/// A Nomad server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadServerSpec {
    /// Number of servers in the cluster.
    pub expect: u32,
    /// Key that encrypts gossip.
    pub gossip_key: Option<SecretSource>,
    /// How servers look after each other.
    pub autopilot: AutopilotSpec,
    /// What wraps its keys; none where they lie beside its state.
    pub keyring: Option<KeyringSpec>,
    /// What is asked of clients that the servers do not know yet; none for Nomad's own default.
    pub client_introduction: Option<ClientIntroduction>,
    /// Whether jobs get an identity with which they sign in to Consul.
    pub consul_identities: bool,
}

/// A key of KMS that wraps the keys of Nomad's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyringSpec {
    /// AWS region.
    pub region: String,
    /// Id, ARN or alias.
    pub key: String,
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
    /// Folders that jobs may mount, by name.
    pub host_volumes: BTreeMap<String, HostVolumeSpec>,
    /// Free options.
    pub options: BTreeMap<String, String>,
    /// How long a client that stops waits for its jobs to move away.
    pub drain_deadline: Duration,
    /// Whether the user asked for that deadline: then a version that cannot hold to it is refused.
    pub drain_asked: bool,
    /// Token with which the client introduces itself.
    pub introduction_token: Option<SecretSource>,
}

/// A folder that jobs may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVolumeSpec {
    /// The folder.
    pub path: String,
    /// Whether jobs may only read.
    pub read_only: bool,
}

/// Encryption between Nomad's agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadTlsSpec {
    /// Certificate of the authority.
    pub ca: SecretSource,
    /// The node's own certificate and its key.
    pub pair: KeyPair,
    /// Whether HTTP is encrypted too.
    pub http: bool,
    /// Whether a server must prove by its certificate that it is one.
    pub verify_server_hostname: bool,
    /// Whether users of HTTP must show a certificate.
    pub verify_https_client: bool,
}

/// What Nomad measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetrySpec {
    /// Use of resources by allocations.
    pub allocations: bool,
    /// Use of resources by the node.
    pub node: bool,
    /// In Prometheus's format.
    pub prometheus: bool,
}
