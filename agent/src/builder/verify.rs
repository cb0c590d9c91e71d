//! Owns `cos-agent verify`: whether this machine is what the manifest says, file by file.
//! Touches nothing but, in the boot test, docker: everything else is only read.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::booted;
use super::digest::{Hashing, sha256};
use super::error::BuilderError;
use super::install::script_links;
use super::machine::{Accounts, Machine};
use super::parallel::ParallelReader;
use super::report::{Check, SealReport, VerifyReport};
use crate::bundle::{BundleManifest, Directory, INSTALLED_MANIFEST, InstalledFile, Link};
use crate::host::Files;

/// Reads in flight on each file, of which several are read at once: the root volume of a new machine is as
/// lazy as a payload.
const IN_FLIGHT: usize = 8;

/// What the boot test knows beyond the manifest.
#[derive(Debug, Clone)]
pub struct Booted {
    /// What `cos-agent seal` printed on the builder.
    pub sealed: SealReport,
}

/// Checks the machine against the manifest with this digest, and in the boot test against its builder.
///
/// All checks are made, whatever fails; the report has them all. An error means that checking itself was
/// impossible, such as no right to read a file.
pub fn verify(
    machine: &Machine<'_>,
    manifest_sha256: &str,
    booted: Option<&Booted>,
) -> Result<VerifyReport, BuilderError> {
    let start = Instant::now();
    let mut report = VerifyReport {
        manifest_sha256: manifest_sha256.to_owned(),
        booted: booted.is_some(),
        checks: Vec::new(),
        seconds: 0.0,
    };
    let content = machine
        .files
        .read(INSTALLED_MANIFEST)
        .map_err(BuilderError::file("read the manifest"))?;
    let found = content.as_deref().map_or("no file".to_owned(), sha256);
    report
        .checks
        .push(Check::equal("manifest", manifest_sha256, found));
    if let (Some(content), true) = (content, report.checks[0].passed) {
        let manifest: BundleManifest =
            serde_json::from_slice(&content).map_err(BuilderError::malformed(INSTALLED_MANIFEST))?;
        let accounts = machine.accounts()?;
        report.checks.extend(
            manifest
                .users
                .iter()
                .map(|user| check_user(&accounts, &user.name)),
        );
        report.checks.extend(
            manifest
                .directories
                .iter()
                .map(|directory| check_directory(machine.files, &accounts, directory)),
        );
        let scripts = script_links(machine, &manifest);
        let links = manifest.links.iter().chain(&scripts);
        report
            .checks
            .extend(links.map(|link| check_link(machine.files, link)));
        report
            .checks
            .extend(check_files(machine.files, &accounts, &manifest.files));
        if let Some(booted) = booted {
            report
                .checks
                .extend(booted::check(machine, &manifest, &booted.sealed));
        }
    }
    report.seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    Ok(report)
}

fn check_user(accounts: &Accounts, name: &str) -> Check {
    let found = if accounts.find(name).is_some() {
        "user and group"
    } else {
        "no user with a group of that name"
    };
    Check::equal(format!("user:{name}"), "user and group", found)
}

fn check_directory(files: &Files, accounts: &Accounts, directory: &Directory) -> Check {
    let name = format!("directory:{}", directory.path);
    let owner = format!("{0}:{0}", directory.owner);
    let expected = describe("directory", directory.mode, &owner);
    match Status::of(files, accounts, &directory.path, &directory.owner) {
        Ok(status) => Check::equal(name, expected, describe(status.kind, status.mode, &status.owner)),
        Err(reason) => Check::failed(name, expected, reason),
    }
}

fn check_link(files: &Files, link: &Link) -> Check {
    let found = match files.link_target(&link.path) {
        Ok(Some(target)) => target,
        Ok(None) => "no link".to_owned(),
        Err(error) => error.to_string(),
    };
    Check::equal(format!("link:{}", link.path), &link.target, found)
}

/// Checks files on several threads, the largest first, and returns the checks in the manifest's order.
fn check_files(files: &Files, accounts: &Accounts, wanted: &[InstalledFile]) -> Vec<Check> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(wanted[*index].size));
    let next = AtomicUsize::new(0);
    let checks = Mutex::new(Vec::with_capacity(wanted.len()));
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let check = check_file(files, accounts, &wanted[*index]);
                    checks
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((*index, check));
                }
            });
        }
    });
    let mut checks = checks.into_inner().unwrap_or_else(PoisonError::into_inner);
    checks.sort_by_key(|(index, _)| *index);
    checks.into_iter().map(|(_, check)| check).collect()
}

