//! Owns what several keys of a `NodeConfig` must not say together.
//! Touches nothing.

use std::collections::BTreeMap;

use super::node_config::NodeConfig;
use super::record::Reader;
use super::roles::Role;
use super::tree::{Node, Said, Value};

/// Finds contradictions; every single value was found good before.
pub(super) fn check(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    included(root, reader);
    disks(root, config, reader);
    mounts(root, reader);
    tls(root, config, reader);
    for path in UNFINISHED {
        if let Some(node) = root.at(path) {
            let message = "has no effect in this version of cos-agent yet, so it is refused";
            reader.fault(path, &node.said, message);
        }
    }
}

/// Keys that are defined and do nothing yet. A setting must never be silently without effect.
pub(super) const UNFINISHED: &[&str] = &[
    "consul.data_dir",
    "consul.ui",
    "consul.gossip_key",
    "consul.tls",
    "consul.acl",
    "consul.autopilot",
    "consul.log_level",
    "consul.manage_configuration",
    "consul.service",
    "nomad.data_dir",
    "nomad.log_dir",
    "nomad.host_volumes",
    "nomad.client_options",
    "nomad.drain_deadline",
    "nomad.gossip_key",
    "nomad.tls",
    "nomad.acl",
    "nomad.consul_token",
    "nomad.client_introduction",
    "nomad.introduction_token",
    "nomad.autopilot",
    "nomad.telemetry",
    "nomad.log_level",
    "nomad.manage_configuration",
    "nomad.service",
    "ecr.users",
    "disks",
    "instance_store",
    "efs",
    "dns",
    "readiness",
    "watch",
];

/// The entries of the list at `path`, each with its own path.
fn list<'t>(root: &'t Node, path: &str) -> Vec<(String, &'t Node)> {
    match root.at(path).map(|node| &node.value) {
        Some(Value::List(list)) => {
            let entry = |(index, node)| (format!("{path}[{index}]"), node);
            list.iter().enumerate().map(entry).collect()
        }
        _ => Vec::new(),
    }
}

/// Systems Manager answers ten names at once, and a fleet that boots has no second request for each node.
fn included(root: &Node, reader: &mut Reader) {
    const MOST: usize = 10;
    if let Some((path, node)) = list(root, "include").get(MOST) {
        let message = format!("is one too many: at most {MOST} parameters are included");
        reader.fault(path, &node.said, message);
    }
}

fn disks(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    for ((path, node), disk) in list(root, "disks").into_iter().zip(&config.disks) {
        match (&disk.volume, &disk.device) {
            (None, None) => reader.fault(
                &path,
                &node.said,
                "must name either volume or device, and names neither",
            ),
            (Some(_), Some(_)) => {
                reader.fault(
                    &path,
                    &node.said,
                    "must name either volume or device, and names both",
                );
            }
            _ => {}
        }
    }
}

/// Two file systems cannot have one place.
fn mounts(root: &Node, reader: &mut Reader) {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let single = root
        .at("instance_store")
        .map(|node| ("instance_store".to_owned(), node));
    let all = list(root, "disks")
        .into_iter()
        .chain(list(root, "efs"))
        .chain(single);
    for (path, node) in all {
        let Some(mount) = node.get("mount") else {
            continue;
        };
        let Value::Text(place) = &mount.value else {
            continue;
        };
        let path = format!("{path}.mount");
        if let Some(first) = places.get(place) {
            reader.fault(
                &path,
                &mount.said,
                format!("is {place}, which {first} is already"),
            );
        } else {
            places.insert(place.clone(), path);
        }
    }
}

fn tls(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    let Some((tls, node)) = config.consul.tls.as_ref().zip(root.at("consul.tls")) else {
        return;
    };
    let mut fault = |said: &Said, message: &str| reader.fault("consul.tls", said, message);
    if tls.certificate.is_some() != tls.key.is_some() {
        fault(
            &node.said,
            "must have certificate and key together, and has one of them",
        );
    }
    let server = config.role.has(Role::ConsulServer);
    let without = tls.certificate.is_none() && tls.key.is_none();
    if without && server {
        fault(
            &node.said,
            "must have certificate and key: role consul-server needs its own",
        );
    } else if without && tls.auto_encrypt != Some(true) {
        fault(
            &node.said,
            "must have certificate and key, or auto_encrypt: true to get them from the servers",
        );
    }
}
