//! Owns telling the installed versions without starting what is installed: two programs of 100 MB that are read from a
//! fresh volume take seconds to say their names. Touches files; a program only where nothing else tells.
//!
//! Two sources, both bound to the file that is there now. The image's manifest, whose digests the bake proved: it
//! holds for a binary of the size that it says, not changed since the manifest came (a snapshot keeps inodes as they
//! were). And a note of what a binary said when it was asked before, kept with the identity of that file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::version::{self, Init, Product, Version, VersionError, Versions};
use crate::bundle::{BundleManifest, INSTALLED_MANIFEST, MANIFEST_VERSION};
use crate::host::{FileError, Files, Programs};
use crate::node::report::Timeline;

/// Where the note of versions is.
const NOTE: &str = "/var/lib/cos-agent/versions.json";

/// `install` restores SELinux labels right after it wrote the manifest, which changes a file's change time too.
const LABELLING: i64 = 120;

/// What tells one state of a file from any other, without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds. A program cannot set this one.
    changed: (i64, i64),
}

impl FileIdentity {
    /// The identity of a file, behind links; none if it is not there.
    pub(crate) fn of(files: &Files, path: &str) -> Option<Self> {
        let metadata = fs::metadata(files.locate(path)).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What a binary said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    version: Version,
    file: FileIdentity,
}

/// What is installed, and what is worth noting for the next time.
#[derive(Debug)]
pub(crate) struct Recognised {
    /// The versions.
    pub(crate) versions: Versions,
    note: BTreeMap<String, Noted>,
}

impl Recognised {
    /// Keeps what binaries said when they were asked.
    pub(crate) fn keep(&self, files: &Files) -> Result<(), FileError> {
        if self.note.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&self.note).unwrap_or_default();
        files.write_atomic(NOTE, &text, 0o644)
    }
}

