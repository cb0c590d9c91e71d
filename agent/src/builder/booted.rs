//! Owns the checks of a machine that was booted from the new image: own identity, no traces, docker works.
//! Touches docker, which it starts and stops again; everything else is only read.

use super::digest::sha256;
use super::docker;
use super::identity;
use super::machine::Machine;
use super::report::{Check, SealReport};
use super::residue::{LOGS, RESIDUE, surviving_logs, survivors};
use crate::bundle::BundleManifest;
use crate::error::one_line;
use crate::node;
use crate::node::config::Role;
use crate::node::render::Versions;
use crate::node::sources::InstanceFacts;

/// Folders in which systemd keeps what is enabled for boot.
const ENABLED: &str = "/etc/systemd/system";

/// The roles whose configuration is rendered and judged.
const ROLES: [Role; 3] = [Role::ConsulServer, Role::NomadServer, Role::NomadClient];

/// Makes all checks and returns them; nothing stops at a failure.
pub(crate) fn check(machine: &Machine<'_>, manifest: &BundleManifest, sealed: &SealReport) -> Vec<Check> {
    let mut checks = vec![machine_id(machine, sealed), ssh_host_keys(machine, sealed)];
    let empty = manifest
        .directories
        .iter()
        .filter(|directory| directory.sealed_empty);
    checks.extend(empty.map(|directory| sealed_empty(machine, &directory.path)));
    checks.extend(RESIDUE.iter().map(|residue| {
        let (name, expected) = (
            format!("residue:{}", residue.name),
            "nothing from before the seal",
        );
        match survivors(machine.files, residue, sealed.sealed_at, &sealed.kept) {
            Ok(found) => Check::none(name, expected, &found),
            Err(error) => Check::failed(name, expected, error),
        }
    }));
    let logs = surviving_logs(machine.files, LOGS, sealed.sealed_at);
    checks.push(Check::none(
        "residue:logs",
        "no log with content from before the seal",
        &logs,
    ));
    checks.push(journal_folder(machine, sealed));
    checks.push(instance_ids(machine, sealed));
    checks.push(enabled_units(machine, manifest));
    if manifest.components.contains_key("docker") {
        checks.push(docker::check(machine));
    }
    if manifest.components.contains_key("nomad") && manifest.components.contains_key("consul") {
        checks.extend(ROLES.map(|role| rendered_node(machine, role)));
    }
    checks
}

/// Whether Consul and Nomad accept what a node of this role would be given, judged by their own validators.
fn rendered_node(machine: &Machine<'_>, role: Role) -> Check {
    let (name, expected) = (
        format!("rendered-node:{role}"),
        "consul validate and nomad config validate accept it",
    );
    let judged = || -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().map_err(|error| one_line(&error))?;
        let versions = Versions::detect(machine.files, machine.programs).map_err(|error| one_line(&error))?;
        let facts = InstanceFacts::sample();
        let validators =
            node::render_for_validation(role, &facts, &versions, machine.files, directory.path())
                .map_err(|error| one_line(&error))?;
        if validators.is_empty() {
            return Err("no validator was named".to_owned());
        }
        let refused = validators
            .iter()
            .filter_map(|invocation| machine.programs.check(invocation).err());
        Ok(refused.map(|error| one_line(&error)).collect())
    };
    match judged() {
        Ok(refused) => Check::none(name, expected, &refused),
        Err(reason) => Check::failed(name, expected, reason),
    }
}

fn machine_id(machine: &Machine<'_>, sealed: &SealReport) -> Check {
    let (name, expected) = ("machine-id", "a machine-id that is not the builder's");
    match (
        identity::machine_id_sha256(machine.files),
        &sealed.machine_id_sha256,
    ) {
        (Err(error), _) => Check::failed(name, expected, error),
        // Amazon Linux 1 has no machine-id, neither on the builder nor here.
        (Ok(None), None) => Check::none(name, "none, as on the builder", &[]),
        (Ok(None), Some(_)) => Check::failed(name, expected, "an empty one, or none"),
        (Ok(Some(found)), Some(builder)) if found == *builder => {
            Check::failed(name, expected, "the builder's")
        }
        (Ok(Some(_)), _) => Check::none(name, expected, &[]),
    }
}

fn ssh_host_keys(machine: &Machine<'_>, sealed: &SealReport) -> Check {
    let (name, expected) = ("ssh-host-keys", "SSH host keys, none of them the builder's");
    match identity::ssh_host_key_fingerprints(machine.files) {
        Err(error) => Check::failed(name, expected, error),
        Ok(found) if found.is_empty() && !sealed.ssh_host_key_fingerprints.is_empty() => {
            Check::failed(name, expected, "no SSH host key, though the builder had some")
        }
        Ok(mut found) => {
            found.retain(|fingerprint| sealed.ssh_host_key_fingerprints.contains(fingerprint));
            Check::none(name, expected, &found)
        }
    }
}

fn sealed_empty(machine: &Machine<'_>, path: &str) -> Check {
    let (name, expected) = (format!("sealed-empty:{path}"), "an empty directory");
    match machine.files.entries(path) {
        Ok(found) => Check::none(name, expected, &found),
        Err(error) => Check::failed(name, expected, error),
    }
}

/// journald names its folder by machine-id; the builder's can have been made again after the seal.
fn journal_folder(machine: &Machine<'_>, sealed: &SealReport) -> Check {
    let (name, expected) = (
        "residue:journal-folder",
        "no journal under the builder's machine-id",
    );
    match machine.files.entries("/var/log/journal") {
        Err(error) => Check::failed(name, expected, one_line(&error)),
        Ok(mut found) => {
            found.retain(|id| Some(sha256(id.as_bytes())) == sealed.machine_id_sha256);
            Check::none(name, expected, &found)
        }
    }
}

/// State that cloud-init or the SSM agent keeps under the builder's instance id.
fn instance_ids(machine: &Machine<'_>, sealed: &SealReport) -> Check {
    let (name, expected) = ("residue:instance-id", "no state under the builder's instance id");
    match identity::instance_ids(machine.files) {
        Err(error) => Check::failed(name, expected, error),
        Ok(mut found) => {
            let left = |id: &String| sealed.kept.iter().any(|path| path.ends_with(&format!("/{id}")));
            found.retain(|id| sealed.instance_ids.contains(id) && !left(id));
            Check::none(name, expected, &found)
        }
    }
}

/// Nothing of the bundle is enabled in an image: a node's role decides, once it has one.
fn enabled_units(machine: &Machine<'_>, manifest: &BundleManifest) -> Check {
    let (name, expected) = ("units-not-enabled", "no unit of the bundle enabled");
    let units: Vec<&str> = manifest
        .files
        .iter()
        .filter_map(|file| file.path.strip_prefix("/etc/systemd/system/"))
        .collect();
    let mut found = Vec::new();
    for folder in machine.files.entries(ENABLED).unwrap_or_default() {
        if ![".wants", ".requires"].iter().any(|end| folder.ends_with(end)) {
            continue;
        }
        for unit in machine
            .files
            .entries(format!("{ENABLED}/{folder}"))
            .unwrap_or_default()
        {
            if units.contains(&unit.as_str()) {
                found.push(format!("{folder}/{unit}"));
            }
        }
    }
    Check::none(name, expected, &found)
}
