//! Names below `.consul` on a machine that is a network namespace: a real Consul with the configuration that a node
//! gets, a VPC's resolver played by dnsmasq, and each way to resolve that needs no systemd. Needs root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::host::{Files, ProgramError, RealPrograms};
use cos_agent::node::accounts::Accounts;
use cos_agent::node::config;
use cos_agent::node::health::{LocalApis, Outcome, Probes, System, examine};
use cos_agent::node::look_ahead;
use cos_agent::node::render::{
    self, CONSUL_CONFIGURATION, DesiredState, Init, Installed, Product, RECORD, Record, Version, Versions,
};
use cos_agent::node::report::Timeline;
use cos_agent::node::secrets::Fetched;
use cos_agent::node::services::{Activity, Condition, ServiceManager};
use cos_agent::node::sources::{Document, InstanceFacts, Origin};
use nix::sched::{CloneFlags, unshare};

use crate::binaries;

/// The VPC's resolver, and what it knows.
const VPC: &str = "10.66.0.2";
const WITNESS: &str = "ec2.eu-central-1.amazonaws.com";

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// What is missing here, if anything is.
fn missing() -> Option<String> {
    if !nix::unistd::getuid().is_root() {
        return Some("root".to_owned());
    }
    ["ip", "dnsmasq", "iptables", "nft", "getent", "mount"]
        .into_iter()
        .find(|name| program(name).is_none())
        .or_else(|| binaries::at_hand(Product::Consul).is_empty().then_some("consul"))
        .map(str::to_owned)
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{words:?}: {status}");
}

/// A child that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(words: &[&str]) -> Self {
        let child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine below a folder, in a namespace of its own.
struct Node {
    files: Files,
    desired: DesiredState,
    record: Record,
    folder: tempfile::TempDir,
}

impl Node {
    /// A node that joins nobody, on a machine with these files besides.
    fn new(mode: &str, there: &[(&str, &str)]) -> Self {
        Self::with(mode, there, None)
    }

    fn with(mode: &str, there: &[(&str, &str)], manager: Option<&dyn ServiceManager>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let resolv_conf = format!("search eu-central-1.compute.internal\nnameserver {VPC}\n");
        files
            .write_atomic("/etc/resolv.conf", resolv_conf.as_bytes(), 0o644)
            .unwrap();
        for (path, text) in [
            (
                "/etc/passwd",
                "root:x:0:0::/root:/bin/sh\nconsul:x:0:0::/opt/consul:/bin/sh\n",
            ),
            ("/etc/group", "root:x:0:\nconsul:x:0:\n"),
        ]
        .iter()
        .chain(there)
        {
            files.write_atomic(path, text.as_bytes(), 0o755).unwrap();
        }
        let document = format!(
            "version: 1\nrole: consul-server\ndns: {{consul: {mode}}}\n\
             consul: {{bootstrap_expect: 1, retry_join: [192.0.2.10]}}\n"
        );
        let document = Document {
            origin: Origin::UserData,
            bytes: document.into_bytes(),
        };
        let config = config::read(&[document]).unwrap();
        let mut spec = config::resolve(&config, &InstanceFacts::sample(), None).unwrap();
        let outlook = look_ahead(&files, manager, &RealPrograms, &Timeline::new()).unwrap();
        spec.settle_dns(&outlook.resolver).unwrap();
        let (consul, _) = binaries::at_hand(Product::Consul).pop_last().unwrap();
        let installed = Installed {
            versions: Versions {
                consul,
                nomad: Version::new(1, 11, 0),
                init: Init::Unknown,
            },
            accounts: Accounts::read(&files).unwrap(),
        };
        let desired = render::render(&spec, &installed, &Fetched::placeholders(&spec)).unwrap();
        for (path, file) in &desired.files {
            if let Some(file) = file {
                files.write_atomic(path, &file.content, file.mode).unwrap();
            }
        }
        let record = serde_json::from_slice(&files.read(RECORD).unwrap().unwrap()).unwrap();
        Self {
            files,
            desired,
            record,
            folder,
        }
    }

    fn text(&self, path: &str) -> String {
        let file = self.desired.files[path].as_ref().unwrap();
        String::from_utf8(file.content.clone()).unwrap()
    }

