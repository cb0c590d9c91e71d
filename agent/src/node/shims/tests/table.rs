//! The table: a command line of either command, and what comes of it.

use serde_json::{Value as Json, json};

use crate::node::shims::Shim;

/// What comes of a flag.
pub(super) enum Comes {
    Says(&'static str, Json),
    Otherwise(&'static str, Json),
    Nothing,
    Note(&'static str),
    Refused(&'static str),
}

pub(super) fn table() -> Vec<(Shim, &'static str, Comes)> {
    use Comes::{Note, Nothing, Otherwise, Refused, Says};
    use Shim::{Consul, Nomad};
    let tls = |hostname: bool, ca: &str| {
        json!({
            "ca": format!("file:{ca}"), "certificate": "file:/tls/cert.pem", "key": "file:/tls/key.pem",
            "verify_incoming": true, "verify_outgoing": true, "verify_server_hostname": hostname, "https": false,
        })
    };
    vec![
        (
            Consul,
            "",
            Refused("exactly one of --server and --client must be given"),
        ),
        (
            Consul,
            "--server --client",
            Refused("exactly one of --server and --client must be given"),
        ),
        (
            Consul,
            "--server",
            Otherwise("consul.bootstrap_expect", json!("auto-scaling-group")),
        ),
        (Consul, "--client", Nothing),
        (
            Consul,
            "--client --cluster-tag-key k --cluster-tag-value v",
            Says("consul.retry_join", json!({"tag_key": "k", "tag_value": "v"})),
        ),
        (
            Consul,
            "--client --cluster-tag-key k",
            Note("have an effect only together"),
        ),
        (
            Consul,
            "--client --cluster-tag-value v",
            Note("have an effect only together"),
        ),
        (
            Consul,
            "--client --datacenter EU-1",
            Says("consul.datacenter", json!("eu-1")),
        ),
        (Consul, "--client --config-dir /opt/consul/config/", Nothing),
        (
            Consul,
            "--client --config-dir /etc/consul",
            Refused("can only be /opt/consul/config"),
        ),
        (Consul, "--client --bin-dir /opt/consul/bin", Nothing),
        (
            Consul,
            "--client --bin-dir ../bin",
            Refused("can only be /opt/consul/bin"),
        ),
        (Consul, "--client --data-dir /opt/consul/data", Nothing),
        (
            Consul,
            "--client --data-dir //data/consul/",
            Says("consul.data_dir", json!("/data/consul")),
        ),
        (
            Consul,
            "--client --user me",
            Says("consul.service.user", json!("me")),
        ),
        (
            Consul,
            "--client --systemd-stdout append:/var/log/consul.log",
            Says(
                "consul.service.standard_output",
                json!("append:/var/log/consul.log"),
            ),
        ),
        (
            Consul,
            "--client --systemd-stderr null",
            Says("consul.service.standard_error", json!("null")),
        ),
        (
            Consul,
            "--client --enable-gossip-encryption --gossip-encryption-key KEY",
            Says(
                "consul.gossip_key",
                json!("file:/var/lib/cos-agent/secrets/consul-gossip-key"),
            ),
        ),
        (
            Consul,
            "--client --enable-gossip-encryption --gossip-encryption-key KEY",
            Note("every user of this machine can read a command line"),
        ),
        (
            Consul,
            "--client --enable-gossip-encryption",
            Refused("needs --gossip-encryption-key"),
        ),
        (
            Consul,
            "--client --gossip-encryption-key KEY",
            Note("--gossip-encryption-key has no effect without --enable-gossip-encryption"),
        ),
        (
            Consul,
            "--client --enable-rpc-encryption --ca-path /tls/ca --cert-file-path /tls/cert.pem --key-file-path \
             /tls/key.pem",
            Says("consul.tls", tls(false, "/var/lib/cos-agent/consul-ca.pem")),
        ),
        (
            Consul,
            "--client --enable-rpc-encryption --ca-path /tls/ca.pem --cert-file-path /tls/cert.pem --key-file-path \
             /tls/key.pem --verify-server-hostname",
            Says("consul.tls", tls(true, "/tls/ca.pem")),
        ),
        (
            Consul,
            "--client --enable-rpc-encryption --ca-path /tls/ca --cert-file-path /tls/cert.pem",
            Refused("needs --ca-path, --cert-file-path, --key-file-path"),
        ),
        (
            Consul,
            "--client --enable-rpc-encryption --ca-path /tls/keys --cert-file-path /c --key-file-path /k",
            Refused("holds a private key"),
        ),
        (
            Consul,
            "--client --enable-rpc-encryption --ca-path /tls --cert-file-path /c --key-file-path /k",
            Nothing,
        ),
        (
            Consul,
            "--client --ca-path /tls/ca",
            Note("--ca-path has no effect without --enable-rpc-encryption"),
        ),
        (
            Consul,
            "--client --cert-file-path /c",
            Note("--cert-file-path has no effect without"),
        ),
        (
            Consul,
            "--client --key-file-path /k",
            Note("--key-file-path has no effect without"),
        ),
        (
            Consul,
            "--client --verify-server-hostname",
            Note("--verify-server-hostname has no effect without"),
        ),
        (
            Consul,
            "--client --environment K=\"v\" --environment L=w",
            Says("consul.service.environment", json!({"K": "v", "L": "w"})),
        ),
        (
            Consul,
            "--client --environment K",
            Refused("--environment needs KEY=\"value\""),
        ),
        (
            Consul,
            "--client --skip-consul-config",
            Says("consul.manage_configuration", json!(false)),
        ),
        (
            Consul,
            "--client --skip-consul-config --datacenter x",
            Note("--datacenter has no effect with --skip-consul-config"),
        ),
        (
            Consul,
            "--client --recursor 192.0.2.2 --recursor 192.0.2.3",
            Says("consul.recursors", json!(["192.0.2.2", "192.0.2.3"])),
        ),
        (
            Consul,
            "--server --autopilot-cleanup-dead-servers false",
            Says("consul.autopilot.cleanup_dead_servers", json!(false)),
        ),
        (
            Consul,
            "--server --autopilot-cleanup-dead-servers no",
            Refused("does not take no"),
        ),
        (
            Consul,
            "--client --autopilot-cleanup-dead-servers true",
            Note("has no effect on a client: only servers have autopilot"),
        ),
        (
            Consul,
            "--server --autopilot-last-contact-threshold 500ms",
            Says("consul.autopilot.last_contact_threshold", json!("500ms")),
        ),
        (
            Consul,
            "--server --autopilot-max-trailing-logs 500",
            Says("consul.autopilot.max_trailing_logs", json!(500)),
        ),
        (
            Consul,
            "--server --autopilot-server-stabilization-time 30s",
            Says("consul.autopilot.server_stabilization_time", json!("30s")),
        ),
        (
            Consul,
            "--server --autopilot-redundancy-zone-tag az",
            Says("consul.autopilot.redundancy_zone_tag", json!("az")),
        ),
        // The old script took `--datacenter` away with it.
        (
            Consul,
            "--server --autopilot-disable-upgrade-migration --datacenter x",
            Says("consul.autopilot.disable_upgrade_migration", json!(true)),
        ),
        (
            Consul,
            "--server --autopilot-disable-upgrade-migration --datacenter x",
            Says("consul.datacenter", json!("x")),
        ),
        (
            Consul,
            "--server --autopilot-disable-upgrade-migration false",
            Note("false is as good as true"),
        ),
        (
            Consul,
            "--server --autopilot-upgrade-version-tag v",
            Says("consul.autopilot.upgrade_version_tag", json!("v")),
        ),
        (
            Nomad,
            "",
            Refused("at least one of --server and --client must be given"),
        ),
        (Nomad, "--server", Refused("--server needs --num-servers")),
        (
            Nomad,
            "--server --num-servers three",
            Refused("--num-servers needs a number"),
        ),
        (
            Nomad,
            "--server --num-servers 3",
            Says("nomad.bootstrap_expect", json!(3)),
        ),
        (
            Nomad,
            "--client --num-servers 3",
            Note("--num-servers has no effect without --server"),
        ),
        (Nomad, "--client", Otherwise("docker.privileged", json!(true))),
        (
            Nomad,
            "--client --datacenter public-services",
            Says("datacenter", json!("public-services")),
        ),
        (Nomad, "--client --config-dir /opt/nomad/config", Nothing),
        (
            Nomad,
            "--client --config-dir /x",
            Refused("can only be /opt/nomad/config"),
        ),
        (Nomad, "--client --bin-dir /opt/nomad/bin/.", Nothing),
        (
            Nomad,
            "--client --bin-dir /x",
            Refused("can only be /opt/nomad/bin"),
        ),
        (
            Nomad,
            "--client --data-dir /data",
            Says("nomad.data_dir", json!("/data")),
        ),
        (
            Nomad,
            "--client --log-dir /opt/nomad/log",
            Says("nomad.log_dir", json!("/opt/nomad/log")),
        ),
        (
            Nomad,
            "--client --systemd-stdout journal",
            Says("nomad.service.standard_output", json!("journal")),
        ),
        (
            Nomad,
            "--client --systemd-stderr journal",
            Says("nomad.service.standard_error", json!("journal")),
        ),
        (
            Nomad,
            "--server --num-servers 1 --user me",
            Says("nomad.service.user", json!("me")),
        ),
        (
            Nomad,
            "--client --user me",
            Note("--user has no effect on a client, which runs as root"),
        ),
        (
            Nomad,
            "--server --num-servers 1 --use-sudo",
            Says("nomad.service.user", json!("root")),
        ),
        (
            Nomad,
            "--server --num-servers 1 --use-sudo --user me",
            Note("--user has no effect with --use-sudo"),
        ),
        (
            Nomad,
            "--client --environment A=b",
            Says("nomad.service.environment", json!({"A": "b"})),
        ),
        (
            Nomad,
            "--client --skip-nomad-config",
            Says("nomad.manage_configuration", json!(false)),
        ),
        (
            Nomad,
            "--client --skip-nomad-config --log-dir /x --datacenter x",
            Note("--log-dir has no effect with --skip-nomad-config"),
        ),
        (
            Nomad,
            "--client --cluster-tag-key k",
            Note("--cluster-tag-key has no effect and never had one"),
        ),
        (
            Nomad,
            "--client --cluster-tag-value v",
            Note("--cluster-tag-value has no effect and never had one"),
        ),
    ]
}
