//! Owns a machine made of a temporary folder and memory: its service manager starts units with what lies on disk,
//! as the real one does, and remembers it. Touches one temporary folder.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cos_agent::host::{Files, Invocation, Output, ProgramError, Programs};
use cos_agent::node::accounts::Accounts;
use cos_agent::node::config::ParameterName;
use cos_agent::node::health::ConsulApi;
use cos_agent::node::render::{
    CONSUL_CA, CONSUL_CERTIFICATE, CONSUL_CONFIGURATION, CONSUL_DROP_IN, CONSUL_GOSSIP, CONSUL_KEY,
    CONSUL_TOKENS, Init, Installed, NOMAD_CA, NOMAD_CERTIFICATE, NOMAD_CONFIGURATION, NOMAD_DISKS_DROP_IN,
    NOMAD_DROP_IN, NOMAD_GOSSIP, NOMAD_KEY, NOMAD_TOKENS, RECORD, Version, Versions,
};
use cos_agent::node::secrets::{FetchError, Secret, Secrets};
use cos_agent::node::services::{Activity, Condition, ServiceManager};

/// What a unit read, by path; nothing of a file that was not there.
pub(crate) type Read = BTreeMap<&'static str, Option<Vec<u8>>>;

/// What a unit is: what it runs with, if it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) enabled: bool,
    pub(crate) runs_with: Option<Read>,
}

/// What a unit reads anew when it is asked to reload.
const RELOADED: [&str; 7] = [
    CONSUL_TOKENS,
    CONSUL_CA,
    CONSUL_CERTIFICATE,
    CONSUL_KEY,
    NOMAD_CA,
    NOMAD_CERTIFICATE,
    NOMAD_KEY,
];

/// Drop-ins: read by the service manager, not by the unit.
const DEFINITIONS: [&str; 3] = [CONSUL_DROP_IN, NOMAD_DROP_IN, NOMAD_DISKS_DROP_IN];

/// Content and mode of each file, and each unit.
type State = (BTreeMap<String, (Vec<u8>, u32)>, BTreeMap<String, Unit>);

pub(crate) struct Machine {
    pub(crate) files: Files,
    pub(crate) units: RefCell<BTreeMap<String, Unit>>,
    /// Definitions as the service manager last read them.
    definitions: RefCell<Read>,
    pub(crate) log: RefCell<Vec<String>>,
    /// Units that end badly whenever they are started.
    pub(crate) broken: RefCell<Vec<&'static str>>,
    /// Units that are started again and again and never come up.
    pub(crate) restless: RefCell<Vec<&'static str>>,
    /// The last words of every unit, if they are not the usual.
    pub(crate) farewell: RefCell<Vec<String>>,
    /// Consul runs and its API does not answer.
    pub(crate) deaf: Cell<bool>,
    boots: Cell<u32>,
    folder: tempfile::TempDir,
}

impl Machine {
    /// A machine as an image leaves it: groups and units are there, nothing is configured.
    pub(crate) fn new() -> Self {
        // Thousands of files are synced here: memory does it at once.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let files = Files::new(folder.path());
        // A test may give a file to its own group only.
        let group = nix::unistd::getgid();
        let groups = format!("root:x:{group}:\nconsul:x:{group}:\nnomad:x:{group}:\n");
        files
            .write_atomic("/etc/group", groups.as_bytes(), 0o644)
            .unwrap();
        let user = nix::unistd::getuid();
        let users = [
            ("root", "/root"),
            ("consul", "/opt/consul"),
            ("nomad", "/opt/nomad"),
            ("ec2-user", "/home/ec2-user"),
        ];
        let users = users.map(|(name, home)| format!("{name}:x:{user}:{group}::{home}:/bin/sh\n"));
        files
            .write_atomic("/proc/sys/kernel/random/boot_id", b"boot-0\n", 0o444)
            .unwrap();
        files
            .write_atomic("/etc/passwd", users.concat().as_bytes(), 0o644)
            .unwrap();
        files.make_directory("/home/ec2-user", 0o700).unwrap();
        let units = ["cos-agent-watch", "consul", "containerd", "docker", "nomad"];
        let units = units.map(|name| (name.to_owned(), Unit::default()));
        Self {
            files,
            units: RefCell::new(units.into()),
            definitions: RefCell::default(),
            log: RefCell::new(Vec::new()),
            broken: RefCell::default(),
            restless: RefCell::default(),
            farewell: RefCell::default(),
            deaf: Cell::new(false),
            boots: Cell::new(0),
            folder,
        }
    }

