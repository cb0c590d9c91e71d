//! Owns a machine made of a temporary folder and memory: its service manager starts units with what lies on disk,
//! as the real one does, and remembers it. Touches one temporary folder.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use cos_agent::host::{Files, Invocation, Output, ProgramError, Programs};
use cos_agent::node::health::ConsulApi;
use cos_agent::node::render::{CONSUL_CONFIGURATION, NOMAD_CONFIGURATION, NOMAD_DROP_IN};
use cos_agent::node::services::{Activity, Condition, ServiceManager};

/// What a unit is: what it runs with, if it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) enabled: bool,
    pub(crate) runs_with: Option<Vec<Option<Vec<u8>>>>,
}

/// Content and mode of each file, and each unit.
type State = (BTreeMap<String, (Vec<u8>, u32)>, BTreeMap<String, Unit>);

pub(crate) struct Machine {
    pub(crate) files: Files,
    pub(crate) units: RefCell<BTreeMap<String, Unit>>,
    /// Definitions as the service manager last read them.
    definitions: RefCell<Option<Vec<u8>>>,
    pub(crate) log: RefCell<Vec<String>>,
    /// Units that end badly whenever they are started.
    pub(crate) broken: RefCell<Vec<&'static str>>,
    /// Units that are started again and again and never come up.
    pub(crate) restless: RefCell<Vec<&'static str>>,
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
        let users = format!("root:x:{user}:{group}::/root:/bin/sh\n");
        files
            .write_atomic("/proc/sys/kernel/random/boot_id", b"boot-0\n", 0o444)
            .unwrap();
        files
            .write_atomic("/etc/passwd", users.as_bytes(), 0o644)
            .unwrap();
        let units =
            ["consul", "containerd", "docker", "nomad"].map(|name| (name.to_owned(), Unit::default()));
        Self {
            files,
            units: RefCell::new(units.into()),
            definitions: RefCell::new(None),
            log: RefCell::new(Vec::new()),
            broken: RefCell::default(),
            restless: RefCell::default(),
            deaf: Cell::new(false),
            boots: Cell::new(0),
            folder,
        }
    }

    /// What a unit would be started with now: files from disk, definitions as they were last read.
    pub(crate) fn would_run_with(&self, unit: &str) -> Vec<Option<Vec<u8>>> {
        let read = |path| self.files.read(path).unwrap();
        match unit {
            "consul" => vec![read(CONSUL_CONFIGURATION)],
            "nomad" => vec![read(NOMAD_CONFIGURATION), self.definitions.borrow().clone()],
            _ => Vec::new(),
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
        *self.definitions.borrow_mut() = self.files.read(NOMAD_DROP_IN).unwrap();
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
        *self.definitions.borrow_mut() = self.files.read(NOMAD_DROP_IN).unwrap();
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

    fn last_words(&self, service: &str) -> Vec<String> {
        vec![format!("{service} says farewell")]
    }
}

impl ConsulApi for Machine {
    fn answers(&self) -> Result<(), String> {
        let runs = self.units.borrow()["consul"].runs_with.is_some() && !self.deaf.get();
        runs.then_some(()).ok_or_else(|| "nobody listens".to_owned())
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
                answer(i32::from(refused), format!("{} files read", contents.len()))
            }
            other => panic!("no such program: {other:?}"),
        }
    }
}
