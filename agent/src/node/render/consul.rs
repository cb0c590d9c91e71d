//! Owns Consul's configuration, serialised as JSON: which keys, and why these values.
//! Touches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use super::{Feature, RenderError, Version, json};
use crate::node::config::NodeSpec;

/// Keys as Consul names them, in the order in which they are written.
#[derive(Serialize)]
struct Consul<'a> {
    datacenter: &'a str,
    node_name: &'a str,
    data_dir: &'static str,
    server: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap_expect: Option<u32>,
    bind_addr: Ipv4Addr,
    advertise_addr: Ipv4Addr,
    client_addr: &'static str,
    retry_join: &'a [String],
    retry_interval: &'static str,
    leave_on_terminate: bool,
    disable_update_check: bool,
    node_meta: BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "<[IpAddr]>::is_empty")]
    recursors: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    performance: Option<Performance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ui: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ui_config: Option<Ui>,
    telemetry: Telemetry,
}

#[derive(Serialize)]
struct Performance {
    raft_multiplier: u32,
}

#[derive(Serialize)]
struct Ui {
    enabled: bool,
}

#[derive(Serialize)]
struct Telemetry {
    prometheus_retention_time: &'static str,
    disable_hostname: bool,
    #[serde(rename = "disable_compat_1.9", skip_serializing_if = "Option::is_none")]
    disable_compat: Option<bool>,
}

pub(super) fn render(spec: &NodeSpec, version: Version) -> Result<String, RenderError> {
    let server = spec.consul.server.is_some();
    let roles = spec.roles.to_string();
    let block = Feature::ConsulUiConfig.known_by(version);
    json(&Consul {
        datacenter: &spec.consul.datacenter,
        node_name: &spec.name,
        data_dir: "/opt/consul/data",
        server,
        bootstrap_expect: spec.consul.server,
        bind_addr: spec.address,
        advertise_addr: spec.address,
        // Containers and load balancers reach the agent by the node's address; security groups limit who does.
        client_addr: "0.0.0.0",
        retry_join: &spec.consul.retry_join,
        // Consul's own 30 s make a node that boots a moment before its servers half a minute late.
        retry_interval: "3s",
        // A server that leaves takes its vote with it: servers come back, or autopilot removes them.
        leave_on_terminate: !server,
        // A node asks nobody outside for news; in a subnet without a way out it would only wait.
        disable_update_check: true,
        node_meta: BTreeMap::from([
            ("zone", spec.zone.as_str()),
            ("role", roles.as_str()),
            ("datacenter", spec.datacenter.as_str()),
        ]),
        recursors: &spec.consul.recursors,
        // Consul's default of 5 suits the smallest machines; 1 is what it asks for in production.
        performance: server.then_some(Performance { raft_multiplier: 1 }),
        ui: (server && !block).then_some(true),
        ui_config: (server && block).then_some(Ui { enabled: true }),
        telemetry: Telemetry {
            prometheus_retention_time: "24h",
            disable_hostname: true,
            disable_compat: Feature::ConsulDisableCompat19.known_by(version).then_some(true),
        },
    })
}
