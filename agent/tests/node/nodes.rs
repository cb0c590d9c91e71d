//! Owns nodes that are network namespaces of their own, joined by a cable, in which the real agents run with the files
//! that `apply` wrote. Touches namespaces, which end with the test whatever becomes of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::host::{Files, ProgramError, RealPrograms};
use cos_agent::node::config;
use cos_agent::node::health::{CONSUL_URL, LocalConsul};
use cos_agent::node::render::{CONSUL_FOLDER, NOMAD_FOLDER, Product};
use cos_agent::node::report::Timeline;
use cos_agent::node::services::{Activity, Condition, ServiceManager};
use cos_agent::node::sources::{Document, InstanceFacts, Origin};
use cos_agent::node::{Applied, Environment, Mode, apply_spec};

use crate::binaries;
use crate::machine::Store;

/// Longest time until something of a cluster has come about.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tries until it works, and says at the end why it did not.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(reason) if start.elapsed() > PATIENCE => panic!("{what}: {reason}"),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A machine: a folder with its files, and the namespaces in which its programs run.
pub(crate) struct Node {
    pub(crate) address: Ipv4Addr,
    folder: tempfile::TempDir,
    holder: Child,
    /// What the first process of the namespaces reads: when it is closed, also because the test died, that process
    /// ends, and everything in the namespaces with it.
    _life: ChildStdin,
    /// That process, as this machine numbers it.
    first: u32,
    services: RefCell<BTreeMap<String, Child>>,
}

impl Node {
    /// A machine with the real binaries, and nothing running.
    pub(crate) fn new(address: Ipv4Addr, binaries: &[(Product, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let life = holder.stdin.take().unwrap();
        let first = eventually("the namespaces", || {
            child_of(holder.id()).ok_or("no process yet".to_owned())
        });
        let node = Self {
            address,
            folder,
            holder,
            _life: life,
            first,
            services: RefCell::default(),
        };
        let files = node.files();
        for (product, binary) in binaries {
            binaries::install(*product, binary, &files);
        }
        files
            .write_atomic(
                "/etc/passwd",
                b"root:x:0:0::/root:/bin/sh\nconsul:x:0:0::/:/bin/sh\nnomad:x:0:0::/:/bin/sh\n",
                0o644,
            )
            .unwrap();
        files
            .write_atomic("/etc/group", b"root:x:0:\nconsul:x:0:\nnomad:x:0:\n", 0o644)
            .unwrap();
        for folder in [CONSUL_FOLDER, NOMAD_FOLDER, "/opt/cni/bin", "/opt/cni/config"] {
            files.make_directory(folder, 0o750).unwrap();
        }
        let opt = files.locate("/opt").to_string_lossy().into_owned();
        node.run(&["mount", "--bind", &opt, "/opt"]);
        // Where Nomad sees no control groups it makes none, and leaves none behind on this machine.
        node.run(&["umount", "--recursive", "--lazy", "/sys/fs/cgroup"]);
        node.run(&["ip", "link", "set", "lo", "up"]);
        node
    }

    /// Lays a cable between two machines.
    pub(crate) fn connect(&self, other: &Self) {
        // The kernel counts processes as the caller sees them: only the network is entered.
        let (own, other_number) = (self.first.to_string(), other.first.to_string());
        let laid = Command::new("nsenter")
            .args([
                "--target", &own, "--net", "ip", "link", "add", "eth0", "type", "veth",
            ])
            .args(["peer", "name", "eth0", "netns", &other_number])
            .output()
            .unwrap();
        assert!(laid.status.success(), "{}", String::from_utf8_lossy(&laid.stderr));
        for node in [self, other] {
            let address = format!("{}/24", node.address);
            node.run(&["ip", "address", "add", &address, "dev", "eth0"]);
            node.run(&["ip", "link", "set", "eth0", "up"]);
            // Nomad looks for its network where the way out is, and reads that only with a gateway; there is none.
            node.run(&["ip", "route", "add", "default", "via", "192.0.2.1"]);
        }
    }

    pub(crate) fn files(&self) -> Files {
        Files::new(self.folder.path())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.first.to_string(),
            "--net",
            "--mount",
            "--pid",
            "--",
        ]);
        // Nothing of this machine's environment may decide, least of all proxies and AWS_CA_BUNDLE.
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) {
        let output = self.enter().args(words).output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What a program on this machine says; its environment holds `variables`.
    pub(crate) fn ask(&self, words: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
        let output = self
            .enter()
            .envs(variables.iter().copied())
            .args(words)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!(
            "{words:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        ))
    }

    /// Does something with the network of this machine.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.first)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `cos-agent apply`, but for the service manager.
    pub(crate) fn apply(&self, name: &str, document: &str, secrets: &Store) -> Applied {
        let document = Document {
            origin: Origin::UserData,
            bytes: document.into(),
        };
        let facts = InstanceFacts {
            instance_id: name.to_owned(),
            private_ipv4: self.address,
            ..InstanceFacts::sample()
        };
        let config = config::read(&[document]).unwrap_or_else(|faults| panic!("{faults:?}"));
        let spec = config::resolve(&config, &facts, None).unwrap();
        let (files, store) = (self.files(), secrets.parameters.clone());
        // Only what may go to another thread goes there; that one lives in the network of the node.
        let (first, folder) = (self.first, self.folder.path().to_owned());
        let services = std::mem::take(&mut *self.services.borrow_mut());
        let (applied, services) = self.within(move || {
            let manager = Processes {
                first,
                folder,
                services: RefCell::new(services),
            };
            let secrets = Store {
                parameters: store,
                ..Store::default()
            };
            let environment = Environment {
                files: &files,
                programs: &RealPrograms,
                manager: Some(&manager),
                consul: &LocalConsul::new(CONSUL_URL),
                secrets: &secrets,
                deadline: PATIENCE,
                timeline: &Timeline::new(),
                outlook: None,
                neighbours: None,
            };
            let applied = apply_spec(&spec, &environment, Mode::Execute, |_| {});
            (applied, manager.services.into_inner())
        });
        *self.services.borrow_mut() = services;
        applied.unwrap_or_else(|error| panic!("{}\n{}", cos_agent::error::chain(&error), self.logs()))
    }

    /// The last that the agents said.
    pub(crate) fn logs(&self) -> String {
        let tail = |name: &str| {
            let log = fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(40).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("{}\n{}", tail("consul"), tail("nomad"))
    }

    /// All that the agents said.
    pub(crate) fn all_logs(&self) -> String {
        let log = |name: &str| {
            fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
        };
        log("consul") + &log("nomad")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let first = nix::unistd::Pid::from_raw(i32::try_from(self.first).unwrap());
        let _ = nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL);
        for child in self.services.borrow_mut().values_mut() {
            let _ = child.wait();
        }
        let _ = self.holder.wait();
    }
}

fn child_of(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|number| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // After the name, which may hold anything, come state and parent.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let of_parent = fields.nth(1).and_then(|field| field.parse().ok()) == Some(parent);
        let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        of_parent && name.trim() == "cat"
    })
}