fn check_file(files: &Files, accounts: &Accounts, file: &InstalledFile) -> Check {
    let name = format!("file:{}", file.path);
    let text = |kind, mode, owner: &str, size, sha256: &str| {
        format!("{}, {size} bytes, sha256 {sha256}", describe(kind, mode, owner))
    };
    let expected = text("file", file.mode, "root:root", file.size, &file.sha256);
    let found = Status::of(files, accounts, &file.path, "root").and_then(|status| {
        if status.kind != "file" {
            return Ok(status.kind.to_owned());
        }
        let content = std::fs::File::open(files.locate(&file.path)).map_err(|error| error.to_string())?;
        let reader = ParallelReader::new(content, 0, status.size, IN_FLIGHT);
        let (sha256, size) = Hashing::new(reader).finish().map_err(|error| error.to_string())?;
        Ok(text(status.kind, status.mode, &status.owner, size, &sha256))
    });
    match found {
        Ok(found) => Check::equal(name, expected, found),
        Err(reason) => Check::failed(name, expected, reason),
    }
}

fn describe(kind: &str, mode: u32, owner: &str) -> String {
    format!("{kind} {mode:04o} {owner}")
}

/// What lies at a path, links not followed.
struct Status {
    kind: &'static str,
    mode: u32,
    owner: String,
    size: u64,
}