    fn path(&self, path: &str) -> String {
        self.files.locate(path).to_string_lossy().into_owned()
    }

    fn consul(&self) -> Daemon {
        let config = self.path(
            Path::new(CONSUL_CONFIGURATION)
                .parent()
                .unwrap()
                .to_str()
                .unwrap(),
        );
        let data = self.folder.path().join("data");
        let (config, data) = (
            format!("-config-dir={config}"),
            format!("-data-dir={}", data.display()),
        );
        let (_, binary) = binaries::at_hand(Product::Consul).pop_last().unwrap();
        Daemon::start(&[binary.to_str().unwrap(), "agent", &config, &data])
    }

    /// Lets this machine's programs see its resolver file.
    fn enter(&self) {
        run(&[
            "mount",
            "--bind",
            &self.path("/etc/resolv.conf"),
            "/etc/resolv.conf",
        ]);
    }

    /// The check as `health` makes it.
    fn dns(&self) -> Outcome {
        let apis = LocalApis::new(
            "http://127.0.0.1:8500",
            "http://127.0.0.1:1",
            "/nonexistent".into(),
        );
        let probes = Probes {
            apis: &apis,
            files: &self.files,
            programs: &RealPrograms,
            system: System::Configured,
            registries: None,
        };
        let outcomes = examine(&self.record, &probes);
        outcomes
            .into_iter()
            .find(|outcome| outcome.check.to_string() == "dns")
            .unwrap()
    }

