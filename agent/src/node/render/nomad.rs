//! Owns Nomad's configuration, serialised as HCL, and what its unit must know of the installed version.
//! Touches nothing.

use hcl::expr::ObjectKey;
use hcl::structure::BodyBuilder;
use hcl::{Block, Body, Expression};

use super::{DOCKER_CLIENT_CONFIGURATION, Feature, Product, RenderError, Version};
use crate::node::config::{NodeSpec, NomadClientSpec, NomadSpec};

/// How long a client that gets SIGTERM waits for its jobs to move away.
const DRAIN_DEADLINE: &str = "5m";

pub(super) fn render(spec: &NodeSpec, nomad: &NomadSpec, version: Version) -> Result<String, RenderError> {
    let address = spec.address.to_string();
    let advertise = ["http", "rpc", "serf"]
        .into_iter()
        .fold(Block::builder("advertise"), |block, key| {
            block.add_attribute((key, address.as_str()))
        });
    let body = Body::builder()
        .add_attribute(("datacenter", spec.datacenter.as_str()))
        .add_attribute(("region", nomad.region.as_str()))
        .add_attribute(("name", spec.name.as_str()))
        .add_attribute(("data_dir", "/opt/nomad/data"))
        .add_attribute(("bind_addr", "0.0.0.0"))
        // A node asks nobody outside for news; in a subnet without a way out it would only wait.
        .add_attribute(("disable_update_check", true))
        // The unit stops Nomad with SIGINT: a restart keeps the node and its jobs. SIGTERM sends them away first.
        .add_attribute(("leave_on_interrupt", false))
        .add_attribute(("leave_on_terminate", nomad.server.is_none()))
        .add_block(advertise.build());
    let body = match nomad.server {
        Some(bootstrap_expect) => body.add_block(server(bootstrap_expect)),
        None => body,
    };
    let body = match &nomad.client {
        Some(client) => body
            .add_block(client_block(client, version)?)
            .add_block(docker_plugin(client.docker_privileged)),
        None => body,
    };
    let body = finish(body);
    hcl::to_string(&body).map_err(|error| RenderError::Hcl(error.to_string()))
}

fn server(bootstrap_expect: u32) -> Block {
    Block::builder("server")
        .add_attribute(("enabled", true))
        .add_attribute(("bootstrap_expect", bootstrap_expect))
        .build()
}

fn client_block(spec: &NomadClientSpec, version: Version) -> Result<Block, RenderError> {
    let mut client = Block::builder("client").add_attribute(("enabled", true));
    if let Some(pool) = &spec.node_pool {
        if !Feature::NomadNodePool.known_by(version) {
            return Err(RenderError::TooOld {
                setting: "nomad.node_pool",
                product: Product::Nomad,
                needed: Feature::NomadNodePool.since(),
                installed: version,
            });
        }
        client = client.add_attribute(("node_pool", pool.as_str()));
    }
    client = client
        .add_attribute(("cni_path", "/opt/cni/bin"))
        .add_attribute(("cni_config_dir", "/opt/cni/config"));
    // This is EC2: without this Nomad asks for the metadata services of other clouds too before it is ready.
    let others = Expression::from("env_azure,env_digitalocean,env_gce");
    let options: Expression = [(ObjectKey::Expression("fingerprint.denylist".into()), others)]
        .into_iter()
        .collect();
    client = client.add_attribute(("options", options));
    if !spec.meta.is_empty() {
        // An object and not a block: keys may hold dots.
        let key = |key: &str| ObjectKey::Expression(Expression::from(key));
        let object: Expression = spec
            .meta
            .iter()
            .map(|(name, value)| (key(name), value.as_str()))
            .collect();
        client = client.add_attribute(("meta", object));
    }
    if Feature::NomadDrainOnShutdown.known_by(version) {
        let drain = Block::builder("drain_on_shutdown")
            .add_attribute(("deadline", DRAIN_DEADLINE))
            .build();
        client = client.add_block(drain);
    }
    Ok(client.build())
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

/// What servers and clients share at the end: both find each other through the Consul agent beside them.
fn finish(body: BodyBuilder) -> Body {
    let consul = Block::builder("consul")
        .add_attribute(("address", "127.0.0.1:8500"))
        .build();
    let telemetry = [
        "publish_allocation_metrics",
        "publish_node_metrics",
        "prometheus_metrics",
        "disable_hostname",
    ]
    .into_iter()
    .fold(Block::builder("telemetry"), |block, key| {
        block.add_attribute((key, true))
    });
    body.add_block(consul).add_block(telemetry.build()).build()
}

/// The part of Nomad's unit that depends on the version.
pub(super) fn drop_in(version: Version) -> String {
    let (kind, reason) = if Feature::NomadNotify.known_by(version) {
        ("notify", "This Nomad tells when it is ready.")
    } else {
        (
            "simple",
            "Nomad before 1.8 never tells that it is ready; systemd would wait for it in vain.",
        )
    };
    format!(
        "# Written by cos-agent; changes are lost.\n\
         [Service]\n\
         # {reason}\n\
         Type={kind}\n\
         # A restart must not send the jobs away: see leave_on_interrupt in the configuration.\n\
         KillSignal=SIGINT\n"
    )
}
