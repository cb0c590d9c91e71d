//! Owns Nomad's configuration, serialised as HCL: which keys, and why these values.
//! Touches nothing.

use hcl::expr::ObjectKey;
use hcl::structure::{BlockBuilder, BodyBuilder};
use hcl::{Block, Body, Expression};

use super::paths::{DOCKER_CLIENT_CONFIGURATION, NOMAD_CA, NOMAD_CERTIFICATE, NOMAD_KEY};
use super::{Feature, RenderError, Version, duration, held_back};
use crate::node::config::{
    AutopilotSpec, KeyringSpec, NodeSpec, NomadClientSpec, NomadServerSpec, NomadSpec, NomadTlsSpec,
    TelemetrySpec,
};

pub(super) fn render(spec: &NodeSpec, nomad: &NomadSpec, version: Version) -> Result<String, RenderError> {
    let address = spec.address.to_string();
    let advertise = ["http", "rpc", "serf"]
        .into_iter()
        .fold(Block::builder("advertise"), |block, key| {
            block.add_attribute((key, address.as_str()))
        });
    let mut body = Body::builder()
        .add_attribute(("datacenter", spec.datacenter.as_str()))
        .add_attribute(("region", nomad.region.as_str()))
        .add_attribute(("name", spec.name.as_str()))
        .add_attribute(("data_dir", nomad.data_dir.as_str()))
        .add_attribute(("bind_addr", "0.0.0.0"))
        .add_attribute(("log_level", nomad.log_level.name()));
    if let Some(folder) = &nomad.log_dir {
        body = log_files(body, folder);
    }
    body = body
        // A node asks nobody outside for news; in a subnet without a way out it would only wait.
        .add_attribute(("disable_update_check", true))
        // The unit stops Nomad with SIGINT: a restart keeps the node and its jobs. SIGTERM sends them away first.
        .add_attribute(("leave_on_interrupt", false))
        // Only the watcher sends one: to a client whose API is silent, to a server that the cluster can spare.
        .add_attribute(("leave_on_terminate", true))
        .add_block(advertise.build());
    if let Some(server) = &nomad.server {
        body = body.add_block(server_block(server, version)?);
        if let Some(keyring) = &server.keyring {
            Feature::NomadKeyring.require("nomad.kms_key", version)?;
            body = body.add_block(keyring_block(keyring));
        }
        if server.autopilot != AutopilotSpec::default() {
            body = body.add_block(autopilot(&server.autopilot));
        }
    }
    if let Some(client) = &nomad.client {
        body = body
            .add_block(client_block(client, held_back(spec), version)?)
            .add_block(docker_plugin(client.docker_privileged));
    }
    if let Some(tls) = &nomad.tls {
        body = body.add_block(tls_block(tls));
    }
    if nomad.acl {
        body = body.add_block(Block::builder("acl").add_attribute(("enabled", true)).build());
    }
    let identities = nomad
        .server
        .as_ref()
        .is_some_and(|server| server.consul_identities);
    body = body
        .add_block(consul_block(
            identities && Feature::NomadConsulIdentity.known_by(version),
        ))
        .add_block(telemetry(nomad.telemetry));
    write(&body.build())
}

/// The key that encrypts gossip, in a file of its own: Nomad reads it at its very first start only.
pub(super) fn gossip(key: &str) -> Result<String, RenderError> {
    let server = Block::builder("server").add_attribute(("encrypt", key)).build();
    write(&Body::builder().add_block(server).build())
}

/// The token with which Nomad speaks to Consul, in a file of its own, for the eyes of fewer tools.
pub(super) fn tokens(token: &str) -> Result<String, RenderError> {
    let consul = Block::builder("consul").add_attribute(("token", token)).build();
    write(&Body::builder().add_block(consul).build())
}

fn write(body: &Body) -> Result<String, RenderError> {
    hcl::to_string(body).map_err(|error| RenderError::Hcl(error.to_string()))
}

/// A name that ends in `/` is a folder to Nomad, which writes nomad.log in it. Without limits its files would grow
/// until the disk is full; the journal has its own.
fn log_files(body: BodyBuilder, folder: &str) -> BodyBuilder {
    body.add_attribute(("log_file", format!("{folder}/")))
        .add_attribute(("log_rotate_duration", "24h"))
        .add_attribute(("log_rotate_bytes", 100 * 1024 * 1024))
        .add_attribute(("log_rotate_max_files", 7))
}

fn server_block(spec: &NomadServerSpec, version: Version) -> Result<Block, RenderError> {
    let mut server = Block::builder("server")
        .add_attribute(("enabled", true))
        .add_attribute(("bootstrap_expect", spec.expect));
    if !Feature::NomadRaftProtocol3.known_by(version) {
        server = server.add_attribute(("raft_protocol", 3));
    }
    if let Some(enforcement) = spec.client_introduction {
        Feature::NomadClientIntroduction.require("nomad.client_introduction", version)?;
        let introduction = Block::builder("client_introduction")
            .add_attribute(("enforcement", enforcement.name()))
            .build();
        server = server.add_block(introduction);
    }
    Ok(server.build())
}

fn keyring_block(spec: &KeyringSpec) -> Block {
    Block::builder("keyring")
        .add_label("awskms")
        .add_attribute(("active", true))
        .add_attribute(("region", spec.region.as_str()))
        .add_attribute(("kms_key_id", spec.key.as_str()))
        .build()
}

