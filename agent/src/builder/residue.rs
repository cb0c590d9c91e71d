//! Owns the list of what a machine leaves behind that no other machine may inherit, and its removal.
//! Touches files below the root; never one that the bundle installed.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use crate::bundle::BundleManifest;
use crate::host::{FileError, Files};

/// Residue of one kind: everything that matches a pattern goes. `*` stands for any part of one name.
pub(crate) struct Residue {
    /// Name, in kebab case; the boot test's check is `residue:NAME`.
    pub(crate) name: &'static str,
    /// Absolute paths with `*`.
    pub(crate) patterns: &'static [&'static str],
}

/// What goes as a whole. Logs are cut, not removed: see [`LOGS`].
/// Behaviour as the EKS image's cleanup has it, and what Amazon's SSM agent, Docker and systemd add.
pub(crate) const RESIDUE: &[Residue] = &[
    Residue {
        name: "ssh-host-keys",
        patterns: &["/etc/ssh/ssh_host_*"],
    },
    Residue {
        name: "ssh-users",
        patterns: &[
            "/root/.ssh/authorized_keys*",
            "/root/.ssh/known_hosts*",
            "/home/*/.ssh/authorized_keys*",
            "/home/*/.ssh/known_hosts*",
        ],
    },
    Residue {
        name: "cloud-init",
        patterns: &[
            "/var/lib/cloud/instance",
            "/var/lib/cloud/instances/*",
            "/var/lib/cloud/data/*",
            "/var/lib/cloud/sem/*",
            "/var/lib/cloud/seed/*",
        ],
    },
    Residue {
        name: "ssm-agent",
        patterns: &[
            "/var/lib/amazon/ssm/i-*",
            "/var/lib/amazon/ssm/mi-*",
            "/var/lib/amazon/ssm/credentials",
            "/var/lib/amazon/ssm/ipc/*",
            "/var/lib/amazon/ssm/runtimeconfig/*",
            "/var/lib/amazon/ssm/Vault/*",
        ],
    },
    Residue {
        name: "journal",
        patterns: &["/var/log/journal/*"],
    },
    Residue {
        name: "dhcp-leases",
        patterns: &[
            "/var/lib/dhclient/*",
            "/var/lib/dhcp/*",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/NetworkManager/secret_key",
        ],
    },
    // A Docker engine id or key in an image would give every node the same one.
    Residue {
        name: "docker-identity",
        patterns: &["/etc/docker/key.json", "/var/lib/docker/engine-id"],
    },
    Residue {
        name: "package-caches",
        patterns: &[
            "/var/cache/dnf/*",
            "/var/cache/yum/*",
            "/var/lib/apt/lists/*",
            "/var/cache/apt/archives/*.deb",
            "/var/cache/apt/archives/partial/*",
            "/var/cache/apt/*.bin",
        ],
    },
    // systemd writes a new seed when the builder shuts down; that one is mixed in, never credited as entropy.
    Residue {
        name: "random-seed",
        patterns: &[
            "/var/lib/systemd/random-seed",
            "/var/lib/systemd/credential.secret",
            "/var/lib/urandom/random-seed",
            "/var/lib/random-seed",
        ],
    },
    Residue {
        name: "temporary-files",
        patterns: &["/tmp/*", "/var/tmp/*"],
    },
    Residue {
        name: "histories",
        patterns: &[
            "/root/.*_history",
            "/root/.lesshst",
            "/root/.viminfo",
            "/home/*/.*_history",
            "/home/*/.lesshst",
            "/home/*/.viminfo",
            "/var/db/sudo/lectured/*",
            "/var/lib/sudo/lectured/*",
        ],
    },
    Residue {
        name: "hostname",
        patterns: &["/etc/hostname"],
    },
    Residue {
        name: "udev-network-names",
        patterns: &["/etc/udev/rules.d/70-persistent-net.rules"],
    },
];

/// Where logs are: cut in place, so that programs which have them open go on; rotated ones are removed.
pub(crate) const LOGS: &str = "/var/log";

