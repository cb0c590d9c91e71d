//! Owns Consul's configuration, serialised as JSON: which keys, and why these values.
//! Touches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use super::paths::{CONSUL_CA, CONSUL_CERTIFICATE, CONSUL_KEY};
use super::{Feature, RenderError, Version, duration, json};
use crate::node::config::{AclSpec, AutopilotSpec, ConsulTlsSpec, NodeSpec};
use crate::node::secrets::Fetched;

/// Keys as Consul names them, in the order in which they are written.
#[derive(Serialize)]
struct Consul<'a> {
    datacenter: &'a str,
    node_name: &'a str,
    data_dir: &'a str,
    log_level: &'static str,
    server: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap_expect: Option<u32>,
    bind_addr: Ipv4Addr,
    advertise_addr: Ipv4Addr,
    client_addr: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Addresses>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Ports>,
    retry_join: &'a [String],
    retry_interval: &'static str,
    leave_on_terminate: bool,
    disable_update_check: bool,
    node_meta: BTreeMap<&'static str, &'a str>,
    recursors: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    performance: Option<Performance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autopilot: Option<Autopilot<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ui: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ui_config: Option<Ui>,
    #[serde(flatten)]
    flat_tls: Option<FlatTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_encrypt: Option<AutoEncrypt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acl: Option<Acl>,
    telemetry: Telemetry,
}

#[derive(Serialize)]
struct Addresses {
    http: &'static str,
}

#[derive(Serialize)]
struct Ports {
    https: u16,
}

#[derive(Serialize)]
struct Performance {
    raft_multiplier: u32,
}

#[derive(Serialize)]
struct Autopilot<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cleanup_dead_servers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_contact_threshold: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_trailing_logs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_stabilization_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_quorum: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_upgrade_migration: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redundancy_zone_tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_version_tag: Option<&'a str>,
}

#[derive(Serialize)]
struct Ui {
    enabled: bool,
}

/// Files and checks of what a certificate is for; they stand at the top, or in `tls { defaults }`.
#[derive(Serialize)]
struct TlsDefaults {
    ca_file: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_file: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<&'static str>,
    verify_incoming: bool,
    verify_outgoing: bool,
}

#[derive(Serialize)]
struct FlatTls {
    #[serde(flatten)]
    defaults: TlsDefaults,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_incoming_rpc: Option<bool>,
    verify_server_hostname: bool,
}

#[derive(Serialize)]
struct Tls {
    defaults: TlsDefaults,
    internal_rpc: InternalRpc,
    #[serde(skip_serializing_if = "Option::is_none")]
    https: Option<Incoming>,
    grpc: Incoming,
}

#[derive(Serialize)]
struct InternalRpc {
    verify_server_hostname: bool,
}

#[derive(Serialize)]
struct Incoming {
    verify_incoming: bool,
}

#[derive(Serialize)]
struct AutoEncrypt {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<bool>,
}

#[derive(Serialize)]
struct Acl {
    enabled: bool,
    default_policy: &'static str,
}

#[derive(Serialize)]
struct Telemetry {
    prometheus_retention_time: &'static str,
    disable_hostname: bool,
    #[serde(rename = "disable_compat_1.9", skip_serializing_if = "Option::is_none")]
    disable_compat: Option<bool>,
}

