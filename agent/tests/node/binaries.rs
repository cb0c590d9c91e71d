//! Owns the real Consuls and Nomads that tests run: found in two folders and on the `PATH`, unpacked once.
//! Touches those folders and cargo's folder for the files of tests.
//!
//! `COS_TESTS_PRODUCTS` names a folder of `PRODUCT-VERSION/PRODUCT` (`consul-1.8.7/consul`, `nomad-1.10.0/nomad`);
//! `COS_TESTS_MIRROR` the mirror of real archives, of which the newest is taken.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cos_agent::host::Files;
use cos_agent::node::render::{Product, Version};

/// What CI must have; the newest of each comes from the mirror.
const NEEDED: [(Product, &[Version]); 2] = [
    (
        Product::Consul,
        &[
            Version::new(1, 8, 7),
            Version::new(1, 11, 4),
            Version::new(1, 21, 0),
        ],
    ),
    (Product::Nomad, &[Version::new(1, 10, 0), Version::new(1, 11, 0)]),
];

fn name(product: Product) -> String {
    product.to_string().to_lowercase()
}

/// The binaries of a product at hand, oldest first. In CI all that are needed must be there; elsewhere it says loudly
/// which are not.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so, loudly")]
pub(crate) fn at_hand(product: Product) -> BTreeMap<Version, PathBuf> {
    let mut found = BTreeMap::new();
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    if let Some(folder) = variable("COS_TESTS_PRODUCTS") {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let folder = entry.file_name().to_string_lossy().into_owned();
            let version = folder.strip_prefix(&format!("{}-", name(product)));
            let binary = entry.path().join(name(product));
            if let Some(Ok(version)) = version.map(str::parse::<Version>)
                && binary.is_file()
            {
                found.insert(version, binary);
            }
        }
    }
    if let Some(mirror) = variable("COS_TESTS_MIRROR") {
        found.extend(newest(product, &mirror.join("hashicorp").join(name(product))));
    }
    let (_, needed) = NEEDED.iter().find(|(needed, _)| *needed == product).unwrap();
    let absent: Vec<String> = needed
        .iter()
        .filter(|version| !found.contains_key(version))
        .map(ToString::to_string)
        .collect();
    let message = format!(
        "{product} {} is not here (COS_TESTS_PRODUCTS, COS_TESTS_MIRROR)",
        absent.join(" and ")
    );
    if !absent.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "CI must have it: {message}");
        eprintln!("SKIPPED, in part: {message}: nobody judged what is written for it");
    }
    found
}

/// The newest binary of each product, for what needs both; none where one is not at hand.
pub(crate) fn pair() -> Option<[(Version, PathBuf); 2]> {
    let consul = at_hand(Product::Consul).pop_last()?;
    let nomad = at_hand(Product::Nomad).pop_last()?;
    Some([consul, nomad])
}

/// Puts binaries where an image has them.
pub(crate) fn install(product: Product, binary: &Path, files: &Files) {
    let place = files.locate(product.binary());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&place);
    std::os::unix::fs::symlink(binary, place).unwrap();
}

/// Tests of one process run side by side.
static UNPACKING: Mutex<()> = Mutex::new(());

/// The newest archive of a mirror, unpacked where cargo keeps files of tests.
fn newest(product: Product, folder: &Path) -> Option<(Version, PathBuf)> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let versions = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<Version>().ok());
    let version = versions.max()?;
    let (name, written) = (name(product), version.to_string());
    let archive = folder
        .join(&written)
        .join(format!("{name}_{written}_linux_amd64.zip"));
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{written}"));
    let _unpacking = UNPACKING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let archived = fs::metadata(&archive).unwrap().modified().unwrap();
    let fresh = fs::metadata(&unpacked).is_ok_and(|there| there.modified().unwrap() > archived);
    if !fresh {
        let mut archive = zip::ZipArchive::new(File::open(archive).unwrap()).unwrap();
        let temporary = unpacked.with_extension(std::process::id().to_string());
        io::copy(
            &mut archive.by_name(&name).unwrap(),
            &mut File::create(&temporary).unwrap(),
        )
        .unwrap();
        fs::set_permissions(&temporary, Permissions::from_mode(0o755)).unwrap();
        fs::rename(&temporary, &unpacked).unwrap();
    }
    Some((version, unpacked))
}
