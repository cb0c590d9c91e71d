//! Owns `cos.lock`: the exact version, address and digest of every archive that goes into an image.
//! Touches the lock's file; [`resolve`] downloads through [`crate::release`].
//!
//! The file carries a checksum over all its other bytes, so damage is found before anything is believed.
//! The checksum is no signature: who may write the file may write the checksum. Review it as code.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cos_agent::bundle::Trust;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestMismatch};
use crate::release::signature::{HASHICORP_FINGERPRINT, TrustedKeys};
use crate::release::{Arch, Product, ReleaseError, version_is_plain};

mod resolve;

pub use resolve::{LockRequest, Source, resolve};

/// Name of the file beside the recipe.
pub const LOCK_NAME: &str = "cos.lock";

/// Version of the format.
const VERSION: u32 = 1;

const HEADER: &str = "\
# cos.lock: exact versions, addresses and digests of everything that cos-bake puts into an image.
# Written by `cos-bake lock`. Do not edit: the checksum covers every other byte. Keep it in version control.
";

/// Beginning of the checksum's line.
const CHECKSUM: &str = "checksum = \"";

/// Everything that is locked, sorted by component and architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    archives: Vec<LockedArchive>,
}

/// One archive of one component for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedArchive {
    /// What it carries.
    pub component: Product,
    /// Architecture that it runs on.
    pub arch: Arch,
    /// Upstream's version.
    pub version: String,
    /// Where it was downloaded from.
    pub url: String,
    /// Its digest.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How the digest came to be trusted: `signed` or `first-use`.
    pub trust: Trust,
    /// Fingerprint of the certificate whose signature covers the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Fingerprint of the subkey that made the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
}

impl LockedArchive {
    /// Whether a key that only `--trust-key` admitted vouches for it, not the publisher's own.
    pub fn is_signed_by_added_key(&self) -> bool {
        self.signed_by
            .as_deref()
            .is_some_and(|signer| signer != HASHICORP_FINGERPRINT)
    }

    /// What is wrong with an entry, if something is.
    fn fault(&self) -> Option<String> {
        let name = format!("{} for {}", self.component, self.arch);
        let fits = match self.trust {
            Trust::Signed => self.signed_by.is_some() && self.component.is_signed(),
            Trust::FirstUse => self.signed_by.is_none() && !self.component.is_signed(),
            Trust::Own => false,
        };
        if !fits {
            return Some(format!("{name}: trust `{:?}` does not fit", self.trust));
        }
        (!version_is_plain(&self.version)).then(|| format!("{name}: `{}` is not a version", self.version))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "compared as bytes before the document is parsed")]
    checksum: String,
    archive: Vec<LockedArchive>,
}

impl Lock {
    /// A lock of some archives; of two for the same component and architecture the later counts.
    pub fn new(archives: impl IntoIterator<Item = LockedArchive>) -> Self {
        let by_key = archives
            .into_iter()
            .map(|archive| ((archive.component.name(), archive.arch), archive));
        let sorted: std::collections::BTreeMap<_, _> = by_key.collect();
        Self {
            archives: sorted.into_values().collect(),
        }
    }

    /// All archives, sorted by component and architecture.
    pub fn archives(&self) -> &[LockedArchive] {
        &self.archives
    }

    /// The archive of a component for an architecture, if the lock has one.
    pub fn find(&self, component: Product, arch: Arch) -> Option<&LockedArchive> {
        self.archives
            .iter()
            .find(|archive| archive.component == component && archive.arch == arch)
    }

    /// The archive of a component for an architecture.
    pub fn archive(&self, component: Product, arch: Arch) -> Result<&LockedArchive, ReleaseError> {
        self.find(component, arch).ok_or(ReleaseError::NotLocked {
            product: component,
            arch,
        })
    }