/// A service manager that starts what the units of the image start, in the namespaces of a node. There is no Docker.
struct Processes {
    first: u32,
    folder: PathBuf,
    services: RefCell<BTreeMap<String, Child>>,
}

impl Processes {
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.first.to_string(),
            "--net",
            "--mount",
            "--pid",
            "--",
        ]);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root");
        command.stdin(Stdio::null());
        command
    }

    fn launch(&self, service: &str) -> io::Result<()> {
        let unit = format!("{}/../systemd/{service}.service", env!("CARGO_MANIFEST_DIR"));
        let unit = fs::read_to_string(unit)?;
        let command = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .unwrap();
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.folder.join(format!("{service}.log")))?;
        // The number of the process inside is what a signal needs.
        let script = format!("echo $$ >/opt/{service}.pid; exec {command}");
        let child = self
            .enter()
            .args(["sh", "-c", &script])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.services.borrow_mut().insert(service.to_owned(), child);
        Ok(())
    }

    fn signal(&self, service: &str, signal: &str) {
        let script = format!("kill -{signal} $(cat /opt/{service}.pid)");
        let status = self.enter().args(["sh", "-c", &script]).status().unwrap();
        assert!(status.success(), "{service} could not be sent {signal}");
    }
}

/// Nobody is watched here.
const WATCHER: &str = "cos-agent-watch";

impl ServiceManager for Processes {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        Ok(())
    }

    fn enable(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn disable(&self, _: &str) -> Result<(), ProgramError> {
        Ok(())
    }

    fn start(&self, service: &str) -> Result<(), ProgramError> {
        if matches!(service, "consul" | "nomad") {
            self.launch(service).unwrap();
        }
        Ok(())
    }

    fn restart(&self, service: &str) -> Result<(), ProgramError> {
        self.stop(service)?;
        self.start(service)
    }

    fn reload(&self, service: &str) -> Result<(), ProgramError> {
        self.signal(service, "HUP");
        Ok(())
    }

    fn stop(&self, service: &str) -> Result<(), ProgramError> {
        self.signal(service, "INT");
        if let Some(mut child) = self.services.borrow_mut().remove(service) {
            child.wait().unwrap();
        }
        Ok(())
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        let mut services = self.services.borrow_mut();
        let activity = match services.get_mut(service) {
            Some(child) => match child.try_wait().unwrap() {
                None => Activity::Active,
                Some(status) => Activity::Failed(status.to_string()),
            },
            None if matches!(service, "consul" | "nomad" | WATCHER) => Activity::Inactive,
            None => Activity::Active,
        };
        Ok(Condition {
            enabled: service != WATCHER,
            activity,
        })
    }

    fn last_words(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// Whether this machine can hold nodes; says loudly why not, and fails in CI.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so, loudly")]
pub(crate) fn possible(test: &str) -> bool {
    let tools = ["unshare", "nsenter", "ip", "mount", "umount"];
    let absent = |tool: &&&str| {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
        !found
    };
    let reason = if nix::unistd::Uid::effective().is_root() {
        tools.iter().find(absent).map(|tool| (*tool).to_owned())
    } else {
        Some("root".to_owned())
    };
    if let Some(needed) = reason {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must be able to run {test}, which needs {needed}"
        );
        eprintln!("SKIPPED: {test} needs {needed}");
        return false;
    }
    true
}
