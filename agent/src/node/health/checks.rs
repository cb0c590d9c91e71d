//! Owns what is checked on which role, and what counts as proof.
//! Touches nothing itself; probes ask through `LocalApis`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::api::LocalApis;
use super::failure::Failure;
use super::{Probes, cni, mounts, resolution};
use crate::node::config::Role;
use crate::node::render::Record;

/// One thing that a healthy node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The Consul agent answers.
    ConsulAgent,
    /// Consul's servers have a leader, asked through this node.
    ConsulLeader,
    /// This node is a living member, with as many servers beside it as there should be (a client: at least one).
    ConsulMembers,
    /// The Nomad agent says of itself that it is healthy: a server knows a leader, a client knows a server.
    NomadAgent,
    /// As many Nomad servers are alive as there should be.
    NomadServers,
    /// Nomad's servers count this client as ready, with a healthy Docker driver.
    NomadNode,
    /// Docker answers.
    Docker,
    /// Every disk is mounted where it should be.
    Disks,
    /// The CNI plug-ins are there and run.
    Cni,
    /// Names below `.consul` resolve, and all others as well as before.
    Dns,
    /// A token for the node's ECR registries can be had.
    Ecr,
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ConsulAgent => "consul-agent",
            Self::ConsulLeader => "consul-leader",
            Self::ConsulMembers => "consul-members",
            Self::NomadAgent => "nomad-agent",
            Self::NomadServers => "nomad-servers",
            Self::NomadNode => "nomad-node",
            Self::Docker => "docker",
            Self::Disks => "disks",
            Self::Cni => "cni",
            Self::Dns => "dns",
            Self::Ecr => "ecr",
        })
    }
}

impl Check {
    /// The checks of a node, by what `apply` recorded of it.
    pub fn of(record: &Record, probes: &Probes) -> Vec<Self> {
        let roles = &record.roles;
        let client = roles.has(Role::NomadClient);
        let rows = [
            (Self::ConsulAgent, true),
            (Self::ConsulLeader, true),
            (Self::ConsulMembers, true),
            (Self::NomadAgent, roles.has_nomad()),
            (Self::NomadServers, roles.has(Role::NomadServer)),
            (Self::Docker, client),
            (Self::NomadNode, client),
            (Self::Disks, !record.mounts.is_empty()),
            (Self::Cni, client && record.version >= 2),
            (Self::Dns, record.dns.is_some()),
            (
                Self::Ecr,
                !record.registries.is_empty() && probes.registries.is_some(),
            ),
        ];
        rows.into_iter()
            .filter(|(_, has)| *has)
            .map(|(check, _)| check)
            .collect()
    }

    /// Asks once: what proves it, or why it is not proven.
    pub(super) fn probe(self, record: &Record, probes: &Probes) -> Result<String, Failure> {
        let apis = probes.apis;
        let asked = match self {
            Self::ConsulAgent => consul_agent(record, apis),
            Self::ConsulLeader => consul_leader(apis),
            Self::ConsulMembers => consul_members(record, apis),
            Self::NomadAgent => nomad_agent(record, apis),
            Self::NomadServers => nomad_servers(record, apis),
            Self::NomadNode => nomad_node(apis),
            Self::Docker => apis.docker_ping().map(|()| "answers".to_owned()),
            Self::Disks => return mounts::check(&record.mounts, probes.files),
            Self::Cni => return cni::check(probes.files, probes.programs),
            Self::Dns => match &record.dns {
                Some(dns) => return resolution::check(dns, probes.system, DNS_PORT, probes.files),
                None => Ok("nothing is to resolve".to_owned()),
            },
            Self::Ecr => match probes.registries {
                Some(registries) => return registries.obtainable(&record.registries),
                None => Ok("nobody is to be asked".to_owned()),
            },
        };
        asked.map_err(|reason| Failure::passing(reason).hint(self.hint()))
    }

    /// Where to look when it does not pass.
    fn hint(self) -> &'static str {
        match self {
            Self::ConsulAgent | Self::ConsulLeader | Self::ConsulMembers => {
                "journalctl --unit consul --lines 50; consul members"
            }
            Self::NomadAgent | Self::NomadServers | Self::NomadNode => {
                "journalctl --unit nomad --lines 50; nomad server members; nomad node status -self"
            }
            Self::Docker => "journalctl --unit docker --unit containerd --lines 50",
            Self::Disks | Self::Cni | Self::Dns | Self::Ecr => "cos-agent doctor",
        }
    }
}

/// Port of the network's own resolver.
const DNS_PORT: u16 = 53;

