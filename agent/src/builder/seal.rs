//! Owns `cos-agent seal`: the last command of a bake, after which the next boot is a first boot.
//! Touches everything that identifies this machine or tells what it did, never what the bundle installed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::AGENT_PATH;
use super::error::BuilderError;
use super::identity::{self, MACHINE_ID};
use super::machine::Machine;
use super::report::SealReport;
use super::residue::{Kept, LOGS, RESIDUE, Sweeper};
use super::run_command::{RunCommand, running_command};
use crate::bundle::{BundleManifest, INSTALLED_MANIFEST};

/// Where the report lies until the machine stops. `/run` is memory, so it is never in the image; sealing
/// again, when the machine-id is gone already, still knows the builder's identity.
const REPORT: &str = "/run/cos-agent/seal.json";

/// A unit that seals once more when the machine shuts down, after the SSM agent has stopped. Also in `/run`.
const AT_SHUTDOWN: &str = "cos-seal-at-shutdown.service";

/// Longest time for systemctl.
const SYSTEMCTL_DEADLINE: Duration = Duration::from_secs(30);

/// Longest time to tell the volume which blocks are free.
const TRIM_DEADLINE: Duration = Duration::from_mins(2);

/// Seals the machine: every step is tried, failures are reported together at the end.
pub fn seal(machine: &Machine<'_>) -> Result<SealReport, BuilderError> {
    let start = Instant::now();
    let files = machine.files;
    let mut report = earlier_report(machine)?.map_or_else(|| identify(machine), Ok)?;
    save(machine, &report)?;
    let bundle = installed_manifest(machine)?;
    let kept = bundle.as_ref().map(Kept::bundle).unwrap_or_default();
    let command = running_command(machine);
    let mut sweeper = Sweeper::new(files);

    release_journal(machine);
    for residue in RESIDUE {
        if residue.name == "ssm-agent" && command != RunCommand::None {
            continue;
        }
        residue
            .patterns
            .iter()
            .for_each(|pattern| sweeper.sweep(pattern, &kept));
    }
    report.kept = sweep_around(&command, &mut sweeper, &kept);
    for directory in bundle
        .iter()
        .flat_map(|bundle| &bundle.directories)
        .filter(|directory| directory.sealed_empty)
    {
        sweeper.sweep(&format!("{}/*", directory.path), &Kept::default());
    }
    // A D-Bus of its own machine-id would outlive ours; as a link it follows.
    if matches!(files.link_target("/var/lib/dbus/machine-id"), Ok(None)) {
        sweeper.sweep("/var/lib/dbus/machine-id", &Kept::default());
    }
    // Empty, not absent: machine-id(5) takes an absent file for a first boot, on which systemd enables units
    // by preset; an empty one only gets a new identity.
    if matches!(files.mode(MACHINE_ID), Ok(Some(_)))
        && let Err(error) = files.truncate(MACHINE_ID)
    {
        sweeper.failed.push(error);
    }
    sweeper.cut_logs(LOGS, &kept);
    report.removed = sweeper.removed;
    let failed = sweeper.failed;

    if !report.kept.is_empty() {
        seal_at_shutdown(machine)?;
    }
    if machine.is_running() {
        nix::unistd::sync();
        // Blocks that the file system has freed need not be in the snapshot. Not every volume can do it.
        let _ = machine.run("fstrim", &["/"], TRIM_DEADLINE);
    }
    report.seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    save(machine, &report)?;
    match failed.len() {
        0 => Ok(report),
        count => Err(BuilderError::Step {
            step: format!("remove {count} of the builder's traces"),
            reason: failed
                .iter()
                .map(|error| format!("{error}: {}", error.source))
                .collect::<Vec<_>>()
                .join("; "),
        }),
    }
}

/// Lets journald write to `/run` from now on: it would make its folder, named by the builder's machine-id,
/// anew. Versions before 246 cannot; Amazon Linux 2 has one, but keeps no journal on disk.
fn release_journal(machine: &Machine<'_>) {
    if machine.is_running() && matches!(machine.files.mode("/var/log/journal"), Ok(Some(_))) {
        let _ = machine.run("journalctl", &["--relinquish-var"], SYSTEMCTL_DEADLINE);
    }
}

