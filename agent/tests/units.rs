//! The unit files and System V scripts that a bundle carries: systemd takes them, so does the oldest one, and
//! a script starts, finds and stops what it is for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 4] = ["consul", "containerd", "docker", "nomad"];

/// Directives that systemd 219 (Amazon Linux 2) knows; the manual pages of that version have them all.
/// `TasksMax` came with 227 and was carried back to the 219 of that family.
const KNOWN_TO_219: &[&str] = &[
    "After",
    "ConditionDirectoryNotEmpty",
    "Delegate",
    "Description",
    "Documentation",
    "Environment",
    "ExecReload",
    "ExecStart",
    "ExecStartPre",
    "Group",
    "KillMode",
    "KillSignal",
    "LimitCORE",
    "LimitNOFILE",
    "LimitNPROC",
    "OOMScoreAdjust",
    "Requires",
    "Restart",
    "RestartSec",
    "TasksMax",
    "TimeoutStartSec",
    "Type",
    "User",
    "WantedBy",
    "Wants",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.service"))).unwrap()
}

#[test]
fn the_oldest_systemd_knows_every_directive() {
    for name in UNITS {
        for line in unit(name).lines() {
            let Some((directive, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            assert!(KNOWN_TO_219.contains(&directive), "{name}.service: {directive}");
        }
    }
}

#[test]
fn every_ordering_has_its_reason() {
    for name in UNITS {
        let text = unit(name);
        let mut explained = false;
        for line in text.lines() {
            let ordering = ["After=", "Before=", "Requires=", "Wants="]
                .iter()
                .any(|start| line.starts_with(start));
            if ordering {
                assert!(explained, "{name}.service: no comment above `{line}`");
            } else {
                explained = line.starts_with('#');
            }
        }
    }
}

/// What systemd says about the units in a tree that has the base's units and the bundle's programs.
fn verify(change: impl Fn(&str, String) -> String) -> Option<String> {
    let ready = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&ready.stdout)
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.split(['.', '~', '-']).next()?.parse::<u32>().ok())
        .unwrap_or_default();
    // `--root` for `verify` came with 250.
    let base = ["/usr/lib/systemd/system", "/lib/systemd/system"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_dir())?;
    if version < 250 {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let path = |path: &str| root.path().join(path.trim_start_matches('/'));
    fs::create_dir_all(path("/usr/lib/systemd")).unwrap();
    fs::create_dir_all(path("/etc/systemd/system")).unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(base)
        .arg(path("/usr/lib/systemd/system"))
        .status()
        .unwrap();
    assert!(copied.success());
    symlink("usr/lib", path("/lib")).unwrap();
    for program in [
        "/opt/consul/bin/consul",
        "/opt/nomad/bin/nomad",
        "/opt/docker/bin/dockerd",
        "/opt/docker/bin/containerd",
        "/bin/kill",
        "/usr/bin/env",
        "/sbin/modprobe",
    ] {
        fs::create_dir_all(path(program).parent().unwrap()).unwrap();
        fs::write(path(program), "").unwrap();
        fs::set_permissions(path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let units = UNITS.map(|name| {
        let unit_path = path(&format!("/etc/systemd/system/{name}.service"));
        fs::write(&unit_path, change(name, unit(name))).unwrap();
        unit_path
    });
    let mut analyze = Command::new("systemd-analyze");
    let output = analyze
        .arg("--root")
        .arg(root.path())
        .arg("verify")
        .args(&units)
        .output()
        .unwrap();
    Some(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[test]
fn systemd_takes_the_units() {
    let Some(said) = verify(|_, unit| unit) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have systemd-analyze 250 or later"
        );
        eprintln!("SKIPPED: systemd_takes_the_units needs systemd-analyze 250 or later");
        return;
    };
    assert_eq!(said, "");
    // The check itself must be able to fail: a word that is no directive, a program that is not there, a cycle.
    for (expected, from, to) in [
        ("Unknown key", "RestartSec=", "RestartSecs="),
        ("not executable", "/opt/consul/bin/consul", "/opt/consul/bin/none"),
        ("cycle", "After=network-online.target", "After=nomad.service"),
    ] {
        let change = |name: &str, unit: String| {
            if name == "consul" {
                unit.replace(from, to)
            } else {
                unit
            }
        };
        let said = verify(change).unwrap();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn the_preset_disables_each_unit() {
    let preset = fs::read_to_string(folder().join("preset/20-cos.preset")).unwrap();
    let disabled: BTreeSet<&str> = preset
        .lines()
        .filter_map(|line| line.strip_prefix("disable "))
        .collect();
    assert_eq!(
        disabled,
        UNITS
            .map(|name| format!("{name}.service"))
            .iter()
            .map(String::as_str)
            .collect()
    );
}

/// Ends on SIGINT even where that was ignored at its start, as a Go program does.
const STAND_IN: &str = "#!/usr/bin/env python3
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print('started:', *sys.argv, flush=True)
time.sleep(300)
";

/// A script of a unit, its paths moved below `root`, with a stand-in for its program.
fn script(name: &str, root: &Path) -> PathBuf {
    let text = fs::read_to_string(folder().join("sysv").join(name)).unwrap();
    let whoever = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    let text = text
        .replace("/opt/", &format!("{}/opt/", root.display()))
        .replace("/var/", &format!("{}/var/", root.display()))
        .replace("user=consul", &format!("user={whoever}"))
        // Kernel matters are not this test's.
        .replace("    modprobe overlay 2>/dev/null\n", "")
        .replace("grep -q cgroup /proc/mounts", "true");
    for folder in [
        "var/run",
        "var/log",
        "opt/consul/bin",
        "opt/nomad/bin",
        "opt/docker/bin",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for program in [
        "consul/bin/consul",
        "nomad/bin/nomad",
        "docker/bin/dockerd",
        "docker/bin/containerd",
    ] {
        let program = root.join("opt").join(program);
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = root.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn run(script: &Path, action: &str) -> Option<i32> {
    Command::new("sh")
        .arg(script)
        .arg(action)
        .status()
        .unwrap()
        .code()
}

#[test]
fn a_system_v_script_starts_finds_and_stops_its_program() {
    if !nix::unistd::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        eprintln!("SKIPPED: a_system_v_script_starts_finds_and_stops_its_program needs root for runuser");
        return;
    }
    for name in UNITS {
        let root = tempfile::tempdir().unwrap();
        let script = script(name, root.path());
        assert_eq!(run(&script, "status"), Some(3), "{name} is not running yet");
        let config = root.path().join("opt").join(name).join("config");
        if name == "consul" || name == "nomad" {
            assert_eq!(run(&script, "start"), Some(6), "{name} has no configuration");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("x"), "").unwrap();
        }
        assert_eq!(run(&script, "start"), Some(0), "{name}");
        assert_eq!(run(&script, "status"), Some(0), "{name}");
        let pid_file = root.path().join(format!("var/run/cos-{name}/pid"));
        let first = fs::read_to_string(&pid_file).unwrap();
        let command = fs::read_to_string(format!("/proc/{}/comm", first.trim())).unwrap();
        assert_eq!(
            command.trim(),
            "python3",
            "the process id of {name} is its program's own"
        );
        assert_eq!(run(&script, "start"), Some(0));
        assert_eq!(
            fs::read_to_string(&pid_file).unwrap(),
            first,
            "a second start changes nothing"
        );
        assert_eq!(run(&script, "restart"), Some(0));
        assert_ne!(fs::read_to_string(&pid_file).unwrap(), first);
        let log = fs::read_to_string(root.path().join(format!("var/log/{name}.log"))).unwrap();
        assert!(log.contains("started: "), "{log}");
        assert_eq!(run(&script, "stop"), Some(0));
        assert_eq!(run(&script, "status"), Some(3));
        assert_eq!(run(&script, "stop"), Some(0), "stopping what is stopped is done");
    }
}