    /// The file's text. The same archives give the same bytes.
    pub fn render(&self) -> String {
        let mut before = HEADER.to_owned();
        if let Some(archive) = self
            .archives
            .iter()
            .find(|archive| archive.is_signed_by_added_key())
        {
            let signer = archive.signed_by.as_deref().unwrap_or_default();
            let _ = writeln!(before, "#\n# WARNING: not signed by HashiCorp, but by {signer},");
            before.push_str("# a key that only --trust-key admitted. Not for production.\n");
        }
        let _ = writeln!(before, "version = {VERSION}");
        let mut after = String::new();
        for archive in &self.archives {
            // Writing plain strings and numbers cannot fail; a lock without an entry would be refused on reading.
            let entry = toml::to_string(archive).unwrap_or_default();
            let _ = write!(after, "\n[[archive]]\n{entry}");
        }
        let checksum = Digest::of(format!("{before}{after}").as_bytes());
        format!("{before}{CHECKSUM}{checksum}\"\n{after}")
    }

    /// Reads a lock that `path` is the name of.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ReleaseError> {
        check(bytes, path)?;
        let syntax = |source| ReleaseError::LockSyntax {
            path: path.to_owned(),
            source,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| syntax(error.into()))?;
        let document: Document = toml::from_str(text).map_err(|error| syntax(error.into()))?;
        if document.version != VERSION {
            return Err(syntax(
                format!("it has format {}, not {VERSION}", document.version).into(),
            ));
        }
        if let Some(fault) = document.archive.iter().find_map(LockedArchive::fault) {
            return Err(syntax(fault.into()));
        }
        let count = document.archive.len();
        let lock = Self::new(document.archive);
        if lock.archives.len() != count {
            return Err(syntax("a component is locked twice for one architecture".into()));
        }
        Ok(lock)
    }

    /// Reads the file. None if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, ReleaseError> {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes, path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReleaseError::File {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), ReleaseError> {
        let fault = |source| ReleaseError::File {
            path: path.to_owned(),
            source,
        };
        write_whole(path, self.render().as_bytes()).map_err(fault)
    }

    /// Refuses a lock with a signature by a key that this run does not trust: a lock made with `--trust-key`
    /// must not quietly serve a bake without it.
    pub fn check_signers(&self, keys: &TrustedKeys) -> Result<(), ReleaseError> {
        for archive in &self.archives {
            let Some(signer) = archive.signed_by.as_deref() else {
                continue;
            };
            if signer != HASHICORP_FINGERPRINT && Some(signer) != keys.added() {
                return Err(ReleaseError::UntrustedSigner {
                    product: archive.component,
                    version: archive.version.clone(),
                    signer: signer.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // A temporary file is private; these files hold no secret and are shared as others are.
    file.as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Compares the checksum's line with all other bytes.
fn check(bytes: &[u8], path: &Path) -> Result<(), ReleaseError> {
    let lines = || bytes.split_inclusive(|&byte| byte == b'\n');
    let position = lines().position(|line| line.starts_with(CHECKSUM.as_bytes()));
    let rest = lines().enumerate().filter(|(index, _)| Some(*index) != position);
    let rest: Vec<u8> = rest.flat_map(|(_, line)| line.iter().copied()).collect();
    let actual = Digest::of(&rest);
    let line = position.and_then(|index| lines().nth(index)).unwrap_or_default();
    if line == format!("{CHECKSUM}{actual}\"\n").as_bytes() {
        return Ok(());
    }
    let recorded = String::from_utf8_lossy(line.strip_prefix(CHECKSUM.as_bytes()).unwrap_or_default());
    let recorded = recorded.trim_end_matches(['\n', '"']);
    let recorded = if recorded.is_empty() {
        "none".to_owned()
    } else {
        recorded.escape_debug().to_string()
    };
    Err(ReleaseError::LockDamaged {
        path: PathBuf::from(path),
        recorded,
        actual,
    })
}

/// Whether new bytes under a locked version are the old ones.
fn same_as_before(existing: Option<&Lock>, new: &LockedArchive) -> Result<(), ReleaseError> {
    let old = existing.and_then(|lock| lock.find(new.component, new.arch));
    let Some(old) = old.filter(|old| old.version == new.version) else {
        return Ok(());
    };
    DigestMismatch::check(&new.url, old.sha256, new.sha256).map_err(|source| ReleaseError::ChangedUpstream {
        product: new.component,
        version: new.version.clone(),
        arch: new.arch,
        source: Box::new(source),
    })
}

#[cfg(test)]
pub(crate) mod tests;
