//! Owns what the three commands print with `--json`; the baker reads these types back.
//! Touches nothing.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What `cos-agent install` did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InstallReport {
    /// SHA-256 of the bundle, as read from the volume.
    pub bundle_sha256: String,
    /// SHA-256 of the manifest, now at `/opt/cos/manifest.json`.
    pub manifest_sha256: String,
    /// Files written, the manifest not counted.
    pub files: usize,
    /// Bytes of those files.
    pub bytes: u64,
    /// Directories made, or given mode and owner.
    pub directories: usize,
    /// Links made.
    pub links: usize,
    /// Users made by this run; those that existed are not in it.
    pub users: Vec<String>,
    /// Packages that the base's own package manager installed or updated for the packet filter, each as name
    /// with architecture, space, version with release: `iptables-nft.x86_64 1.8.8-3.amzn2023.0.2`.
    pub packages: Vec<String>,
    /// What took how long; the packet filter runs beside the rest.
    pub phases: Vec<Phase>,
}

/// One part of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name, in kebab case.
    pub name: String,
    /// Seconds of wall time.
    pub seconds: f64,
}

impl Phase {
    /// A phase that ends now.
    pub(crate) fn since(name: &str, start: Instant) -> Self {
        Self {
            name: name.to_owned(),
            seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        }
    }
}

/// What `cos-agent verify` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// SHA-256 of the manifest that was verified against.
    pub manifest_sha256: String,
    /// Whether the checks of a machine booted from the new image were made as well.
    pub booted: bool,
    /// Every check, in the order in which it was made.
    pub checks: Vec<Check>,
    /// Seconds of wall time.
    pub seconds: f64,
}

impl VerifyReport {
    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name, such as `file:/opt/nomad/bin/nomad` or `machine-id`.
    pub name: String,
    /// Whether what was found is what was expected.
    pub passed: bool,
    /// What must be so.
    pub expected: String,
    /// What is so.
    pub found: String,
}

impl Check {
    /// A check that passes if both texts are the same.
    pub(crate) fn equal(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self {
            name: name.into(),
            passed: expected == found,
            expected,
            found,
        }
    }

    /// A check that passes if there are no faults.
    pub(crate) fn none(name: impl Into<String>, expected: impl Into<String>, faults: &[String]) -> Self {
        let found = if faults.is_empty() {
            "as expected".to_owned()
        } else {
            faults.join(", ")
        };
        Self {
            name: name.into(),
            passed: faults.is_empty(),
            expected: expected.into(),
            found,
        }
    }

    /// A check whose evidence could not be had: it fails, with the reason.
    pub(crate) fn failed(
        name: impl Into<String>,
        expected: impl Into<String>,
        reason: impl ToString,
    ) -> Self {
        Self {
            name: name.into(),
            passed: false,
            expected: expected.into(),
            found: reason.to_string(),
        }
    }
}

/// What `cos-agent seal` prints: the builder's identity, which no machine started from the image may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealReport {
    /// SHA-256 of the builder's machine-id, without the newline; none if it never had one.
    pub machine_id_sha256: Option<String>,
    /// Fingerprints of the builder's SSH host keys, as `ssh-keygen -l` prints them (`SHA256:…`).
    pub ssh_host_key_fingerprints: Vec<String>,
    /// Instance ids under which cloud-init or the SSM agent kept state on the builder.
    pub instance_ids: Vec<String>,
    /// When sealing began, in seconds since 1970 by the builder's clock.
    pub sealed_at: u64,
    /// How many files and folders were removed or emptied.
    pub removed: usize,
    /// Residue that the running Run Command still needs, removed when the machine shuts down, if it does.
    pub kept: Vec<String>,
    /// Seconds of wall time.
    pub seconds: f64,
}
