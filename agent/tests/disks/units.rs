//! What is written for the next boot is what systemd takes, also the oldest one.

use std::fs;

use cos_agent::node::disks::uuid::Uuid;
use cos_agent::node::disks::{
    DiskSource, DiskSpec, EfsSpec, EfsTarget, Keeper, MountEntry, Request, nomad_drop_in, units::What,
};

use crate::rig;

fn entries() -> Vec<MountEntry> {
    let local = MountEntry {
        what: What::Uuid(Uuid::of_disk("vol-0123456789abcdef0")),
        point: "/opt/nomad/data-1".to_owned(),
        kind: "xfs".to_owned(),
        options: vec!["noatime".to_owned(), "logbsize=256k".to_owned()],
    };
    let network = MountEntry {
        what: What::Network("fs-0123.efs.eu-west-1.amazonaws.com:/".to_owned()),
        point: "/efs".to_owned(),
        kind: "nfs4".to_owned(),
        options: vec!["nfsvers=4.1".to_owned(), "_netdev".to_owned()],
    };
    vec![local, network]
}

/// Directives that systemd 219 (Amazon Linux 2) has, from its manual pages.
const KNOWN_TO_219: &[&str] = &[
    "After",
    "Before",
    "Conflicts",
    "DefaultDependencies",
    "Description",
    "Options",
    "RequiresMountsFor",
    "Type",
    "WantedBy",
    "Wants",
    "What",
    "Where",
];

#[test]
fn the_oldest_systemd_knows_every_directive() {
    let drop_in = nomad_drop_in(&request()).unwrap().1;
    let texts = entries()
        .iter()
        .map(MountEntry::unit_content)
        .chain([drop_in])
        .collect::<Vec<_>>();
    for text in texts {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((directive, _)) = line.split_once('=') {
                assert!(KNOWN_TO_219.contains(&directive), "{directive}");
            }
        }
    }
}

fn request() -> Request {
    Request {
        disks: vec![DiskSpec::new(
            DiskSource::Volume("vol-0123456789abcdef0".to_owned()),
            "/opt/nomad/data-1",
        )],
        efs: vec![EfsSpec {
            target: EfsTarget::Dns("fs-0123.efs.eu-west-1.amazonaws.com".to_owned()),
            access_point: None,
            mount_point: "/efs".to_owned(),
            tls: false,
            iam: false,
            options: Vec::new(),
        }],
        whole: true,
    }
}

#[test]
fn systemd_takes_the_units_and_orders_nomad_after_them() {
    if !rig::has(
        "systemd_takes_the_units_and_orders_nomad_after_them",
        &["systemd-analyze"],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let system = folder.path().join("etc/systemd/system");
    fs::create_dir_all(system.join("nomad.service.d")).unwrap();
    let mut names = Vec::new();
    for entry in entries() {
        fs::write(folder.path().join(&entry.unit_path()[1..]), entry.unit_content()).unwrap();
        names.push(entry.unit());
    }
    let (path, content) = nomad_drop_in(&request()).unwrap();
    fs::write(folder.path().join(&path[1..]), content).unwrap();
    fs::create_dir_all(folder.path().join("bin")).unwrap();
    fs::copy("/bin/true", folder.path().join("bin/true")).unwrap();
    for name in ["nomad", "consul", "docker", "containerd"] {
        let unit = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/true\n";
        fs::write(system.join(format!("{name}.service")), unit).unwrap();
    }
    // systemd's own targets, as the machine has them.
    for name in [
        "local-fs-pre",
        "remote-fs-pre",
        "network",
        "network-online",
        "umount",
        "multi-user",
    ] {
        let target = "[Unit]\nDefaultDependencies=no\n";
        fs::write(system.join(format!("{name}.target")), target).unwrap();
    }
    names.push("nomad.service".to_owned());
    let root = format!("--root={}", folder.path().display());
    let mut arguments = vec!["verify", "--man=no", "--recursive-errors=no", &root];
    arguments.extend(names.iter().map(String::as_str));
    let verified = rig::run("systemd-analyze", &arguments);
    verified.unwrap();
    assert_eq!(names[0], "opt-nomad-data\\x2d1.mount");
}

#[test]
fn this_machine_has_one_keeper() {
    let root = rig::Root::new();
    let request = Request::default();
    let (observed, plan) = cos_agent::node::disks::dry_run(&request, &root.environment()).unwrap();
    assert_eq!((observed.keeper, plan.steps.len()), (Keeper::Fstab, 0));
}