/// Paths that stay, whatever a pattern says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    paths: BTreeSet<String>,
    /// A name; every path that has it as a part stays.
    part: Option<String>,
}

impl Kept {
    /// Everything that the bundle installed.
    pub(crate) fn bundle(manifest: &BundleManifest) -> Self {
        let directories = manifest.directories.iter().map(|directory| &directory.path);
        let files = manifest.files.iter().map(|file| &file.path);
        let links = manifest.links.iter().map(|link| &link.path);
        Self {
            paths: directories.chain(files).chain(links).cloned().collect(),
            part: None,
        }
    }

    /// The same, and every path with this name as one of its parts.
    pub(crate) fn and_part(mut self, part: impl Into<String>) -> Self {
        self.part = Some(part.into());
        self
    }

    fn keeps(&self, path: &str) -> bool {
        self.paths.contains(path)
            || self
                .part
                .as_ref()
                .is_some_and(|part| path.split('/').any(|name| name == part))
    }

    /// Whether something below the path stays, so that it cannot go as a whole.
    fn keeps_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.part.is_some()
            || self
                .paths
                .range(below.clone()..)
                .next()
                .is_some_and(|kept| kept.starts_with(&below))
    }
}

/// Paths that match the pattern and exist, sorted.
pub(crate) fn expand(files: &Files, pattern: &str) -> Result<Vec<String>, FileError> {
    let mut paths = vec![String::new()];
    for part in pattern.split('/').skip(1) {
        let mut longer = Vec::new();
        for path in paths {
            if part.contains('*') {
                let names = files.entries(if path.is_empty() { "/" } else { &path })?;
                longer.extend(
                    names
                        .iter()
                        .filter(|name| matches(part, name))
                        .map(|name| format!("{path}/{name}")),
                );
            } else {
                longer.push(format!("{path}/{part}"));
            }
        }
        paths = longer;
    }
    paths.retain(|path| matches!(files.mode(path), Ok(Some(_))));
    Ok(paths)
}

/// Whether a name matches a pattern in which `*` stands for any characters, or none.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

/// Removes residue and counts it; goes on after a failure and keeps its reason.
pub(crate) struct Sweeper<'a> {
    pub(crate) files: &'a Files,
    pub(crate) removed: usize,
    pub(crate) failed: Vec<FileError>,
}

impl<'a> Sweeper<'a> {
    pub(crate) fn new(files: &'a Files) -> Self {
        Self {
            files,
            removed: 0,
            failed: Vec::new(),
        }
    }

    /// Removes everything that matches, but for what is kept.
    pub(crate) fn sweep(&mut self, pattern: &str, kept: &Kept) {
        match expand(self.files, pattern) {
            Ok(paths) => paths.iter().for_each(|path| self.remove(path, kept)),
            Err(error) => self.failed.push(error),
        }
    }

    fn remove(&mut self, path: &str, kept: &Kept) {
        if kept.keeps(path) {
            return;
        }
        if !kept.keeps_below(path) || !self.is_directory(path) {
            let removed = self.files.remove(path);
            self.count(removed);
            return;
        }
        // Something inside stays: the folder stays too, for those who have it open.
        match self.files.entries(path) {
            Ok(names) => names
                .iter()
                .for_each(|name| self.remove(&format!("{path}/{name}"), kept)),
            Err(error) => self.failed.push(error),
        }
    }

    /// Cuts every log below a folder to nothing, and removes the rotated ones.
    pub(crate) fn cut_logs(&mut self, directory: &str, kept: &Kept) {
        for name in self.files.entries(directory).unwrap_or_default() {
            let path = format!("{directory}/{name}");
            if kept.keeps(&path) || path == "/var/log/journal" {
                continue;
            }
            match self.files.link_target(&path) {
                Ok(Some(_)) => {}
                _ if self.is_directory(&path) => self.cut_logs(&path, kept),
                _ if is_rotated(&name) => {
                    let removed = self.files.remove(&path);
                    self.count(removed);
                }
                _ if self.is_log(&path) => {
                    let cut = self.files.truncate(&path);
                    self.count(cut);
                }
                _ => {}
            }
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.files.locate(path)).is_ok_and(|metadata| metadata.is_dir())
    }