    /// What a unit would be started with now: files from disk, definitions as they were last read.
    pub(crate) fn would_run_with(&self, unit: &str) -> Read {
        let paths: &[&'static str] = match unit {
            "consul" => &[
                CONSUL_CONFIGURATION,
                CONSUL_DROP_IN,
                CONSUL_TOKENS,
                CONSUL_CA,
                CONSUL_CERTIFICATE,
                CONSUL_KEY,
            ],
            "nomad" => &[
                NOMAD_CONFIGURATION,
                NOMAD_DROP_IN,
                NOMAD_DISKS_DROP_IN,
                NOMAD_TOKENS,
                NOMAD_CA,
                NOMAD_CERTIFICATE,
                NOMAD_KEY,
            ],
            "cos-agent-watch" => &[RECORD],
            _ => &[],
        };
        let gossip = match unit {
            "consul" => Some(CONSUL_GOSSIP),
            "nomad" => Some(NOMAD_GOSSIP),
            _ => None,
        };
        let definitions = self.definitions.borrow();
        let mut read: Read = paths
            .iter()
            .map(|path| match definitions.get(path) {
                _ if !DEFINITIONS.contains(path) => (*path, self.files.read(path).unwrap()),
                definition => (*path, definition.cloned().flatten()),
            })
            .collect();
        // The product copies the key into its keyring at its first start: later it only matters that there is one.
        if let Some(path) = gossip {
            let there = self.files.read(path).unwrap().map(|_| Vec::new());
            read.insert(path, there);
        }
        read
    }

    fn read_definitions(&self) {
        let read = |path| (path, self.files.read(path).unwrap());
        *self.definitions.borrow_mut() = DEFINITIONS.map(read).into();
    }

    /// What of this machine decides how a spec is written.
    pub(crate) fn installed(&self, versions: Versions) -> Installed {
        Installed {
            versions,
            accounts: Accounts::read(&self.files).unwrap(),
        }
    }

    /// Each running unit dies and is started again by the service manager.
    pub(crate) fn crash_units(&self) {
        for (name, unit) in self
            .units
            .borrow_mut()
            .iter_mut()
            .filter(|(_, unit)| unit.runs_with.is_some())
        {
            unit.runs_with = Some(self.would_run_with(name));
        }
    }

    /// Power goes and comes back: `/run` is empty, definitions are read, what is enabled is started.
    pub(crate) fn reboot(&self) {
        self.files.remove("/run").unwrap();
        let boot = self.boots.get() + 1;
        self.boots.set(boot);
        let id = format!("boot-{boot}\n");
        self.files
            .write_atomic("/proc/sys/kernel/random/boot_id", id.as_bytes(), 0o444)
            .unwrap();
        self.read_definitions();
        for (name, unit) in self.units.borrow_mut().iter_mut() {
            unit.runs_with = unit.enabled.then(|| self.would_run_with(name));
        }
    }

    /// Files of the machine with their modes, without those of tests, and units: all that an apply may change.
    pub(crate) fn state(&self) -> State {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = format!("/{}", path.strip_prefix(self.folder.path()).unwrap().display());
                let mode = self.files.mode(&name).unwrap().unwrap();
                files.insert(name, (std::fs::read(&path).unwrap(), mode));
            }
        }
        (files, self.units.borrow().clone())
    }

    fn act(&self, what: &str, unit: &str, act: impl FnOnce(&mut Unit)) {
        self.log.borrow_mut().push(format!("{what} {unit}"));
        act(self.units.borrow_mut().get_mut(unit).unwrap());
    }
}