/// What tells versions without starting Consul or Nomad.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Both products by manifest and note, each with what tells it.
    products: Option<[(Version, &'static str); 2]>,
    /// What starts services; none if it could not be asked.
    pub(crate) init: Option<Init>,
}

/// Looks for it. Only systemd is asked, which is small and runs already.
pub(crate) fn known(files: &Files, programs: &dyn Programs) -> Known {
    let products = || Some([told(Product::Consul, files)?, told(Product::Nomad, files)?]);
    Known {
        products: products(),
        init: version::init(files, programs).ok(),
    }
}

/// The versions, asked for only where they are not [`known`].
pub(crate) fn recognise(
    known: Known,
    files: &Files,
    programs: &(dyn Programs + Sync),
    timeline: &Timeline,
) -> Result<Recognised, VersionError> {
    let products = [Product::Consul, Product::Nomad];
    let mut note = BTreeMap::new();
    if let Some([consul, nomad]) = known.products {
        for (product, (version, source)) in products.iter().zip([consul, nomad]) {
            timeline.decide(format!("version of {product}"), version, source);
        }
        let versions = Versions {
            consul: Product::Consul.admit(consul.0)?,
            nomad: Product::Nomad.admit(nomad.0)?,
            init: known.init.map_or_else(|| version::init(files, programs), Ok)?,
        };
        return Ok(Recognised { versions, note });
    }
    let identities = || products.map(|product| FileIdentity::of(files, product.binary()));
    let before = identities();
    let versions = timeline.measure("ask versions", || Versions::detect(files, programs))?;
    let said = [versions.consul, versions.nomad];
    for (((product, version), before), after) in products.into_iter().zip(said).zip(before).zip(identities())
    {
        timeline.decide(
            format!("version of {product}"),
            version,
            "the binary said so: neither the image's manifest nor a note speaks of this file",
        );
        // Replaced while it was asked: nobody knows which of both answered.
        if let Some(file) = after.filter(|after| before.as_ref() == Some(after)) {
            note.insert(product.to_string().to_lowercase(), Noted { version, file });
        }
    }
    Ok(Recognised { versions, note })
}

/// What manifest or note say of the file that is there, and which of them.
fn told(product: Product, files: &Files) -> Option<(Version, &'static str)> {
    let file = FileIdentity::of(files, product.binary())?;
    if let Some(version) = by_manifest(product, &file, files) {
        return Some((
            version,
            "the image's manifest says so, and the file is the one it speaks of",
        ));
    }
    let note = files.read(NOTE).ok().flatten()?;
    let mut note: BTreeMap<String, Noted> = serde_json::from_slice(&note).ok()?;
    let noted = note.remove(&product.to_string().to_lowercase())?;
    (noted.file == file).then_some((
        noted.version,
        "the binary said so before, and has not changed since",
    ))
}

fn by_manifest(product: Product, file: &FileIdentity, files: &Files) -> Option<Version> {
    let installed = FileIdentity::of(files, INSTALLED_MANIFEST)?;
    if file.changed.0 > installed.changed.0.saturating_add(LABELLING) {
        return None;
    }
    let manifest = files.read(INSTALLED_MANIFEST).ok().flatten()?;
    let manifest: BundleManifest = serde_json::from_slice(&manifest).ok()?;
    if manifest.version != MANIFEST_VERSION {
        return None;
    }
    let entry = manifest
        .files
        .iter()
        .find(|entry| entry.path == product.binary())?;
    if entry.size != file.size {
        return None;
    }
    let component = manifest.components.get(&product.to_string().to_lowercase())?;
    component.version.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::host::{Invocation, Output, ProgramError};

    /// Binaries that say what they are, and count how often they were asked.
    struct Binaries(Mutex<Cell<u32>>);

    impl Programs for Binaries {
        fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
            let asked = self.0.lock().unwrap();
            asked.set(asked.get() + 1);
            let name = if invocation.program.ends_with("nomad") {
                "Nomad v1.11.0"
            } else {
                "Consul v1.21.5"
            };
            Ok(Output {
                status: Some(0),
                stdout: format!("{name}\n"),
                stderr: String::new(),
            })
        }
    }

    struct Node {
        files: Files,
        binaries: Binaries,
        _folder: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = Files::new(folder.path());
            for product in [Product::Consul, Product::Nomad] {
                files.write_atomic(product.binary(), b"binary", 0o755).unwrap();
            }
            let binaries = Binaries(Mutex::new(Cell::new(0)));
            Self {
                files,
                binaries,
                _folder: folder,
            }
        }

        /// As `install` writes it, after the binaries.
        fn manifest(&self, consul: &str, size: u64) {
            let file = |product: Product| {
                json!({"path": product.binary(), "mode": 0o755, "sha256": "", "size": size,
                    "source": {"entry": "x"}})
            };
            let component = |version| json!({"version": version, "trust": "signed"});
            let manifest = json!({
                "version": 1, "arch": "x86_64", "directories": [], "links": [], "users": [],
                "components": {"consul": component(consul), "nomad": component("1.11.0")},
                "files": [file(Product::Consul), file(Product::Nomad)],
            });
            self.files
                .write_atomic(INSTALLED_MANIFEST, manifest.to_string().as_bytes(), 0o644)
                .unwrap();
        }

        fn recognise(&self) -> (Version, u32) {
            let recognised = recognise(
                known(&self.files, &self.binaries),
                &self.files,
                &self.binaries,
                &Timeline::new(),
            )
            .unwrap();
            recognised.keep(&self.files).unwrap();
            let versions = recognised.versions;
            assert_eq!(versions.nomad, Version::new(1, 11, 0));
            (versions.consul, self.binaries.0.lock().unwrap().get())
        }
    }

    #[test]
    fn the_manifest_tells_and_nothing_is_started() {
        let node = Node::new();
        node.manifest("1.21.4", 6);
        assert_eq!(node.recognise(), (Version::new(1, 21, 4), 0));
    }

    #[test]
    fn a_binary_of_another_size_is_asked_once_and_noted() {
        let node = Node::new();
        node.manifest("1.21.4", 7);
        assert_eq!(node.recognise(), (Version::new(1, 21, 5), 2));
        assert_eq!(node.recognise(), (Version::new(1, 21, 5), 2));
        // Another file under the same name, of the same size.
        node.files
            .write_atomic(Product::Consul.binary(), b"BINARY", 0o755)
            .unwrap();
        assert_eq!(node.recognise(), (Version::new(1, 21, 5), 4));
    }

    #[test]
    fn a_file_that_changed_long_after_the_manifest_is_not_what_it_speaks_of() {
        let node = Node::new();
        node.manifest("1.21.4", 6);
        let file = FileIdentity::of(&node.files, Product::Consul.binary()).unwrap();
        let told = |changed: i64| {
            let file = FileIdentity {
                changed: (file.changed.0 + changed, 0),
                ..file.clone()
            };
            by_manifest(Product::Consul, &file, &node.files)
        };
        assert_eq!(told(60), Some(Version::new(1, 21, 4)));
        assert_eq!(told(3600), None);
    }

    #[test]
    fn a_version_that_is_too_old_is_refused_whoever_tells_it() {
        let node = Node::new();
        node.manifest("1.7.0", 6);
        let error = recognise(
            known(&node.files, &node.binaries),
            &node.files,
            &node.binaries,
            &Timeline::new(),
        )
        .unwrap_err();
        assert!(matches!(error, VersionError::TooOld { .. }), "{error}");
    }

    #[test]
    fn a_broken_note_is_as_good_as_none() {
        let node = Node::new();
        node.files.write_atomic(NOTE, b"{\"consul\": 3}", 0o644).unwrap();
        assert_eq!(node.recognise(), (Version::new(1, 21, 5), 2));
    }
}