impl Status {
    fn of(files: &Files, accounts: &Accounts, path: &str, owner: &str) -> Result<Self, String> {
        use std::os::unix::fs::MetadataExt;
        match std::fs::symlink_metadata(files.locate(path)) {
            Ok(metadata) => Ok(Self {
                kind: match metadata.file_type() {
                    kind if kind.is_file() => "file",
                    kind if kind.is_dir() => "directory",
                    kind if kind.is_symlink() => "link",
                    _ => "neither file, directory nor link",
                },
                mode: metadata.mode() & 0o7777,
                owner: accounts.describe((metadata.uid(), metadata.gid()), owner),
                size: metadata.len(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::install::install;
    use super::super::sample::{Sample, Tree, sample};
    use super::*;

    fn installed() -> (Tree, Sample) {
        let (tree, sample) = (Tree::new(), sample());
        install(&tree.machine(), &sample.device(), &sample.header.bundle_sha256).unwrap();
        (tree, sample)
    }

    fn failed(tree: &Tree, sample: &Sample) -> Vec<String> {
        let report = verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
        report.failed().map(|check| check.name.clone()).collect()
    }

    #[test]
    fn what_was_installed_is_verified() {
        let (tree, sample) = installed();
        let report = verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
        assert_eq!(report.failed().count(), 0, "{report:?}");
        let manifest = &sample.manifest;
        let count =
            manifest.files.len() + manifest.directories.len() + manifest.links.len() + manifest.users.len();
        assert_eq!(report.checks.len(), 1 + count, "each thing has its check");
    }

    #[test]
    fn all_failures_are_reported_with_both_sides() {
        let (tree, sample) = installed();
        tree.files.remove("/opt/docker/bin/docker").unwrap();
        tree.files
            .write_atomic("/etc/systemd/system/nomad.service", b"x", 0o600)
            .unwrap();
        tree.files.link("/usr/local/bin/nomad", "/tmp/nomad").unwrap();
        tree.files.make_directory("/opt/nomad/data", 0o777).unwrap();
        tree.files
            .write_atomic("/etc/group", b"root:x:0:\n", 0o644)
            .unwrap();
        let report = verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
        let names: Vec<&str> = report.failed().map(|check| check.name.as_str()).collect();
        for name in [
            "user:nomad",
            "directory:/opt/nomad/data",
            "link:/usr/local/bin/nomad",
            "file:/etc/systemd/system/nomad.service",
            "file:/opt/docker/bin/docker",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let gone = report
            .failed()
            .find(|check| check.name == "file:/opt/docker/bin/docker")
            .unwrap();
        assert_eq!(gone.found, "nothing");
        assert!(gone.expected.contains(&sample.manifest.files[2].sha256));
    }

    #[test]
    fn another_manifest_is_no_manifest() {
        let (tree, sample) = installed();
        let mut content = tree.files.read(INSTALLED_MANIFEST).unwrap().unwrap();
        content.push(b' ');
        tree.files
            .write_atomic(INSTALLED_MANIFEST, &content, 0o644)
            .unwrap();
        assert_eq!(failed(&tree, &sample), ["manifest"]);
        tree.files.remove(INSTALLED_MANIFEST).unwrap();
        assert_eq!(failed(&tree, &sample), ["manifest"]);
    }

    #[derive(Debug, Clone)]
    enum Tampering {
        Flip(prop::sample::Index, prop::sample::Index, u8),
        Append(prop::sample::Index),
        Cut(prop::sample::Index),
        Mode(prop::sample::Index, u32),
        LinkInstead(prop::sample::Index),
        Remove(prop::sample::Index),
        DirectoryMode(prop::sample::Index, u32),
        DirectoryGone(prop::sample::Index),
    }

    fn tampering() -> impl Strategy<Value = Tampering> {
        use Tampering::*;
        let file = any::<prop::sample::Index>;
        prop_oneof![
            (file(), file(), 1..=255u8).prop_map(|(file, place, bits)| Flip(file, place, bits)),
            file().prop_map(Append),
            file().prop_map(Cut),
            (file(), 1..=0o777u32).prop_map(|(file, bits)| Mode(file, bits)),
            file().prop_map(LinkInstead),
            file().prop_map(Remove),
            (file(), 1..=0o77u32).prop_map(|(directory, bits)| DirectoryMode(directory, bits)),
            file().prop_map(DirectoryGone),
        ]
    }

    /// Makes the change and returns the path that was changed.
    fn tamper(tree: &Tree, sample: &Sample, tampering: &Tampering) -> String {
        use Tampering::*;
        let files = &tree.files;
        let change = |index: &prop::sample::Index, change: &dyn Fn(&mut Vec<u8>)| {
            let file = index.get(&sample.manifest.files);
            let mut content = files.read(&file.path).unwrap().unwrap();
            change(&mut content);
            files.write_atomic(&file.path, &content, file.mode).unwrap();
            file.path.clone()
        };
        match tampering {
            Flip(index, place, bits) => change(index, &|content| {
                let place = place.index(content.len());
                content[place] ^= bits;
            }),
            Append(index) => change(index, &|content| content.push(0)),
            Cut(index) => change(index, &|content| {
                content.pop();
            }),
            Mode(index, bits) => {
                let file = index.get(&sample.manifest.files);
                let content = files.read(&file.path).unwrap().unwrap();
                // Readable by its owner still, so that the tests need no root.
                files
                    .write_atomic(&file.path, &content, (file.mode ^ bits) | 0o4400)
                    .unwrap();
                file.path.clone()
            }
            LinkInstead(index) => {
                let path = &index.get(&sample.manifest.files).path;
                files
                    .write_atomic("/elsewhere", &files.read(path).unwrap().unwrap(), 0o755)
                    .unwrap();
                files
                    .link(path, files.locate("/elsewhere").to_str().unwrap())
                    .unwrap();
                path.clone()
            }
            Remove(index) => {
                let path = &index.get(&sample.manifest.files).path;
                files.remove(path).unwrap();
                path.clone()
            }
            DirectoryMode(index, bits) => {
                let directory = index.get(&sample.manifest.directories);
                files
                    .make_directory(&directory.path, directory.mode ^ bits)
                    .unwrap();
                directory.path.clone()
            }
            DirectoryGone(index) => {
                let path = &index.get(&sample.manifest.directories).path;
                files.remove(path).unwrap();
                path.clone()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn any_single_change_is_found_and_named(change in tampering()) {
            let (tree, sample) = installed();
            let path = tamper(&tree, &sample, &change);
            let report = verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
            let named = report.failed().any(|check| check.name == "manifest" || check.name.ends_with(&path));
            prop_assert!(named, "{change:?} of {path}: {:?}", report.failed().collect::<Vec<_>>());
        }
    }
}
