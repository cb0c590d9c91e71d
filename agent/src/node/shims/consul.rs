//! Owns what each flag of `run-consul` (terraform-aws-consul 0.8 to 0.11) means in NodeConfig.
//! Touches files (reading), where a folder of certificates was named.

use serde_json::{Value as Json, json};

use super::flags::{Flag, Given, Takes, environment, flag, value};
use super::part::{Part, absolute, folder, without_effect};
use crate::host::Files;
use crate::node::config::Role;

/// Where a gossip key from a command line is kept.
pub(super) const GOSSIP_KEY: &str = "/var/lib/cos-agent/secrets/consul-gossip-key";
/// Certificates of a folder that `--ca-path` names, in one file.
pub(super) const AUTHORITIES: &str = "/var/lib/cos-agent/consul-ca.pem";

const AUTOPILOT: [&str; 7] = [
    "--autopilot-cleanup-dead-servers",
    "--autopilot-last-contact-threshold",
    "--autopilot-max-trailing-logs",
    "--autopilot-server-stabilization-time",
    "--autopilot-redundancy-zone-tag",
    "--autopilot-disable-upgrade-migration",
    "--autopilot-upgrade-version-tag",
];

pub(super) const FLAGS: [Flag; 28] = [
    flag("--server", "A Consul server. Either this or --client."),
    flag("--client", "A Consul client. Either this or --server."),
    value("--cluster-tag-key", "KEY", "Join instances that have this tag."),
    value("--cluster-tag-value", "VALUE", "Its value."),
    value(
        "--datacenter",
        "NAME",
        "Consul's datacenter; the AWS region if absent.",
    ),
    value("--config-dir", "FOLDER", "/opt/consul/config and no other."),
    value(
        "--data-dir",
        "FOLDER",
        "Where Consul keeps its state; /opt/consul/data if absent.",
    ),
    value("--bin-dir", "FOLDER", "/opt/consul/bin and no other."),
    value("--user", "NAME", "Who Consul runs as; consul if absent."),
    value("--systemd-stdout", "WHERE", "StandardOutput= of the unit."),
    value("--systemd-stderr", "WHERE", "StandardError= of the unit."),
    flag("--enable-gossip-encryption", "Encrypt gossip; needs the key."),
    value(
        "--gossip-encryption-key",
        "KEY",
        "The key. Every user of this machine can read it on a command line.",
    ),
    flag("--enable-rpc-encryption", "Encrypt RPC; needs the three files."),
    value(
        "--ca-path",
        "PATH",
        "Certificates of the authorities: a folder or a file.",
    ),
    value("--cert-file-path", "FILE", "The node's certificate."),
    value("--key-file-path", "FILE", "Its key."),
    flag(
        "--verify-server-hostname",
        "A server must prove by its certificate that it is one.",
    ),
    value(
        "--environment",
        "KEY=\"VALUE\"",
        "Environment variable of Consul. May be repeated.",
    ),
    flag(
        "--skip-consul-config",
        "Write no configuration; only start what is configured.",
    ),
    value(
        "--recursor",
        "ADDRESS",
        "DNS server for other names than .consul. May be repeated.",
    ),
    value(AUTOPILOT[0], "true|false", "Whether dead servers are removed."),
    value(
        AUTOPILOT[1],
        "TIME",
        "Longest time without contact with the leader.",
    ),
    value(
        AUTOPILOT[2],
        "NUMBER",
        "How many log entries a healthy server may be behind.",
    ),
    value(
        AUTOPILOT[3],
        "TIME",
        "How long a new server must be healthy before it may vote.",
    ),
    value(
        AUTOPILOT[4],
        "KEY",
        "Consul Enterprise: key of node_meta that names the zone.",
    ),
    Flag {
        name: AUTOPILOT[5],
        takes: Takes::NothingOrBoolean,
        help: "Consul Enterprise: no upgrade migration.",
    },
    value(
        AUTOPILOT[6],
        "KEY",
        "Consul Enterprise: key of node_meta that names the version.",
    ),
];

/// What the flags say of the node.
pub(super) fn part(given: &Given, files: &Files) -> Result<Part, String> {
    let server = given.has("--server");
    if server == given.has("--client") {
        return Err("exactly one of --server and --client must be given".to_owned());
    }
    folder(given, "--config-dir", "/opt/consul/config")?;
    folder(given, "--bin-dir", "/opt/consul/bin")?;
    let mut part = Part::default();
    part.roles.extend(server.then_some(Role::ConsulServer));
    if let Some(data) = given
        .value("--data-dir")
        .map(absolute)
        .filter(|data| *data != "/opt/consul/data")
    {
        part.say("consul.data_dir", json!(data));
    }
    for (name, path) in [
        ("--user", "consul.service.user"),
        ("--systemd-stdout", "consul.service.standard_output"),
        ("--systemd-stderr", "consul.service.standard_error"),
    ] {
        if let Some(value) = given.value(name) {
            part.say(path, json!(value));
        }
    }
    for text in given.values("--environment") {
        for (key, value) in environment(text)? {
            part.say_free("consul.service.environment", &key, &value);
        }
    }
    if server {
        // The old script took the size of the group too, and 1 where there is none: this one asks again, and says
        // where it cannot know.
        part.unless_said("consul.bootstrap_expect", json!("auto-scaling-group"));
    }
    if given.has("--skip-consul-config") {
        part.say("consul.manage_configuration", json!(false));
        let mut void: Vec<&'static str> = vec![
            "--cluster-tag-key",
            "--cluster-tag-value",
            "--datacenter",
            "--enable-gossip-encryption",
            "--gossip-encryption-key",
            "--enable-rpc-encryption",
            "--ca-path",
            "--cert-file-path",
            "--key-file-path",
            "--verify-server-hostname",
            "--recursor",
        ];
        void.extend(AUTOPILOT);
        part.notes
            .extend(without_effect(given, &void, "with --skip-consul-config"));
        return Ok(part);
    }
    configuration(given, server, &mut part);
    gossip(given, &mut part)?;
    encryption(given, files, &mut part)?;
    autopilot(given, server, &mut part)?;
    Ok(part)
}

