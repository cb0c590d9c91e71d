//! Owns what a node should be, as data: files, directories and units, with what each unit runs with.
//! Touches nothing. No content of a file shows in `Debug`: some of them hold secrets.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// A service that COS may run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The watcher, before all that it may have to see out again.
    #[serde(rename = "cos-agent-watch")]
    Watch,
    /// Consul, on every node.
    Consul,
    /// containerd, below Docker. systemd would start it with Docker; System V scripts know no such bond.
    Containerd,
    /// Docker, where jobs run.
    Docker,
    /// The redirect of port 53 of the loopback interface to Consul.
    Dns,
    /// dnsmasq of the base, where it resolves names below `.consul`.
    Dnsmasq,
    /// systemd-resolved of the base, where it does.
    #[serde(rename = "systemd-resolved")]
    Resolved,
    /// Nomad, server or client.
    Nomad,
}

impl Unit {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 8] = [
        Self::Watch,
        Self::Consul,
        Self::Containerd,
        Self::Docker,
        Self::Dns,
        Self::Dnsmasq,
        Self::Resolved,
        Self::Nomad,
    ];

    /// Whether the base brings it, and may run it before anything is configured.
    pub const fn of_the_base(self) -> bool {
        matches!(self, Self::Dnsmasq | Self::Resolved)
    }

    /// The service's name, without a suffix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watch => "cos-agent-watch",
            Self::Consul => "consul",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Dns => "cos-dns",
            Self::Dnsmasq => "dnsmasq",
            Self::Resolved => "systemd-resolved",
            Self::Nomad => "nomad",
        }
    }
}

/// Content, owner and permissions of one file.
#[derive(Clone, PartialEq, Eq)]
pub struct DesiredFile {
    /// What is in it.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Who owns it, by name; must exist on the machine.
    pub user: String,
    /// Group by name, which must exist on the machine.
    pub group: String,
}

impl fmt::Debug for DesiredFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DesiredFile")
            .field("content", &Content(&self.content))
            .field("mode", &format_args!("{:04o}", self.mode))
            .field("user", &self.user)
            .field("group", &self.group)
            .finish()
    }
}

/// Shows bytes by length and digest only.
pub(crate) struct Content<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Content<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes, sha256 {}", self.0.len(), digest(self.0))
    }
}

/// Owner and permissions of one directory, and of what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredDirectory {
    /// Permission bits.
    pub mode: u32,
    /// Who owns it, by name; must exist on the machine.
    pub user: String,
    /// Group by name, which must exist on the machine.
    pub group: String,
    /// The unit whose state is in it. Its content goes to the same owner when the directory does, and meanwhile
    /// the unit does not run: it would go on writing as the user that it was.
    pub state_of: Option<Unit>,
}

/// What should become of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DesiredUnit {
    /// Enabled and running.
    Running(Option<RunsWith>),
    /// Neither enabled nor running.
    Stopped,
}

/// What a unit must have been started with, where COS writes what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsWith {
    /// Digest over its binary's version, the content of the files that it reads once when it starts, and the mere
    /// presence of those that count at its very first start; lower-case hexadecimal SHA-256.
    pub digest: String,
    /// Files of that digest by content, keys of [`DesiredState::files`].
    pub files: Vec<String>,
    /// Files of that digest by their mere presence, keys of [`DesiredState::files`].
    pub once: Vec<String>,
    /// What it reads again when it is asked to reload, if it can do that at all.
    pub reloads: Option<Reloads>,
}

impl RunsWith {
    /// Every file that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &String> {
        let again = self.reloads.iter().flat_map(|reloads| &reloads.files);
        self.files.iter().chain(&self.once).chain(again)
    }
}

/// Files that a running unit reads again when it is asked to, also where none of them is there at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloads {
    /// Digest over them.
    pub digest: String,
    /// The files, keys of [`DesiredState::files`].
    pub files: Vec<String>,
}

/// What a node should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Directories by path, made before any file; parents come first.
    pub directories: BTreeMap<String, DesiredDirectory>,
    /// Files by path; none for a file that must not be there.
    pub files: BTreeMap<String, Option<DesiredFile>>,
    /// Symbolic links: path and target.
    pub links: BTreeMap<String, String>,
    /// Units that COS decides about on this role; the others stay as they are.
    pub units: BTreeMap<Unit, DesiredUnit>,
}

impl DesiredState {
    /// Takes a unit out, with all that it reads and the folder of its state: they stay as they are.
    pub(crate) fn leave_alone(&mut self, unit: Unit) {
        if let Some(DesiredUnit::Running(Some(with))) = self.units.remove(&unit) {
            for path in with.reads() {
                self.files.remove(path);
            }
        }
        self.directories
            .retain(|_, directory| directory.state_of != Some(unit));
    }
}

/// When a unit reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// When it starts.
    AtStart,
    /// When it starts, and again when it is asked to reload.
    AtReload,
    /// At its very first start only: later it has its own copy, which a restart does not change.
    Once,
}

/// A unit runs with its files and its binary: another version is another thing to run.
pub(super) fn running(
    version: impl fmt::Display,
    files: &BTreeMap<String, Option<DesiredFile>>,
    reads: &[(&str, Reads)],
) -> DesiredUnit {
    let of = |when: Reads| {
        let read = reads.iter().filter(move |(_, reads)| *reads == when);
        read.filter_map(|(path, _)| Some((*path, files.get(*path)?.as_ref())))
    };
    let mut start = version.to_string();
    for (_, file) in of(Reads::AtStart) {
        start.extend(file.map(|file| digest(&file.content)));
    }
    for (path, _) in of(Reads::Once).filter(|(_, file)| file.is_some()) {
        start.push_str(path);
    }
    let reload: String = of(Reads::AtReload)
        .filter_map(|(path, file)| Some(format!("{path} {}\n", digest(&file?.content))))
        .collect();
    let paths = |when: Reads| -> Vec<String> { of(when).map(|(path, _)| path.to_owned()).collect() };
    let reloads = paths(Reads::AtReload);
    DesiredUnit::Running(Some(RunsWith {
        digest: digest(start.as_bytes()),
        files: paths(Reads::AtStart),
        once: paths(Reads::Once),
        reloads: (!reloads.is_empty()).then(|| Reloads {
            digest: digest(reload.as_bytes()),
            files: reloads,
        }),
    }))
}

/// Readable by root and by the service's own group: it may hold secrets.
pub(super) fn private(content: impl Into<Vec<u8>>, group: &str) -> DesiredFile {
    DesiredFile {
        content: content.into(),
        mode: 0o640,
        user: "root".to_owned(),
        group: group.to_owned(),
    }
}

/// Readable by everyone.
pub(super) fn public(content: impl Into<Vec<u8>>) -> DesiredFile {
    DesiredFile {
        content: content.into(),
        mode: 0o644,
        user: "root".to_owned(),
        group: "root".to_owned(),
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn digest(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