impl ServiceManager for Machine {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        self.read_definitions();
        Ok(())
    }

    fn enable(&self, service: &str) -> Result<(), ProgramError> {
        self.act("enable", service, |unit| unit.enabled = true);
        Ok(())
    }

    fn disable(&self, service: &str) -> Result<(), ProgramError> {
        self.act("disable", service, |unit| unit.enabled = false);
        Ok(())
    }

    fn start(&self, service: &str) -> Result<(), ProgramError> {
        let with = self.would_run_with(service);
        // Starting what runs does nothing.
        self.act("start", service, |unit| {
            unit.runs_with.get_or_insert(with);
        });
        Ok(())
    }

    fn restart(&self, service: &str) -> Result<(), ProgramError> {
        let with = self.would_run_with(service);
        self.act("restart", service, |unit| unit.runs_with = Some(with));
        Ok(())
    }

    fn reload(&self, service: &str) -> Result<(), ProgramError> {
        let with = self.would_run_with(service);
        self.act("reload", service, |unit| {
            let running = unit.runs_with.as_mut().expect("what does not run cannot reload");
            for (path, content) in with.into_iter().filter(|(path, _)| RELOADED.contains(path)) {
                running.insert(path, content);
            }
        });
        Ok(())
    }

    fn stop(&self, service: &str) -> Result<(), ProgramError> {
        self.act("stop", service, |unit| unit.runs_with = None);
        Ok(())
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        let unit = self.units.borrow()[service].clone();
        let activity = match unit.runs_with {
            Some(_) if self.broken.borrow().contains(&service) => {
                Activity::Failed("failed, result exit-code".to_owned())
            }
            Some(_) if self.restless.borrow().contains(&service) => {
                Activity::Activating("auto-restart, result exit-code".to_owned())
            }
            Some(_) => Activity::Active,
            None => Activity::Inactive,
        };
        Ok(Condition {
            enabled: unit.enabled,
            activity,
        })
    }

    fn has_read(&self, services: &[&str]) -> bool {
        let definitions = self.definitions.borrow();
        let is_read =
            |path: &&str| definitions.get(path).cloned().flatten() == self.files.read(path).unwrap();
        services.iter().all(|service| {
            let with = self.would_run_with(service);
            with.keys().filter(|path| DEFINITIONS.contains(path)).all(is_read)
        })
    }

    fn last_words(&self, service: &str) -> Vec<String> {
        let farewell = self.farewell.borrow();
        if farewell.is_empty() {
            return vec![format!("{service} says farewell")];
        }
        farewell.clone()
    }
}

impl ConsulApi for Machine {
    fn answers(&self) -> Result<(), String> {
        let runs = self.units.borrow()["consul"].runs_with.is_some() && !self.deaf.get();
        runs.then_some(()).ok_or_else(|| "nobody listens".to_owned())
    }

    fn service_addresses(&self, _: &str, _: &str) -> Result<Vec<IpAddr>, String> {
        Ok(Vec::new())
    }
}

/// Parameter Store in memory, which counts how often it is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) parameters: BTreeMap<&'static str, String>,
    pub(crate) calls: Cell<usize>,
}

impl Secrets for Store {
    fn fetch(&self, names: &BTreeSet<ParameterName>) -> Result<BTreeMap<ParameterName, Secret>, FetchError> {
        self.calls.set(self.calls.get() + 1);
        let value = |name: &ParameterName| self.parameters.get(name.as_str()).cloned();
        let missing: BTreeSet<ParameterName> = names
            .iter()
            .filter(|name| value(name).is_none())
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(FetchError::Missing(missing));
        }
        let found = names
            .iter()
            .filter_map(|name| Some((name.clone(), Secret::new(value(name)?))));
        Ok(found.collect())
    }
}

/// Versions with nothing that starts services, as in a folder.
pub(crate) fn versions(consul: (u32, u32, u32), nomad: (u32, u32, u32)) -> Versions {
    Versions {
        consul: Version::new(consul.0, consul.1, consul.2),
        nomad: Version::new(nomad.0, nomad.1, nomad.2),
        init: Init::Unknown,
    }
}

/// Binaries that tell a version and refuse a configuration in which a given word occurs.
pub(crate) struct Binaries {
    pub(crate) consul: &'static str,
    pub(crate) nomad: &'static str,
    pub(crate) refuses: Option<&'static str>,
}

impl Binaries {
    pub(crate) const TODAY: Self = Self {
        consul: "1.21.5",
        nomad: "1.11.0",
        refuses: None,
    };
}

impl Programs for Binaries {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        let words: Vec<&str> = invocation.arguments.iter().map(String::as_str).collect();
        let answer = |status, stdout: String| {
            Ok(Output {
                status: Some(status),
                stdout,
                stderr: String::new(),
            })
        };
        let product = invocation.program.rsplit('/').next().unwrap();
        match (product, words.as_slice()) {
            ("consul", ["version"]) => answer(0, format!("Consul v{}\nRevision abc\n", self.consul)),
            ("nomad", ["version"]) => answer(0, format!("Nomad v{}\nBuildDate x\n", self.nomad)),
            ("consul", ["validate", folder]) | ("nomad", ["config", "validate", folder]) => {
                let contents = std::fs::read_dir(folder).unwrap().flatten();
                let contents: Vec<String> = contents
                    .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
                    .collect();
                let refused = self
                    .refuses
                    .is_some_and(|word| contents.iter().any(|text| text.contains(word)));
                answer(i32::from(refused), "Configuration is valid!\n".to_owned())
            }
            other => panic!("no such program: {other:?}"),
        }
    }
}
