//! Owns what each flag of `run-nomad` (terraform-aws-nomad 0.10, and what COS added to it) means in NodeConfig.
//! Touches nothing.

use serde_json::{Value as Json, json};

use super::flags::{Flag, Given, environment, flag, value};
use super::part::{Part, absolute, folder, without_effect};
use crate::node::config::Role;

pub(super) const FLAGS: [Flag; 16] = [
    flag("--server", "A Nomad server. At least one of this and --client."),
    flag("--client", "A Nomad client. At least one of this and --server."),
    value(
        "--num-servers",
        "NUMBER",
        "How many servers form the cluster; --server needs it.",
    ),
    value(
        "--datacenter",
        "NAME",
        "Nomad's datacenter; the availability zone if absent.",
    ),
    value("--config-dir", "FOLDER", "/opt/nomad/config and no other."),
    value(
        "--data-dir",
        "FOLDER",
        "Where Nomad keeps its state; /opt/nomad/data if absent.",
    ),
    value("--bin-dir", "FOLDER", "/opt/nomad/bin and no other."),
    value(
        "--log-dir",
        "FOLDER",
        "Folder of log files; only the journal if absent.",
    ),
    value("--systemd-stdout", "WHERE", "StandardOutput= of the unit."),
    value("--systemd-stderr", "WHERE", "StandardError= of the unit."),
    value("--user", "NAME", "Who a server runs as; nomad if absent."),
    flag("--use-sudo", "Run as root, as a client always does."),
    value(
        "--environment",
        "KEY=\"VALUE\"",
        "Environment variable of Nomad. May be repeated.",
    ),
    flag(
        "--skip-nomad-config",
        "Write no configuration; only start what is configured.",
    ),
    value("--cluster-tag-key", "KEY", "Never had an effect."),
    value("--cluster-tag-value", "VALUE", "Never had an effect."),
];

/// What the flags say of the node.
pub(super) fn part(given: &Given) -> Result<Part, String> {
    let (server, client) = (given.has("--server"), given.has("--client"));
    if !server && !client {
        return Err("at least one of --server and --client must be given".to_owned());
    }
    folder(given, "--config-dir", "/opt/nomad/config")?;
    folder(given, "--bin-dir", "/opt/nomad/bin")?;
    let mut part = Part::default();
    part.roles.extend(server.then_some(Role::NomadServer));
    part.roles.extend(client.then_some(Role::NomadClient));
    if server {
        let number = given
            .value("--num-servers")
            .ok_or("--server needs --num-servers")?;
        let number: Json = number
            .parse()
            .map_err(|_| format!("--num-servers needs a number, got {number}"))?;
        part.say("nomad.bootstrap_expect", number);
    } else {
        part.notes
            .extend(without_effect(given, &["--num-servers"], "without --server"));
    }
    if let Some(data) = given
        .value("--data-dir")
        .map(absolute)
        .filter(|data| *data != "/opt/nomad/data")
    {
        part.say("nomad.data_dir", json!(data));
    }
    for (name, path) in [
        ("--systemd-stdout", "nomad.service.standard_output"),
        ("--systemd-stderr", "nomad.service.standard_error"),
    ] {
        if let Some(value) = given.value(name) {
            part.say(path, json!(value));
        }
    }
    for text in given.values("--environment") {
        for (key, value) in environment(text)? {
            part.say_free("nomad.service.environment", &key, &value);
        }
    }
    user(given, client, &mut part);
    let tags = ["--cluster-tag-key", "--cluster-tag-value"];
    let because = "and never had one: Nomad finds its servers through Consul";
    part.notes.extend(without_effect(given, &tags, because));
    if given.has("--skip-nomad-config") {
        part.say("nomad.manage_configuration", json!(false));
        let void = ["--datacenter", "--log-dir"];
        part.notes
            .extend(without_effect(given, &void, "with --skip-nomad-config"));
        return Ok(part);
    }
    if let Some(datacenter) = given.value("--datacenter") {
        part.say("datacenter", json!(datacenter));
    }
    if let Some(folder) = given.value("--log-dir").map(absolute) {
        part.say("nomad.log_dir", json!(folder));
    }
    if client {
        // As COS's run-nomad had it; a source that says otherwise wins.
        part.unless_said("docker.privileged", json!(true));
    }
    Ok(part)
}

/// A client was run by sudo whatever `--user` said, and so was a server with `--use-sudo`.
fn user(given: &Given, client: bool, part: &mut Part) {
    if client {
        part.notes.extend(without_effect(
            given,
            &["--user"],
            "on a client, which runs as root",
        ));
    } else if given.has("--use-sudo") {
        part.notes
            .extend(without_effect(given, &["--user"], "with --use-sudo"));
        part.say("nomad.service.user", json!("root"));
    } else if let Some(user) = given.value("--user") {
        part.say("nomad.service.user", json!(user));
    }
}
