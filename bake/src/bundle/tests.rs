//! Bundles of small archives: the same bytes each time, one flipped byte refused, installed by the agent itself.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::lock::LockedArchive;
use crate::release::FailureClass;
use crate::release::sample::{VERSIONS, archive, noise, tar_gz, zip};

/// A file that begins as a program for an architecture does.
pub(crate) fn elf(arch: Arch, content: &[u8]) -> Vec<u8> {
    let machine: u16 = match arch {
        Arch::X86_64 => 62,
        Arch::Arm64 => 183,
    };
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([2, 0]);
    bytes.extend(machine.to_le_bytes());
    bytes.extend(content);
    bytes
}

/// This machine's architecture, for which the agent installs.
pub(crate) fn native() -> Arch {
    if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::X86_64
    }
}

/// Archives, their lock, and an agent, in a folder that goes with this.
pub(crate) struct Ingredients {
    pub(crate) folder: TempDir,
    pub(crate) lock: Lock,
    pub(crate) archives: BTreeMap<Product, PathBuf>,
    pub(crate) agent: PathBuf,
}

impl Ingredients {
    /// `extra` bytes more in the agent make a bundle of several blocks.
    pub(crate) fn new(extra: usize) -> Self {
        Self::with(extra, &|product| archive(product, 1))
    }

    fn with(extra: usize, archive: &dyn Fn(Product) -> Vec<u8>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut archives = BTreeMap::new();
        let mut locked = Vec::new();
        for (component, version) in VERSIONS {
            let bytes = archive(component);
            let path = folder.path().join(component.name());
            std::fs::write(&path, &bytes).unwrap();
            archives.insert(component, path);
            locked.push(LockedArchive {
                component,
                arch: native(),
                version: version.to_owned(),
                url: "https://example.org/".to_owned(),
                sha256: Digest::of(&bytes),
                size: bytes.len() as u64,
                trust: if component.is_signed() {
                    Trust::Signed
                } else {
                    Trust::FirstUse
                },
                signed_by: component
                    .is_signed()
                    .then(|| crate::release::signature::HASHICORP_FINGERPRINT.to_owned()),
                signing_key: None,
            });
        }
        let agent = folder.path().join("agent");
        std::fs::write(&agent, elf(native(), &noise(9, 5000 + extra))).unwrap();
        Self {
            lock: Lock::new(locked),
            archives,
            agent,
            folder,
        }
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.folder.path().join("bundles")
    }

    pub(crate) fn build(&self) -> Result<Bundle, ReleaseError> {
        build(&self.lock, native(), &self.archives, &self.agent, &self.bundles())
    }

    fn found(&self) -> Option<Bundle> {
        find(&self.lock, native(), &self.agent, &self.bundles())
            .unwrap()
            .ok()
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (one, other) = (Ingredients::new(0), Ingredients::new(0));
    let (first, second) = (one.build().unwrap(), other.build().unwrap());
    assert_eq!(
        std::fs::read(&first.path).unwrap(),
        std::fs::read(&second.path).unwrap()
    );
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(first.path.file_name(), second.path.file_name());
    let bigger = Ingredients::new(1).build().unwrap();
    assert_ne!(first.path.file_name(), bigger.path.file_name());
}

#[test]
fn the_tar_is_manifest_archives_files_and_says_the_truth_of_each() {
    let ingredients = Ingredients::new(0);
    let bundle = ingredients.build().unwrap();
    let bytes = std::fs::read(&bundle.path).unwrap();
    assert_eq!(
        (Digest::of(&bytes), bytes.len() as u64),
        (bundle.sha256, bundle.size)
    );
    let mut tar = tar::Archive::new(bytes.as_slice());
    let mut entries = BTreeMap::new();
    let mut names = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(
            (entry.header().mtime().unwrap(), entry.header().uid().unwrap()),
            (0, 0)
        );
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        names.push(name.clone());
        entries.insert(name, content);
    }
    assert_eq!(names[0], MANIFEST_NAME);
    let rank = |name: &String| {
        ["manifest.json", "archives/", "files/"]
            .iter()
            .position(|prefix| name.starts_with(prefix))
    };
    assert!(names.is_sorted_by_key(rank), "{names:?}");
    assert_eq!(Digest::of(&entries[MANIFEST_NAME]), bundle.manifest_sha256);
    let manifest: BundleManifest = serde_json::from_slice(&entries[MANIFEST_NAME]).unwrap();
    assert_eq!(manifest, bundle.manifest);
    assert_eq!(manifest.components.len(), 5);
    for component in manifest
        .components
        .values()
        .filter_map(|component| component.archive.as_ref())
    {
        assert_eq!(
            Digest::of(&entries[&component.entry]).to_string(),
            component.sha256
        );
    }
    let paths: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert!(paths.is_sorted());
    for path in [
        "/opt/nomad/bin/nomad",
        "/opt/docker/bin/dockerd",
        "/opt/cni/bin/vlan",
        "/etc/systemd/system/nomad.service",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert!(
        !paths
            .iter()
            .any(|path| path.contains("LICENSE") || path.contains("README")),
        "{paths:?}"
    );
    for file in &manifest.files {
        if let FileSource::Entry(entry) = &file.source {
            assert_eq!(Digest::of(&entries[entry]).to_string(), file.sha256, "{entry}");
        }
    }
    for link in &manifest.links {
        assert!(
            paths.contains(&link.target.as_str()),
            "{} leads nowhere",
            link.path
        );
    }
    let offset = usize::try_from(bundle.agent_offset).unwrap();
    let agent = &bytes[offset..offset + usize::try_from(bundle.agent_size).unwrap()];
    assert_eq!(agent, std::fs::read(&ingredients.agent).unwrap());
    assert_eq!(Digest::of(agent), bundle.agent_sha256);
}

#[test]
fn a_bundle_is_found_again_unless_a_byte_of_it_changed() {
    let ingredients = Ingredients::new(0);
    assert_eq!(ingredients.found(), None);
    let made = ingredients.build().unwrap();
    let found = ingredients.found().unwrap();
    assert!(found.reused && !made.reused);
    assert_eq!(
        Bundle {
            reused: false,
            ..found
        },
        made
    );

    let good = std::fs::read(&made.path).unwrap();
    for index in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[index] ^= 0x20;
        std::fs::write(&made.path, bad).unwrap();
        let absent = find(
            &ingredients.lock,
            native(),
            &ingredients.agent,
            &ingredients.bundles(),
        )
        .unwrap();
        assert!(matches!(absent, Err(Absent::Damaged { .. })), "byte {index}");
    }
    // Neither a record that was changed with the tar, nor one that was damaged, makes another bundle pass.
    let record = made.path.with_extension("sha256");
    let others = Ingredients::with(0, &|product| archive(product, 2));
    let other = others.build().unwrap();
    std::fs::copy(&other.path, &made.path).unwrap();
    std::fs::write(&record, other.sha256.to_string()).unwrap();
    assert_eq!(ingredients.found(), None);
    std::fs::write(&record, "damaged").unwrap();
    assert_eq!(ingredients.found(), None);
    assert_eq!(ingredients.build().unwrap(), made);
    assert!(ingredients.found().is_some());
}