#[derive(Deserialize)]
struct ConsulSelf {
    #[serde(rename = "Config")]
    config: ConsulSelfConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConsulSelfConfig {
    node_name: String,
    datacenter: String,
}

fn consul_agent(record: &Record, apis: &LocalApis) -> Result<String, String> {
    let ConsulSelf { config } = apis.consul("/v1/agent/self")?;
    if config.node_name != record.name {
        return Err(format!(
            "it calls itself {}, not {}",
            config.node_name, record.name
        ));
    }
    Ok(format!("{} in {}", config.node_name, config.datacenter))
}

fn consul_leader(apis: &LocalApis) -> Result<String, String> {
    // Without a leader some versions answer 200 and an empty text, others 500.
    let leader: String = apis.consul("/v1/status/leader")?;
    if leader.is_empty() {
        return Err("the servers have no leader".to_owned());
    }
    Ok(leader)
}

#[derive(Deserialize)]
struct Member {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Tags", default)]
    tags: BTreeMap<String, String>,
    /// 1 in Consul; serf's numbers.
    #[serde(rename = "Status")]
    status: serde_json::Value,
}

impl Member {
    fn alive(&self) -> bool {
        self.status == 1 || self.status == "alive"
    }
}

fn consul_members(record: &Record, apis: &LocalApis) -> Result<String, String> {
    let members: Vec<Member> = apis.consul("/v1/agent/members")?;
    let myself = members
        .iter()
        .any(|member| member.alive() && member.name == record.name);
    if !myself {
        return Err(format!("{} is not among its own members", record.name));
    }
    let is_server = |member: &&Member| member.tags.get("role").is_some_and(|role| role == "consul");
    let servers = members
        .iter()
        .filter(|member| member.alive())
        .filter(is_server)
        .count();
    enough(servers, record.consul_servers)
}

#[derive(Deserialize)]
struct NomadHealth {
    client: Option<NomadHalf>,
    server: Option<NomadHalf>,
}

#[derive(Deserialize)]
struct NomadHalf {
    ok: bool,
    message: String,
}

fn nomad_agent(record: &Record, apis: &LocalApis) -> Result<String, String> {
    // It answers 500 when a half is not healthy, with the reason in the body, which the error then holds.
    let health: NomadHealth = apis.nomad("/v1/agent/health")?;
    let halves = [
        (Role::NomadServer, "server", health.server),
        (Role::NomadClient, "client", health.client),
    ];
    let wanted = halves.into_iter().filter(|(role, ..)| record.roles.has(*role));
    let judged: Result<Vec<String>, String> = wanted
        .map(|(_, name, half)| match half {
            Some(half) if half.ok => Ok(half.message),
            Some(half) => Err(half.message),
            None => Err(format!("it does not run as {name}")),
        })
        .collect();
    judged.map(|messages| messages.join("; "))
}

#[derive(Deserialize)]
struct NomadMembers {
    #[serde(rename = "Members")]
    members: Option<Vec<Member>>,
}

fn nomad_servers(record: &Record, apis: &LocalApis) -> Result<String, String> {
    let NomadMembers { members } = apis.nomad("/v1/agent/members")?;
    let servers = members
        .unwrap_or_default()
        .iter()
        .filter(|member| member.alive())
        .count();
    enough(servers, record.nomad_servers)
}

#[derive(Deserialize)]
struct NomadSelf {
    stats: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NomadNode {
    status: String,
    #[serde(default)]
    drivers: BTreeMap<String, NomadDriver>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NomadDriver {
    detected: bool,
    healthy: bool,
    #[serde(default)]
    health_description: String,
}

fn nomad_node(apis: &LocalApis) -> Result<String, String> {
    let NomadSelf { stats } = apis.nomad("/v1/agent/self")?;
    let id = stats
        .get("client")
        .and_then(|client| client.get("node_id"))
        .and_then(|id| id.as_str());
    let id = id.ok_or("the agent does not tell its node id")?;
    let node: NomadNode = apis.nomad(&format!("/v1/node/{id}"))?;
    if node.status != "ready" {
        return Err(format!("node {id} is {}", node.status));
    }
    match node.drivers.get("docker") {
        Some(driver) if driver.detected && driver.healthy => Ok(format!("node {id} is ready, with Docker")),
        Some(driver) => Err(format!(
            "node {id} is ready, its Docker driver is not: {}",
            driver.health_description
        )),
        None => Err(format!("node {id} has no Docker driver")),
    }
}

fn enough(alive: usize, expected: Option<u32>) -> Result<String, String> {
    let expected = expected.unwrap_or(1);
    let count = match alive {
        1 => "1 server is alive".to_owned(),
        many => format!("{many} servers are alive"),
    };
    if u32::try_from(alive).is_ok_and(|alive| alive >= expected) {
        return Ok(count);
    }
    Err(format!("{count}, {expected} should be"))
}
