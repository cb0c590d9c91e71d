//! The unit files and System V scripts that a bundle carries: systemd takes them, so does the oldest one, and
//! a script starts, finds and stops what it is for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const UNITS: [&str; 5] = ["consul", "containerd", "cos-agent-watch", "docker", "nomad"];

/// Directives that systemd 219 (Amazon Linux 2) knows; the manual pages of that version have them all.
/// `TasksMax` came with 227 and was carried back to the 219 of that family.
const KNOWN_TO_219: &[&str] = &[
    "After",
    "ConditionDirectoryNotEmpty",
    "ConditionPathExists",
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
    "TimeoutStopSec",
    "Type",
    "User",
    "WantedBy",
    "Wants",
    "WatchdogSec",
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
        "/opt/cos/bin/cos-agent",
        "/bin/kill",
        "/usr/bin/env",
        "/sbin/modprobe",
    ] {
        fs::create_dir_all(path(program).parent().unwrap()).unwrap();
        fs::write(path(program), "").unwrap();
        fs::set_permissions(path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // cloud-init as it is since 24.4, in the two places where others met a cycle with it.
    let cloud_init = [
        (
            "cloud-final.service",
            "[Unit]\nAfter=network-online.target multi-user.target\n[Service]\nType=oneshot\n\
             ExecStart=/usr/bin/env true\n[Install]\nWantedBy=cloud-init.target\n",
        ),
        (
            "cloud-init.target",
            "[Unit]\nAfter=multi-user.target\nWants=cloud-final.service\n",
        ),
    ];
    let wants = path("/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    for (name, text) in cloud_init {
        fs::write(path(&format!("/etc/systemd/system/{name}")), text).unwrap();
    }
    symlink("../cloud-init.target", wants.join("cloud-init.target")).unwrap();
    // As they are when `apply` has enabled them.
    for name in UNITS {
        let wanted = path(&format!(
            "/etc/systemd/system/multi-user.target.wants/{name}.service"
        ));
        symlink(format!("../{name}.service"), wanted).unwrap();
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
        // What a boot starts, all together.
        .arg(path("/usr/lib/systemd/system/multi-user.target"))
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // What is wrong with the base's own units is not ours.
    let ours = |line: &&str| line.contains("cycle") || UNITS.iter().any(|name| line.contains(name));
    Some(said.lines().filter(ours).collect::<Vec<_>>().join("\n"))
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
    let after_cloud_init = |name: &str, unit: String| match name {
        "cos-agent-watch" => unit.replace("[Service]", "After=cloud-final.service\n[Service]"),
        _ => unit,
    };
    let said = verify(after_cloud_init).unwrap();
    assert!(said.contains("cycle"), "{said}");
}

#[test]
fn a_shutdown_waits_for_the_watcher_as_long_as_it_may_take() {
    let spec = cos_agent::node::watch::WatchSpec::client();
    let seconds = |unit: &str, directive: &str| -> u64 {
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix(directive))
            .unwrap();
        line.parse().unwrap()
    };
    let watcher = unit("cos-agent-watch");
    assert!(seconds(&watcher, "TimeoutStopSec=") >= spec.shutdown_drain.as_secs() + 30 + 20);
    // Ordered after all that it needs to the end, so stopped before.
    for other in [
        "consul.service",
        "nomad.service",
        "docker.service",
        "network-online.target",
    ] {
        let ordered = watcher
            .lines()
            .any(|line| line.starts_with("After=") && line.contains(other));
        assert!(ordered, "{other}");
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
if 'docker' in sys.argv[0]:
    import os, socket
    name = 'docker.sock' if sys.argv[0].endswith('dockerd') else 'containerd.sock'
    folder = sys.argv[0].split('/opt/')[0] + ('/var/run' if name == 'docker.sock' else '/run/containerd')
    os.makedirs(folder, exist_ok=True)
    time.sleep(0.3)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(folder + '/' + name)
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
        .replace("=/run/", &format!("={}/run/", root.display()))
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
        "opt/cos/bin",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for program in [
        "consul/bin/consul",
        "nomad/bin/nomad",
        "docker/bin/dockerd",
        "docker/bin/containerd",
        "cos/bin/cos-agent",
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

fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program says its first words some moments after it was started.
fn said(root: &Path, name: &str, words: &str) {
    let log = root.join(format!("var/log/{name}.log"));
    until(words, || {
        fs::read_to_string(&log).unwrap_or_default().contains(words)
    });
}

#[test]
fn a_script_whose_program_cannot_start_says_so_at_once() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: a_script_whose_program_cannot_start_says_so_at_once needs root for runuser");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let script = script("docker", root.path());
    let program = root.path().join("opt/docker/bin/dockerd");
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    let start = Instant::now();
    // It may have been seen in its short life; then its end is.
    if run(&script, "start") == Some(0) {
        until("its end is seen", || run(&script, "status") == Some(1));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_nomad_that_has_yet_to_ask_for_signals_is_stopped_too() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: a_nomad_that_has_yet_to_ask_for_signals_is_stopped_too needs root for runuser");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let script = script("nomad", root.path());
    fs::create_dir_all(root.path().join("opt/nomad/config")).unwrap();
    fs::write(root.path().join("opt/nomad/config/x"), "").unwrap();
    let program = root.path().join("opt/nomad/bin/nomad");
    fs::write(&program, "#!/usr/bin/env python3\nimport time\ntime.sleep(300)\n").unwrap();
    assert_eq!(run(&script, "start"), Some(0));
    let start = Instant::now();
    assert_eq!(run(&script, "stop"), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(run(&script, "status"), Some(3));
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
        if name == "cos-agent-watch" {
            assert_eq!(run(&script, "start"), Some(6), "{name} has nothing to watch for");
            fs::create_dir_all(root.path().join("var/lib/cos-agent")).unwrap();
            fs::write(root.path().join("var/lib/cos-agent/node.json"), "{}").unwrap();
        }
        assert_eq!(run(&script, "start"), Some(0), "{name}");
        let opens_a_socket = name == "docker" || name == "containerd";
        assert_eq!(
            run(&script, "status"),
            Some(if opens_a_socket { 4 } else { 0 }),
            "{name}"
        );
        until("it is up", || run(&script, "status") == Some(0));
        let pid_file = root
            .path()
            .join(format!("var/run/cos-{}/pid", name.trim_start_matches("cos-")));
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
        said(root.path(), name, "started: ");
        // It ends by itself: that is another thing than being stopped.
        let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        until("it is gone", || run(&script, "status") == Some(1));
        assert_eq!(run(&script, "start"), Some(0), "{name} is started anew");
        until("it is up again", || run(&script, "status") == Some(0));
        assert_eq!(run(&script, "stop"), Some(0));
        assert_eq!(run(&script, "status"), Some(3));
        assert_eq!(run(&script, "stop"), Some(0), "stopping what is stopped is done");
    }
}