#[test]
fn archives_that_lack_or_double_a_program_are_refused() {
    let lacking = |product: Product, bytes: Vec<u8>| {
        let ingredients = Ingredients::with(0, &|other| {
            if other == product {
                bytes.clone()
            } else {
                archive(other, 1)
            }
        });
        ingredients.build().unwrap_err()
    };
    let error = lacking(Product::Nomad, zip(&[("LICENSE.txt", b"x")]));
    assert!(error.to_string().contains("nomad: it lacks nomad"), "{error}");
    let error = lacking(Product::Docker, tar_gz(&[("docker/dockerd", b"x")]));
    assert!(
        error
            .to_string()
            .contains("it lacks containerd, containerd-shim-runc-v2, ctr"),
        "{error}"
    );
    let twice = [("./bridge", b"x".as_slice()), ("bridge", b"y")];
    for (product, bytes) in [
        (Product::Cni, tar_gz(&twice)),
        (Product::Consul, b"PK".to_vec()),
        (Product::Docker, noise(1, 400)),
        (Product::Docker, archive(Product::Docker, 1)[..2000].to_vec()),
    ] {
        let error = lacking(product, bytes);
        assert!(
            matches!(&error, ReleaseError::Archive { source: Some(_), .. }),
            "{error}"
        );
        assert_eq!(error.exit_class(), FailureClass::Verification);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_byte_of_an_archive_can_change(
        product in prop::sample::select(&Product::ALL[..]),
        place in any::<prop::sample::Index>(),
        change in 1..=255u8,
    ) {
        let ingredients = Ingredients::new(0);
        let path = &ingredients.archives[&product];
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        let index = place.index(bad.len());
        bad[index] ^= change;
        std::fs::write(path, &bad).unwrap();
        let error = ingredients.build().unwrap_err();
        prop_assert_eq!(error.exit_class(), FailureClass::Verification);
        let ReleaseError::Digest(mismatch) = &error else { panic!("{error}") };
        prop_assert_eq!(&mismatch.file, &path.display().to_string());
        prop_assert_eq!((mismatch.expected, mismatch.actual), (Digest::of(&good), Digest::of(&bad)));
        let left = std::fs::read_dir(ingredients.bundles()).unwrap().count();
        prop_assert_eq!(left, 0, "a refused bundle leaves nothing behind");
    }
}

/// The modes of what is built must let others read: the cache may be shared, the tar is uploaded by anyone.
#[test]
fn a_bundle_is_complete_before_it_has_its_name() {
    let ingredients = Ingredients::new(0);
    let bundle = ingredients.build().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(ingredients.bundles())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    names.sort();
    assert_eq!(names, [bundle.path.with_extension("sha256"), bundle.path.clone()]);
    assert_eq!(
        std::fs::metadata(&names[0]).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[test]
fn a_new_bundle_takes_the_place_of_an_old_one_and_a_found_one_counts_as_used() {
    let ingredients = Ingredients::new(0);
    let (folder, long_ago) = (ingredients.bundles(), SystemTime::UNIX_EPOCH);
    std::fs::create_dir(&folder).unwrap();
    for number in 0..9 {
        let old = File::create(folder.join(format!("{number}.tar"))).unwrap();
        old.set_modified(long_ago).unwrap();
    }
    let bundle = ingredients.build().unwrap();
    let tars = std::fs::read_dir(&folder).unwrap().flatten();
    let tars = tars.filter(|entry| entry.path().extension().unwrap() == "tar");
    assert_eq!(tars.count(), 4);
    let modified = || std::fs::metadata(&bundle.path).unwrap().modified().unwrap();
    let file = File::options().append(true).open(&bundle.path).unwrap();
    file.set_modified(long_ago).unwrap();
    assert!(ingredients.found().is_some());
    assert!(modified() > long_ago);
}
