//! Owns how a `NodeSpec` becomes files and units, for the versions of Consul and Nomad that are installed.
//! Touches nothing: the same spec and versions give the same bytes.

mod consul;
pub mod dns;
mod docker;
mod installed;
mod nomad;
mod version;

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::config::{NodeSpec, Role, Roles};

pub(crate) use installed::{FileIdentity, recognise};
pub use version::{Feature, Product, Version, VersionError, Versions};

/// Consul's configuration that COS writes; operators add files beside it whose names sort later.
pub const CONSUL_CONFIGURATION: &str = "/opt/consul/config/cos.json";
/// Nomad's configuration that COS writes; operators add files beside it whose names sort later.
pub const NOMAD_CONFIGURATION: &str = "/opt/nomad/config/cos.hcl";
/// What Nomad's Docker driver and the Docker client read to find credentials.
pub const DOCKER_CLIENT_CONFIGURATION: &str = "/etc/docker/config.json";
/// What Nomad's unit needs to know of role and version.
pub const NOMAD_DROP_IN: &str = "/etc/systemd/system/nomad.service.d/10-cos.conf";
/// What `apply` made of this node, for `health` and for people.
pub const RECORD: &str = "/var/lib/cos-agent/node.json";

/// A service that COS may run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Consul, on every node.
    Consul,
    /// containerd, below Docker. systemd would start it with Docker; System V scripts know no such bond.
    Containerd,
    /// Docker, where jobs run.
    Docker,
    /// The redirect of port 53 of the loopback interface to Consul.
    Dns,
    /// dnsmasq of the base, where it resolves names below `.consul`.
    Dnsmasq,
    /// systemd-resolved of the base, where it does.
    #[serde(rename = "systemd-resolved")]
    Resolved,
    /// Nomad, server or client.
    Nomad,
}

impl Unit {
    /// The service's name, without a suffix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Dns => "cos-dns",
            Self::Dnsmasq => "dnsmasq",
            Self::Resolved => "systemd-resolved",
            Self::Nomad => "nomad",
        }
    }
}

/// Content, owner and permissions of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredFile {
    /// What is in it.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Who owns it, by name; must exist on the machine.
    pub user: String,
    /// Group by name, which must exist on the machine.
    pub group: String,
}

/// What should become of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DesiredUnit {
    /// Enabled and running.
    Running(Option<RunsWith>),
    /// Neither enabled nor running.
    Stopped,
}

/// What a unit must have been started with, where COS writes what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsWith {
    /// Digest over its files and its binary's version, lower-case hexadecimal SHA-256.
    pub digest: String,
    /// Its files, keys of [`DesiredState::files`].
    pub files: Vec<String>,
}

/// What a node should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// Files by path; none for a file that must not be there.
    pub files: BTreeMap<String, Option<DesiredFile>>,
    /// Symbolic links: path and target.
    pub links: BTreeMap<String, String>,
    /// Units that COS decides about on this role; the others stay as they are.
    pub units: BTreeMap<Unit, DesiredUnit>,
}

/// A spec asks for what an installed version cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The version is older than the setting.
    #[error("{setting} needs {product} {needed}, installed is {installed}")]
    TooOld {
        /// Setting in the user's words.
        setting: &'static str,
        /// Product.
        product: Product,
        /// First version that knows it.
        needed: Version,
        /// What is installed.
        installed: Version,
    },
    /// HCL could not be written: a defect of COS, not of the input.
    #[error("the configuration of Nomad could not be written as HCL: {0}")]
    Hcl(String),
    /// JSON could not be written: a defect of COS, not of the input.
    #[error("a configuration could not be written as JSON: {0}")]
    Json(String),
}