fn autopilot(spec: &AutopilotSpec) -> Block {
    let mut block = Block::builder("autopilot");
    let booleans = [
        ("cleanup_dead_servers", spec.cleanup_dead_servers),
        ("disable_upgrade_migration", spec.disable_upgrade_migration),
    ];
    for (key, value) in booleans {
        block = optional(block, key, value);
    }
    let numbers = [
        ("max_trailing_logs", spec.max_trailing_logs),
        ("min_quorum", spec.min_quorum),
    ];
    for (key, value) in numbers {
        block = optional(block, key, value);
    }
    let times = [
        ("last_contact_threshold", spec.last_contact_threshold),
        ("server_stabilization_time", spec.server_stabilization_time),
    ];
    for (key, value) in times {
        block = optional(block, key, value.map(duration));
    }
    block.build()
}

fn optional(block: BlockBuilder, key: &str, value: Option<impl Into<Expression>>) -> BlockBuilder {
    match value {
        Some(value) => block.add_attribute((key, value.into())),
        None => block,
    }
}

fn client_block(spec: &NomadClientSpec, held_back: bool, version: Version) -> Result<Block, RenderError> {
    let mut client = Block::builder("client").add_attribute(("enabled", true));
    if let Some(pool) = &spec.node_pool {
        Feature::NomadNodePool.require("nomad.node_pool", version)?;
        client = client.add_attribute(("node_pool", pool.as_str()));
    }
    client = client
        .add_attribute(("cni_path", "/opt/cni/bin"))
        .add_attribute(("cni_config_dir", "/opt/cni/config"));
    // This is EC2: without this Nomad asks for the metadata services of other clouds too before it is ready.
    let mut options = spec.options.clone();
    options
        .entry("fingerprint.denylist".to_owned())
        .or_insert_with(|| "env_azure,env_digitalocean,env_gce".to_owned());
    client = client.add_attribute(("options", object(&options)));
    if !spec.meta.is_empty() {
        client = client.add_attribute(("meta", object(&spec.meta)));
    }
    for (name, volume) in &spec.host_volumes {
        let volume = Block::builder("host_volume")
            .add_label(name.as_str())
            .add_attribute(("path", volume.path.as_str()))
            .add_attribute(("read_only", volume.read_only));
        client = client.add_block(volume.build());
    }
    if spec.drain_asked {
        Feature::NomadDrainOnShutdown.require("nomad.drain_deadline", version)?;
    }
    if spec.introduction_token.is_some() {
        Feature::NomadClientIntroduction.require("nomad.introduction_token", version)?;
    }
    if held_back && Feature::NomadDefaultIneligible.known_by(version) {
        client = client.add_attribute(("default_ineligible", true));
    }
    if Feature::NomadDrainOnShutdown.known_by(version) {
        let drain = Block::builder("drain_on_shutdown")
            .add_attribute(("deadline", duration(spec.drain_deadline)))
            .build();
        client = client.add_block(drain);
    }
    Ok(client.build())
}

/// An object and not a block: keys may hold dots.
fn object(entries: &std::collections::BTreeMap<String, String>) -> Expression {
    let entry = |(key, value): (&String, &String)| {
        let key = ObjectKey::Expression(Expression::from(key.as_str()));
        (key, Expression::from(value.as_str()))
    };
    entries.iter().map(entry).collect()
}

fn docker_plugin(privileged: bool) -> Block {
    let auth = Block::builder("auth")
        .add_attribute(("config", DOCKER_CLIENT_CONFIGURATION))
        .build();
    let volumes = Block::builder("volumes").add_attribute(("enabled", true)).build();
    let config = Block::builder("config")
        .add_attribute(("allow_privileged", privileged))
        .add_block(auth)
        .add_block(volumes)
        .build();
    Block::builder("plugin")
        .add_label("docker")
        .add_block(config)
        .build()
}

fn tls_block(spec: &NomadTlsSpec) -> Block {
    Block::builder("tls")
        .add_attribute(("http", spec.http))
        .add_attribute(("rpc", true))
        .add_attribute(("ca_file", NOMAD_CA))
        .add_attribute(("cert_file", NOMAD_CERTIFICATE))
        .add_attribute(("key_file", NOMAD_KEY))
        .add_attribute(("verify_server_hostname", spec.verify_server_hostname))
        .add_attribute(("verify_https_client", spec.verify_https_client))
        .build()
}

/// Servers and clients find each other through the Consul agent beside them.
fn consul_block(identities: bool) -> Block {
    let mut consul = Block::builder("consul").add_attribute(("address", "127.0.0.1:8500"));
    if identities {
        // What `nomad setup consul` prepares Consul for, and Nomad's documentation recommends.
        for name in ["service_identity", "task_identity"] {
            let identity = Block::builder(name)
                .add_attribute(("aud", vec!["consul.io"]))
                .add_attribute(("ttl", "1h"));
            consul = consul.add_block(identity.build());
        }
    }
    consul.build()
}

fn telemetry(spec: TelemetrySpec) -> Block {
    Block::builder("telemetry")
        .add_attribute(("publish_allocation_metrics", spec.allocations))
        .add_attribute(("publish_node_metrics", spec.node))
        .add_attribute(("prometheus_metrics", spec.prometheus))
        .add_attribute(("disable_hostname", true))
        .build()
}