    fn proven(&self) -> String {
        let start = Instant::now();
        loop {
            let outcome = self.dns();
            if outcome.healthy {
                return outcome.reason;
            }
            assert!(start.elapsed() < Duration::from_mins(1), "{outcome:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Whether the C library finds a name, and how long it took.
fn library(name: &str) -> (bool, Duration) {
    let start = Instant::now();
    let found = Command::new("getent").args(["ahostsv4", name]).output().unwrap();
    (found.status.success(), start.elapsed())
}

/// Does it in a thread that has a network and mounts of its own; they go with it.
fn on_a_machine(work: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        run(&["mount", "--make-rprivate", "/"]);
        run(&["ip", "link", "set", "lo", "up"]);
        for address in [VPC, "192.0.2.10"] {
            run(&["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        let vpc = Daemon::start(&[
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
            &format!("--listen-address={VPC}"),
            &format!("--address=/{WITNESS}/10.66.0.9"),
            "--address=/#/",
        ]);
        work();
        vpc.end();
    })
    .join()
    .unwrap();
}

/// What holds whichever way names resolve, with Consul and without.
fn both_kinds_resolve(node: &Node) {
    node.enter();
    let consul = node.consul();
    let proof = node.proven();
    assert_eq!(
        proof,
        format!("consul.service.consul has 1 addresses, {WITNESS} resolves")
    );
    for (name, there) in [
        ("consul.service.consul", true),
        (WITNESS, true),
        ("no-such-name.service.consul", false),
        ("no-such-name.internal", false),
    ] {
        let (found, took) = library(name);
        assert_eq!(found, there, "{name}");
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");
    }
    // Consul dies: its names go with it, all others stay.
    consul.end();
    assert!(!library("consul.service.consul").0);
    let (found, took) = library(WITNESS);
    assert!(
        found && took < Duration::from_secs(2),
        "without Consul {WITNESS}: {found}, {took:?}"
    );
    let outcome = node.dns();
    assert!(!outcome.healthy && outcome.hint.is_some(), "{outcome:?}");
    run(&["umount", "/etc/resolv.conf"]);
}

/// Runs the lines of a unit as systemd does: without a shell, and a `-` in front forgives.
fn exec(unit: &str, directive: &str) {
    for line in unit.lines().filter_map(|line| line.strip_prefix(directive)) {
        let words: Vec<&str> = line.trim_start_matches('-').split(' ').collect();
        let status = Command::new(words[0])
            .args(&words[1..])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success() || line.starts_with('-'), "{line}: {status}");
    }
}

fn skipped(name: &str) -> bool {
    let Some(missing) = missing() else {
        return false;
    };
    assert!(std::env::var_os("CI").is_none(), "CI must have {missing}");
    say(&format!("SKIPPED: {name} needs {missing}"));
    true
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

const SYSTEMD: (&str, &str) = ("/run/systemd/system/x", "");

#[test]
fn a_redirect_by_iptables() {
    if skipped("a_redirect_by_iptables") {
        return;
    }
    on_a_machine(|| {
        let iptables = program("iptables").unwrap();
        let node = Node::new("redirect", &[SYSTEMD, (iptables.to_str().unwrap(), "")]);
        let unit = node.text("/etc/systemd/system/cos-dns.service");
        // Twice: a restart changes nothing.
        exec(&unit, "ExecStart=");
        exec(&unit, "ExecStart=");
        let rules = || {
            let listed = Command::new("iptables")
                .args(["-w", "-t", "nat", "-S"])
                .output()
                .unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        assert_eq!(rules().matches("-j COS-DNS").count(), 1, "{}", rules());
        both_kinds_resolve(&node);
        exec(&unit, "ExecStop=");
        assert!(!rules().contains("COS-DNS"), "{}", rules());
    });
}

#[test]
fn a_redirect_by_nft() {
    if skipped("a_redirect_by_nft") {
        return;
    }
    on_a_machine(|| {
        let nft = program("nft").unwrap();
        let node = Node::new("automatic", &[SYSTEMD, (nft.to_str().unwrap(), "")]);
        // The unit names the machine's file; the rules lie below a folder here.
        let rules = node.path("/etc/cos/dns.nft");
        let unit = node
            .text("/etc/systemd/system/cos-dns.service")
            .replace("/etc/cos/dns.nft", &rules);
        exec(&unit, "ExecStart=");
        exec(&unit, "ExecStart=");
        both_kinds_resolve(&node);
        exec(&unit, "ExecStop=");
        let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        assert!(!String::from_utf8(listed.stdout).unwrap().contains("cos_dns"));
    });
}

#[test]
fn a_redirect_by_a_system_v_script() {
    if skipped("a_redirect_by_a_system_v_script") {
        return;
    }
    on_a_machine(|| {
        let iptables = program("iptables").unwrap();
        let there = [("/sbin/chkconfig", ""), (iptables.to_str().unwrap(), "")];
        let node = Node::new("automatic", &there);
        let script = node.path("/etc/init.d/cos-dns");
        let act = |action: &str| {
            let status = Command::new("sh")
                .args([&script, action])
                .stdout(Stdio::null())
                .status()
                .unwrap();
            status.code()
        };
        assert_eq!(act("status"), Some(3));
        assert_eq!([act("start"), act("restart"), act("status")], [Some(0); 3]);
        both_kinds_resolve(&node);
        assert_eq!([act("stop"), act("stop")], [Some(0); 2]);
        assert_eq!(act("status"), Some(3));
        assert_eq!(act("nonsense"), Some(2));
    });
}

#[test]
fn dnsmasq_of_the_base() {
    if skipped("dnsmasq_of_the_base") {
        return;
    }
    on_a_machine(|| {
        let there = [
            SYSTEMD,
            ("/etc/dnsmasq.conf", "conf-dir=/etc/dnsmasq.d,.rpmnew\n"),
        ];
        let node = Node::with("automatic", &there, Some(&DnsmasqRuns));
        let dnsmasq = Daemon::start(&[
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--bind-interfaces",
            "--listen-address=127.0.0.1",
            &format!("--conf-dir={}", node.path("/etc/dnsmasq.d")),
            &format!("--resolv-file={}", node.path("/etc/resolv.conf")),
        ]);
        both_kinds_resolve(&node);
        dnsmasq.end();
    });
}

/// A service manager that says of dnsmasq that it runs, and knows nothing else.
struct DnsmasqRuns;

impl ServiceManager for DnsmasqRuns {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        Ok(())
    }

    fn enable(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn disable(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn start(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn reload(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn restart(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn stop(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        let runs = service == "dnsmasq";
        let activity = if runs { Activity::Active } else { Activity::Absent };
        Ok(Condition {
            enabled: runs,
            activity,
        })
    }

    fn last_words(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}