/// Who this machine is, before it is nobody.
fn identify(machine: &Machine<'_>) -> Result<SealReport, BuilderError> {
    Ok(SealReport {
        machine_id_sha256: identity::machine_id_sha256(machine.files)?,
        ssh_host_key_fingerprints: identity::ssh_host_key_fingerprints(machine.files)?,
        instance_ids: identity::instance_ids(machine.files)?,
        sealed_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        removed: 0,
        kept: Vec::new(),
        seconds: 0.0,
    })
}

/// The report of an earlier seal since boot. One that cannot be read counts for none.
fn earlier_report(machine: &Machine<'_>) -> Result<Option<SealReport>, BuilderError> {
    let content = machine
        .files
        .read(REPORT)
        .map_err(BuilderError::file("look for an earlier seal"))?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

fn save(machine: &Machine<'_>, report: &SealReport) -> Result<(), BuilderError> {
    let content = serde_json::to_vec(report).map_err(BuilderError::malformed("the seal report"))?;
    machine
        .files
        .write_atomic(REPORT, &content, 0o600)
        .map_err(BuilderError::file("keep the builder's identity"))
}

fn installed_manifest(machine: &Machine<'_>) -> Result<Option<BundleManifest>, BuilderError> {
    let content = machine
        .files
        .read(INSTALLED_MANIFEST)
        .map_err(BuilderError::file("read the manifest"))?;
    content
        .map(|content| serde_json::from_slice(&content).map_err(BuilderError::malformed(INSTALLED_MANIFEST)))
        .transpose()
}

/// Removes of the SSM agent's state what the running command does not need; returns what stays.
fn sweep_around(command: &RunCommand, sweeper: &mut Sweeper<'_>, kept: &Kept) -> Vec<String> {
    if *command == RunCommand::None {
        return Vec::new();
    }
    for pattern in [
        "/var/lib/amazon/ssm/Vault/*",
        "/var/lib/amazon/ssm/runtimeconfig/*",
    ] {
        sweeper.sweep(pattern, kept);
    }
    if let RunCommand::Id(id) = command {
        // Folders stay as folders; of the files only those with the command's id in their path stay.
        let kept = kept.clone().and_part(id);
        for folder in ["document", "inventory", "session"] {
            sweeper.sweep(&format!("/var/lib/amazon/ssm/*i-*/{folder}/*"), &kept);
        }
    }
    let instances = RESIDUE
        .iter()
        .filter(|residue| residue.name == "ssm-agent")
        .flat_map(|residue| residue.patterns);
    instances
        .flat_map(|pattern| super::residue::expand(sweeper.files, pattern).unwrap_or_default())
        .collect()
}

/// Seals again when everything else has stopped, if systemd runs here. Where it does not (Amazon Linux 1),
/// what is kept stays in the image; the report names it.
fn seal_at_shutdown(machine: &Machine<'_>) -> Result<(), BuilderError> {
    let step = "seal again at shutdown";
    if machine
        .files
        .mode("/run/systemd/system")
        .map_err(BuilderError::file(step))?
        .is_none()
    {
        return Ok(());
    }
    // Units stop in the reverse of their starting order, so this one stops, and seals, after the agent.
    let unit = format!(
        "[Unit]\nDescription=Remove what Run Command needed until its end\nDefaultDependencies=no\n\
         RequiresMountsFor=/var/lib/amazon {AGENT_PATH}\nConflicts=shutdown.target\n\
         Before=shutdown.target amazon-ssm-agent.service snap.amazon-ssm-agent.amazon-ssm-agent.service\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop={AGENT_PATH} seal\n\
         TimeoutStopSec=60\n"
    );
    machine
        .files
        .write_atomic(
            format!("/run/systemd/system/{AT_SHUTDOWN}"),
            unit.as_bytes(),
            0o644,
        )
        .map_err(BuilderError::file(step))?;
    for arguments in [&["daemon-reload"][..], &["start", AT_SHUTDOWN]] {
        machine
            .check("systemctl", arguments, SYSTEMCTL_DEADLINE)
            .map_err(BuilderError::program(step))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::install::install;
    use super::super::sample::{Sample, Tree, sample};
    use super::super::verify::{Booted, verify};
    use super::*;

    const KEY: &str = include_str!("../../tests/host-key/ssh_host_ed25519_key.pub");

    /// Everything that a builder leaves behind; each must go.
    const TRACES: &[&str] = &[
        "/etc/ssh/ssh_host_ed25519_key",
        "/root/.ssh/authorized_keys",
        "/home/ec2-user/.ssh/authorized_keys",
        "/var/lib/cloud/instances/i-0builder/user-data.txt",
        "/var/lib/cloud/data/instance-id",
        "/var/lib/cloud/sem/config_scripts_per_once.once",
        "/var/lib/cloud/seed/nocloud/user-data",
        "/var/lib/amazon/ssm/i-0builder/document/orchestration/c0ffee/stdout",
        "/var/lib/amazon/ssm/Vault/Store/InstanceFingerprint",
        "/var/log/journal/0123/system.journal",
        "/var/log/messages-20261123",
        "/var/log/nginx/access.log.1",
        "/var/lib/dhclient/dhclient--eth0.lease",
        "/etc/docker/key.json",
        "/var/lib/docker/engine-id",
        "/var/cache/dnf/x/repodata",
        "/var/lib/apt/lists/deb.example_InRelease",
        "/var/cache/apt/archives/x.deb",
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/tmp/x/y",
        "/tmp/.hidden",
        "/var/tmp/x",
        "/root/.bash_history",
        "/home/ec2-user/.bash_history",
        "/etc/hostname",
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/opt/nomad/data/client/client-id",
        "/var/lib/dbus/machine-id",
    ];

    const LOGS_IN_USE: &[&str] = &[
        "/var/log/messages",
        "/var/log/wtmp",
        "/var/log/lastlog",
        "/var/log/amazon/ssm/amazon-ssm-agent.log",
    ];

    fn builder() -> (Tree, Sample) {
        let (tree, sample) = (Tree::new(), sample());
        install(&tree.machine(), &sample.device(), &sample.header.bundle_sha256).unwrap();
        for path in TRACES.iter().chain(LOGS_IN_USE) {
            tree.files.write_atomic(path, b"of the builder\n", 0o600).unwrap();
        }
        tree.files
            .link("/var/lib/cloud/instance", "/var/lib/cloud/instances/i-0builder")
            .unwrap();
        tree.files
            .write_atomic(MACHINE_ID, b"0123456789abcdef0123456789abcdef\n", 0o444)
            .unwrap();
        tree.files
            .write_atomic("/etc/ssh/ssh_host_ed25519_key.pub", KEY.as_bytes(), 0o644)
            .unwrap();
        (tree, sample)
    }

    /// Every path below a folder of the host.
    fn walk(folder: &Path, paths: &mut BTreeSet<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            paths.insert(entry.path());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), paths);
            }
        }
    }

    #[test]
    fn every_trace_goes_the_bundle_stays_and_a_second_time_changes_nothing() {
        let (tree, sample) = builder();
        let report = seal(&tree.machine()).unwrap();
        assert_eq!(
            report.machine_id_sha256.as_deref(),
            Some(super::super::digest::sha256(b"0123456789abcdef0123456789abcdef").as_str())
        );
        let fingerprint = include_str!("../../tests/host-key/fingerprint").trim();
        assert_eq!(report.ssh_host_key_fingerprints, [fingerprint]);
        assert_eq!(report.instance_ids, ["i-0builder"]);
        for path in TRACES
            .iter()
            .chain(&["/var/lib/cloud/instance", "/etc/ssh/ssh_host_ed25519_key.pub"])
        {
            assert_eq!(tree.files.mode(path).unwrap(), None, "{path} is still there");
        }
        for path in LOGS_IN_USE.iter().chain(&[MACHINE_ID]) {
            assert_eq!(
                tree.files.read(path).unwrap().as_deref(),
                Some(&b""[..]),
                "{path} is kept, empty"
            );
        }
        let verified = verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
        assert_eq!(verified.failed().count(), 0);

        let mut before = BTreeSet::new();
        walk(tree.files.root(), &mut before);
        let again = seal(&tree.machine()).unwrap();
        assert_eq!(
            again.machine_id_sha256, report.machine_id_sha256,
            "the identity is still known"
        );
        assert_eq!(again.ssh_host_key_fingerprints, report.ssh_host_key_fingerprints);
        assert_eq!(again.sealed_at, report.sealed_at);
        assert_eq!(again.removed, 0);
        let mut after = BTreeSet::new();
        walk(tree.files.root(), &mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn what_the_running_command_needs_stays_and_is_named() {
        let (tree, _sample) = builder();
        let base = "/var/lib/amazon/ssm/i-0builder";
        let needed = [
            format!("{base}/document/orchestration/c0ffee/stdout"),
            format!("{base}/document/state/current/c0ffee"),
            format!("{base}/channels/c0ffee/surveyor-1"),
        ];
        let spare = [
            format!("{base}/document/orchestration/0lder/stdout"),
            format!("{base}/document/state/completed/0lder"),
        ];
        for path in needed.iter().chain(&spare) {
            tree.files.write_atomic(path, b"x", 0o600).unwrap();
        }
        let mut sweeper = Sweeper::new(&tree.files);
        let command = RunCommand::Id("c0ffee".to_owned());
        let kept = sweep_around(&command, &mut sweeper, &Kept::default());
        assert_eq!(kept, [base]);
        for path in &needed {
            assert!(tree.files.mode(path).unwrap().is_some(), "{path} is needed");
        }
        for path in &spare {
            assert!(tree.files.mode(path).unwrap().is_none(), "{path} is not needed");
        }
    }

    /// The boot test on a tree: a sealed one that got a new identity passes; each trace that stayed is found.
    #[test]
    fn the_boot_test_finds_each_trace_that_stayed() {
        let (tree, sample) = builder();
        let mut sealed = seal(&tree.machine()).unwrap();
        let boot = |tree: &Tree| {
            tree.files
                .write_atomic(MACHINE_ID, b"fedcba9876543210fedcba9876543210\n", 0o444)
                .unwrap();
            let key = KEY.replacen("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAJ", 1);
            tree.files
                .write_atomic("/etc/ssh/ssh_host_ed25519_key.pub", key.as_bytes(), 0o644)
                .unwrap();
        };
        boot(&tree);
        let failed = |sealed: &SealReport| {
            let booted = Booted {
                sealed: sealed.clone(),
            };
            let report = verify(&tree.machine(), &sample.header.manifest_sha256, Some(&booted)).unwrap();
            let names: Vec<String> = report.failed().map(|check| check.name.clone()).collect();
            names
                .into_iter()
                .filter(|name| name != "docker")
                .collect::<Vec<_>>()
        };
        assert_eq!(failed(&sealed), Vec::<String>::new());

        // What is there now counts as from before the seal, if the seal was later.
        sealed.sealed_at += 3600;
        for path in TRACES {
            tree.files.write_atomic(path, b"left\n", 0o600).unwrap();
            assert!(!failed(&sealed).is_empty(), "{path} was not found");
            tree.files.remove(path).unwrap();
        }
        tree.files
            .write_atomic("/var/log/messages", b"old\n", 0o600)
            .unwrap();
        assert!(failed(&sealed).contains(&"residue:logs".to_owned()));
        tree.files
            .link(
                "/etc/systemd/system/multi-user.target.wants/nomad.service",
                "../nomad.service",
            )
            .unwrap();
        assert!(failed(&sealed).contains(&"units-not-enabled".to_owned()));
        tree.files
            .write_atomic(MACHINE_ID, b"0123456789abcdef0123456789abcdef\n", 0o444)
            .unwrap();
        assert!(failed(&sealed).contains(&"machine-id".to_owned()));
        tree.files.truncate(MACHINE_ID).unwrap();
        assert!(failed(&sealed).contains(&"machine-id".to_owned()));
        tree.files
            .write_atomic("/etc/ssh/ssh_host_ed25519_key.pub", KEY.as_bytes(), 0o644)
            .unwrap();
        assert!(failed(&sealed).contains(&"ssh-host-keys".to_owned()));
    }
}
