//! Owns what several keys of a `NodeConfig` must not say together.
//! Touches nothing.

use std::collections::BTreeMap;

use super::node_config::NodeConfig;
use super::record::Reader;
use super::roles::Role;
use super::tree::{Node, Value};

/// Finds contradictions; every single value was found good before.
pub(super) fn check(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    included(root, reader);
    disks(root, config, reader);
    mounts(root, reader);
    tls(root, config, reader);
    acl(root, config, reader);
    unmanaged(root, config, reader);
    overruled(root, reader);
    unwatched(root, config, reader);
}

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
    let mut fault = |message: &str| reader.fault("consul.tls", &node.said, message);
    let (certificate, key) = (tls.certificate.is_some(), tls.key.is_some());
    if certificate != key {
        fault("must have certificate and key together, and has one of them");
    }
    let server = config.role.has(Role::ConsulServer);
    let handed_out = tls.auto_encrypt == Some(true) && !server;
    if handed_out && certificate && key {
        fault("must have either certificate and key, or auto_encrypt: true, of which a client uses one");
    }
    if !certificate && !key && server {
        fault("must have certificate and key: role consul-server needs its own");
    } else if !certificate && !key && !handed_out {
        fault("must have certificate and key, or auto_encrypt: true to get them from the servers");
    }
    if tls.verify_outgoing == Some(false) && tls.verify_server_hostname != Some(false) {
        fault("has verify_outgoing: false, which counts only with verify_server_hostname: false");
    }
}

/// What access control is to do, where it is off.
fn acl(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    if config.consul.acl.enabled == Some(true) {
        return;
    }
    for key in [
        "default_policy",
        "agent_token",
        "default_token",
        "initial_management_token",
    ] {
        let path = format!("consul.acl.{key}");
        if let Some(node) = root.at(&path) {
            let message = "has no effect unless consul.acl.enabled is true";
            reader.fault(&path, &node.said, message);
        }
    }
}

/// Keys that only say what stands in a configuration, where COS writes none. The number of servers stays: the
/// health of the node is measured by it.
fn unmanaged(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    const CONSUL: &[&str] = &[
        "datacenter",
        "retry_join",
        "recursors",
        "ui",
        "gossip_key",
        "tls",
        "acl",
        "autopilot",
        "log_level",
    ];
    const NOMAD: &[&str] = &[
        "region",
        "log_dir",
        "node_pool",
        "meta",
        "host_volumes",
        "client_options",
        "drain_deadline",
        "gossip_key",
        "tls",
        "acl",
        "consul_token",
        "client_introduction",
        "introduction_token",
        "kms_key",
        "autopilot",
        "telemetry",
        "log_level",
    ];
    let products = [
        ("consul", CONSUL, config.consul.manage_configuration),
        ("nomad", NOMAD, config.nomad.manage_configuration),
    ];
    for (product, keys, managed) in products {
        let paths = keys.iter().map(|key| format!("{product}.{key}"));
        for path in paths.filter(|_| managed == Some(false)) {
            if let Some(node) = root.at(&path) {
                let message = format!("has no effect while {product}.manage_configuration is false");
                reader.fault(&path, &node.said, message);
            }
        }
    }
}

/// What the watcher is to do, where there is none.
fn unwatched(root: &Node, config: &NodeConfig, reader: &mut Reader) {
    const BY_THE_WATCHER: &[&str] = &[
        "readiness.hook",
        "readiness.deadline",
        "watch.rebalance",
        "watch.drain_deadline",
        "watch.scheduled_event_lead",
        "watch.hook",
        "watch.drift",
    ];
    if config.watch.enabled != Some(false) {
        return;
    }
    let held_back = (config.readiness.eligible == Some(true)).then_some("readiness.eligible");
    for path in BY_THE_WATCHER.iter().copied().chain(held_back) {
        if let Some(node) = root.at(path) {
            let message = "has no effect while watch.enabled is false";
            reader.fault(path, &node.said, message);
        }
    }
}

/// Keys that something else, which COS writes, would make void.
fn overruled(root: &Node, reader: &mut Reader) {
    if let Some(Value::Map(options)) = root.at("nomad.client_options").map(|node| &node.value) {
        // Nomad reads the plugin block alone where there is one, and COS needs it to set credentials for ECR.
        let docker = options.iter().filter(|entry| entry.key.starts_with("docker."));
        for entry in docker {
            let path = format!("nomad.client_options.{}", entry.key);
            let message = "would be void: Nomad's Docker driver reads its plugin block, which COS writes (docker.privileged)";
            reader.fault(&path, &entry.said, message);
        }
    }
    let path = "nomad.service.environment.AWS_CA_BUNDLE";
    if let Some(node) = root.at(path) {
        let message = "would be void: Nomad does not start with it, so its unit takes it away";
        reader.fault(path, &node.said, message);
    }
}