    fn is_log(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.files.locate(path))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    }

    fn count(&mut self, done: Result<(), FileError>) {
        match done {
            Ok(()) => self.removed += 1,
            Err(error) => self.failed.push(error),
        }
    }
}

/// Names that logrotate gives to what it has put aside: `messages.1`, `secure-20260101`, `dmesg.old`, `x.gz`.
fn is_rotated(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ends = |end: &str| name.strip_suffix(end).is_some_and(|stem| !stem.is_empty());
    [".gz", ".xz", ".bz2", ".zst", ".old"].into_iter().any(ends)
        || name.rsplit_once('.').is_some_and(|(_, end)| digits(end))
        || name
            .rsplit_once('-')
            .is_some_and(|(_, end)| end.len() == 8 && digits(end))
}

/// What is there since before `sealed_at` (seconds since 1970): the inode changed last before that moment,
/// which no copy of the volume's blocks and no later program can fake. `kept` says what seal had to leave.
pub(crate) fn survivors(
    files: &Files,
    residue: &Residue,
    sealed_at: u64,
    kept: &[String],
) -> Result<Vec<String>, FileError> {
    let mut found = Vec::new();
    for pattern in residue.patterns {
        found.extend(expand(files, pattern)?);
    }
    found.retain(|path| !kept.contains(path) && is_older(files, path, sealed_at));
    Ok(found)
}

/// Logs with content that nobody touched since `sealed_at`.
pub(crate) fn surviving_logs(files: &Files, directory: &str, sealed_at: u64) -> Vec<String> {
    let mut found = Vec::new();
    for name in files.entries(directory).unwrap_or_default() {
        let path = format!("{directory}/{name}");
        match std::fs::symlink_metadata(files.locate(&path)) {
            Ok(metadata) if metadata.is_dir() => found.extend(surviving_logs(files, &path, sealed_at)),
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 && is_older(files, &path, sealed_at) => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}

fn is_older(files: &Files, path: &str, sealed_at: u64) -> bool {
    std::fs::symlink_metadata(files.locate(path))
        .is_ok_and(|metadata| u64::try_from(metadata.ctime()).is_ok_and(|changed| changed < sealed_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_within_one_name() {
        assert!(matches(".*_history", ".bash_history"));
        assert!(matches("i-*", "i-0abc"));
        assert!(matches("*", ".hidden"));
        assert!(!matches("i-*", "ipc"));
        assert!(!matches("*.deb", "lock"));
        assert!(matches("*.deb", "ü.deb"));
    }

    #[test]
    fn rotated_logs_are_told_from_living_ones() {
        for name in ["messages.1", "secure-20261123", "dmesg.old", "syslog.2.gz"] {
            assert!(is_rotated(name), "{name}");
        }
        for name in [
            "messages",
            "wtmp",
            "cloud-init.log",
            "amazon-ssm-agent.log",
            "audit-rules",
        ] {
            assert!(!is_rotated(name), "{name}");
        }
    }

    #[test]
    fn what_the_bundle_installed_stays_even_inside_residue() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for path in ["/tmp/a/kept", "/tmp/a/gone", "/tmp/ab", "/tmp/b/gone"] {
            files.write_atomic(path, b"x", 0o644).unwrap();
        }
        let mut sweeper = Sweeper::new(&files);
        let kept = Kept {
            paths: ["/tmp/a/kept".to_owned()].into(),
            part: None,
        };
        sweeper.sweep("/tmp/*", &kept);
        assert!(sweeper.failed.is_empty());
        assert_eq!(files.entries("/tmp").unwrap(), ["a"]);
        assert_eq!(files.entries("/tmp/a").unwrap(), ["kept"]);
    }
}