/// Renders a node.
pub fn render(spec: &NodeSpec, versions: &Versions) -> Result<DesiredState, RenderError> {
    let mut files = BTreeMap::new();
    let mut units = BTreeMap::new();
    files.insert(
        CONSUL_CONFIGURATION.to_owned(),
        Some(private(consul::render(spec, versions.consul)?, "consul")),
    );
    units.insert(
        Unit::Consul,
        running(&files, &[CONSUL_CONFIGURATION], versions.consul),
    );
    if let Some(nomad) = &spec.nomad {
        let drop_in = nomad::drop_in(versions.nomad);
        files.insert(
            NOMAD_CONFIGURATION.to_owned(),
            Some(private(nomad::render(spec, nomad, versions.nomad)?, "nomad")),
        );
        files.insert(NOMAD_DROP_IN.to_owned(), Some(public(drop_in)));
        units.insert(
            Unit::Nomad,
            running(&files, &[NOMAD_CONFIGURATION, NOMAD_DROP_IN], versions.nomad),
        );
    } else {
        files.insert(NOMAD_CONFIGURATION.to_owned(), None);
        files.insert(NOMAD_DROP_IN.to_owned(), None);
        units.insert(Unit::Nomad, DesiredUnit::Stopped);
    }
    if spec.roles.has(Role::NomadClient) {
        // COS writes nothing that Docker reads at its start; the file below is read anew at every pull.
        units.insert(Unit::Containerd, DesiredUnit::Running(None));
        units.insert(Unit::Docker, DesiredUnit::Running(None));
        files.insert(
            DOCKER_CLIENT_CONFIGURATION.to_owned(),
            Some(public(docker::client_configuration(spec)?)),
        );
    }
    files.insert(RECORD.to_owned(), Some(public(record(spec, versions)?)));
    let mut links = BTreeMap::new();
    if let Some(plan) = &spec.dns.plan {
        files.extend(plan.files.clone());
        units.extend(plan.units.clone());
        links.extend(plan.links.clone());
    }
    Ok(DesiredState { files, links, units })
}

/// What `health` must know of a node long after `apply` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
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
    /// File systems that must be mounted. Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ExpectedMount>,
    /// How names below `.consul` resolve; none if they need not. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<RecordedDns>,
    /// ECR registries that the node pulls from. Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<String>,
}

/// A file system that must be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ExpectedMount {
    /// Where.
    pub point: String,
    /// What: a device by any of its names, or the source as the kernel shows it; anything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// How names resolve on a node, as far as it must be proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct RecordedDns {
    /// Who resolves names below `.consul`.
    pub resolver: dns::Resolver,
    /// The network's own servers.
    pub upstream: Vec<std::net::IpAddr>,
    /// A name outside `.consul`, which must resolve as well as it does at those servers.
    pub witness: String,
}

/// What the record says of DNS.
fn recorded_dns(spec: &NodeSpec) -> Option<RecordedDns> {
    let plan = spec.dns.plan.as_ref()?;
    (plan.resolver != dns::Resolver::Off).then(|| RecordedDns {
        resolver: plan.resolver,
        upstream: plan.upstream.clone(),
        witness: spec.dns.witness.clone(),
    })
}

fn record(spec: &NodeSpec, versions: &Versions) -> Result<String, RenderError> {
    json(&Record {
        version: 2,
        roles: spec.roles.clone(),
        name: spec.name.clone(),
        datacenter: spec.datacenter.clone(),
        consul_servers: spec.consul.server,
        nomad_servers: spec.nomad.as_ref().and_then(|nomad| nomad.server),
        consul: versions.consul,
        nomad: versions.nomad,
        mounts: Vec::new(),
        dns: recorded_dns(spec),
        registries: if spec.roles.has(Role::NomadClient) {
            spec.registries.clone()
        } else {
            Vec::new()
        },
    })
}

/// Readable by root and by the service's own group: later versions of the document will hold secrets.
fn private(content: String, group: &str) -> DesiredFile {
    DesiredFile {
        content: content.into_bytes(),
        mode: 0o640,
        user: "root".to_owned(),
        group: group.to_owned(),
    }
}

fn public(content: String) -> DesiredFile {
    DesiredFile {
        content: content.into_bytes(),
        mode: 0o644,
        user: "root".to_owned(),
        group: "root".to_owned(),
    }
}

/// A unit runs with its files and its binary: another version is another thing to run.
fn running(all: &BTreeMap<String, Option<DesiredFile>>, files: &[&str], version: Version) -> DesiredUnit {
    let mut together = version.to_string();
    for file in files.iter().filter_map(|path| all.get(*path)).flatten() {
        together.push_str(&digest(&file.content));
    }
    DesiredUnit::Running(Some(RunsWith {
        digest: digest(together.as_bytes()),
        files: files.iter().map(|path| (*path).to_owned()).collect(),
    }))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn digest(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn json(value: &impl Serialize) -> Result<String, RenderError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| RenderError::Json(error.to_string()))
}