fn configuration(given: &Given, server: bool, part: &mut Part) {
    match (
        given.value("--cluster-tag-key"),
        given.value("--cluster-tag-value"),
    ) {
        (Some(key), Some(value)) => {
            part.say("consul.retry_join", json!({ "tag_key": key, "tag_value": value }));
        }
        (None, None) => part.joins_nobody = true,
        _ => {
            let message = "--cluster-tag-key and --cluster-tag-value have an effect only together";
            part.notes.push(message.to_owned());
            part.joins_nobody = true;
        }
    }
    if let Some(datacenter) = given.value("--datacenter") {
        // Consul lowers it itself.
        part.say("consul.datacenter", json!(datacenter.to_lowercase()));
    }
    let recursors: Vec<&str> = given.values("--recursor").collect();
    if !recursors.is_empty() {
        part.say("consul.recursors", json!(recursors));
    }
    if !server {
        let because = "on a client: only servers have autopilot";
        part.notes.extend(without_effect(given, &AUTOPILOT, because));
    }
}

fn gossip(given: &Given, part: &mut Part) -> Result<(), String> {
    const ENABLE: &str = "--enable-gossip-encryption";
    const KEY: &str = "--gossip-encryption-key";
    match (given.has(ENABLE), given.value(KEY)) {
        (true, Some(key)) => {
            part.say("consul.gossip_key", json!(format!("file:{GOSSIP_KEY}")));
            part.files.push((GOSSIP_KEY, 0o600, key.as_bytes().to_vec()));
            part.notes.push(format!(
                "{KEY}: every user of this machine can read a command line, and user-data; put the key into a \
                 SecureString and name it by consul.gossip_key: ssm:/NAME"
            ));
        }
        // The old script went on without encryption.
        (true, None) => return Err(format!("{ENABLE} needs {KEY}")),
        (false, _) => {
            let because = format!("without {ENABLE}");
            part.notes.extend(without_effect(given, &[KEY], &because));
        }
    }
    Ok(())
}

fn encryption(given: &Given, files: &Files, part: &mut Part) -> Result<(), String> {
    const ENABLE: &str = "--enable-rpc-encryption";
    const FILES: [&str; 3] = ["--ca-path", "--cert-file-path", "--key-file-path"];
    const HOSTNAME: &str = "--verify-server-hostname";
    if !given.has(ENABLE) {
        let because = format!("without {ENABLE}");
        let void = [FILES[0], FILES[1], FILES[2], HOSTNAME];
        part.notes.extend(without_effect(given, &void, &because));
        return Ok(());
    }
    let paths = FILES.map(|name| given.value(name).map(absolute));
    let [Some(authorities), Some(certificate), Some(key)] = paths else {
        // The old script went on without encryption.
        return Err(format!("{ENABLE} needs {}", FILES.join(", ")));
    };
    let authorities = if files.locate(&authorities).is_dir() {
        part.files
            .push((AUTHORITIES, 0o644, together(files, &authorities)?));
        AUTHORITIES.to_owned()
    } else {
        authorities
    };
    part.say(
        "consul.tls",
        json!({
            "ca": format!("file:{authorities}"),
            "certificate": format!("file:{certificate}"),
            "key": format!("file:{key}"),
            "verify_incoming": true,
            "verify_outgoing": true,
            "verify_server_hostname": given.has(HOSTNAME),
            // The old configuration opened no port for HTTPS.
            "https": false,
        }),
    );
    Ok(())
}

/// Every certificate of a folder, as Consul's `ca_path` reads them.
fn together(files: &Files, folder: &str) -> Result<Vec<u8>, String> {
    let entries = files.entries(folder).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for name in entries {
        let path = format!("{folder}/{name}");
        if files.locate(&path).is_dir() {
            continue;
        }
        let content = files
            .read(&path)
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        if text.contains("PRIVATE KEY") {
            return Err(format!(
                "--ca-path: {path} holds a private key, and that folder is for certificates"
            ));
        }
        if text.contains("BEGIN CERTIFICATE") {
            all.extend(content);
            if !all.ends_with(b"\n") {
                all.push(b'\n');
            }
        }
    }
    if all.is_empty() {
        return Err(format!("--ca-path: {folder} holds no certificate"));
    }
    Ok(all)
}

fn autopilot(given: &Given, server: bool, part: &mut Part) -> Result<(), String> {
    if !server {
        return Ok(());
    }
    let keys = [
        "cleanup_dead_servers",
        "last_contact_threshold",
        "max_trailing_logs",
        "server_stabilization_time",
        "redundancy_zone_tag",
        "disable_upgrade_migration",
        "upgrade_version_tag",
    ];
    for (name, key) in AUTOPILOT.into_iter().zip(keys) {
        let Some(text) = given.value(name) else {
            continue;
        };
        let value: Json = match key {
            "disable_upgrade_migration" => json!(true),
            "cleanup_dead_servers" | "max_trailing_logs" => {
                text.parse().map_err(|_| format!("{name} does not take {text}"))?
            }
            _ => json!(text),
        };
        part.say(&format!("consul.autopilot.{key}"), value);
    }
    if given.value(AUTOPILOT[5]) == Some("false") {
        part.notes.push(format!(
            "{} false is as good as true, as it always was",
            AUTOPILOT[5]
        ));
    }
    Ok(())
}