pub(super) fn render(spec: &NodeSpec, version: Version) -> Result<String, RenderError> {
    let consul = &spec.consul;
    let server = consul.server.is_some();
    let roles = spec.roles.to_string();
    let ui_block = Feature::ConsulUiConfig.known_by(version);
    let tls_block = Feature::ConsulTlsBlock.known_by(version);
    let https = consul.tls.as_ref().is_some_and(|tls| tls.https);
    let auto_encrypt = consul.tls.as_ref().is_some_and(|tls| tls.auto_encrypt);
    json(&Consul {
        datacenter: &consul.datacenter,
        node_name: &spec.name,
        data_dir: &consul.data_dir,
        log_level: consul.log_level.name(),
        server,
        bootstrap_expect: consul.server,
        bind_addr: spec.address,
        advertise_addr: spec.address,
        // Containers and load balancers reach the agent by the node's address; security groups limit who does.
        client_addr: "0.0.0.0",
        // Who wants encryption does not want the same API in the clear beside it. On the node itself Nomad and the
        // health checks go on using it.
        addresses: https.then_some(Addresses { http: "127.0.0.1" }),
        ports: https.then_some(Ports { https: 8501 }),
        retry_join: &consul.retry_join,
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
        recursors: &consul.recursors,
        // Consul's default of 5 suits the smallest machines; 1 is what it asks for in production.
        performance: server.then_some(Performance { raft_multiplier: 1 }),
        autopilot: (server && consul.autopilot != AutopilotSpec::default())
            .then(|| autopilot(&consul.autopilot)),
        ui: (consul.ui && !ui_block).then_some(true),
        ui_config: (consul.ui && ui_block).then_some(Ui { enabled: true }),
        flat_tls: consul.tls.as_ref().filter(|_| !tls_block).map(flat_tls),
        tls: consul.tls.as_ref().filter(|_| tls_block).map(|tls| Tls {
            defaults: tls_defaults(tls),
            internal_rpc: InternalRpc {
                verify_server_hostname: tls.verify_server_hostname,
            },
            https: (tls.verify_https_client != tls.verify_incoming).then_some(Incoming {
                verify_incoming: tls.verify_https_client,
            }),
            // Envoy and other users of this port show tokens, not certificates.
            grpc: Incoming {
                verify_incoming: false,
            },
        }),
        auto_encrypt: auto_encrypt.then_some(AutoEncrypt {
            allow_tls: server.then_some(true),
            tls: (!server).then_some(true),
        }),
        acl: consul.acl.as_ref().map(|acl| Acl {
            enabled: true,
            default_policy: acl.default_policy.name(),
        }),
        telemetry: Telemetry {
            prometheus_retention_time: "24h",
            disable_hostname: true,
            disable_compat: Feature::ConsulDisableCompat19.known_by(version).then_some(true),
        },
    })
}

fn autopilot(spec: &AutopilotSpec) -> Autopilot<'_> {
    Autopilot {
        cleanup_dead_servers: spec.cleanup_dead_servers,
        last_contact_threshold: spec.last_contact_threshold.map(duration),
        max_trailing_logs: spec.max_trailing_logs,
        server_stabilization_time: spec.server_stabilization_time.map(duration),
        min_quorum: spec.min_quorum,
        disable_upgrade_migration: spec.disable_upgrade_migration,
        redundancy_zone_tag: spec.redundancy_zone_tag.as_deref(),
        upgrade_version_tag: spec.upgrade_version_tag.as_deref(),
    }
}

/// Before there were blocks, `verify_incoming` spoke of every port, and only RPC had a word of its own.
fn flat_tls(spec: &ConsulTlsSpec) -> FlatTls {
    let rpc_only = spec.verify_incoming && !spec.verify_https_client;
    let mut defaults = tls_defaults(spec);
    defaults.verify_incoming &= !rpc_only;
    FlatTls {
        defaults,
        verify_incoming_rpc: rpc_only.then_some(true),
        verify_server_hostname: spec.verify_server_hostname,
    }
}

fn tls_defaults(spec: &ConsulTlsSpec) -> TlsDefaults {
    TlsDefaults {
        ca_file: CONSUL_CA,
        cert_file: spec.pair.is_some().then_some(CONSUL_CERTIFICATE),
        key_file: spec.pair.is_some().then_some(CONSUL_KEY),
        verify_incoming: spec.verify_incoming,
        verify_outgoing: spec.verify_outgoing,
    }
}

#[derive(Serialize)]
struct Gossip<'a> {
    encrypt: &'a str,
}

/// The key that encrypts gossip, in a file of its own: Consul reads it at its very first start only.
pub(super) fn gossip(key: &str) -> Result<String, RenderError> {
    json(&Gossip { encrypt: key })
}

#[derive(Serialize)]
struct TokenFile<'a> {
    acl: TokenAcl<'a>,
}

#[derive(Serialize)]
struct TokenAcl<'a> {
    tokens: BTreeMap<&'static str, &'a str>,
}

/// Tokens, in a file of their own: Consul takes new ones without a restart. None where there are no tokens.
pub(super) fn tokens(
    acl: &AclSpec,
    secrets: &Fetched,
    version: Version,
) -> Result<Option<String>, RenderError> {
    let management = if Feature::ConsulInitialManagement.known_by(version) {
        "initial_management"
    } else {
        "master"
    };
    let sources = [
        ("agent", &acl.agent),
        ("default", &acl.default),
        (management, &acl.initial_management),
    ];
    let mut tokens = BTreeMap::new();
    for (name, source) in sources {
        if let Some(source) = source {
            tokens.insert(name, super::secret(secrets, source)?);
        }
    }
    if tokens.is_empty() {
        return Ok(None);
    }
    json(&TokenFile {
        acl: TokenAcl { tokens },
    })
    .map(Some)
}
