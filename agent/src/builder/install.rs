//! Owns `cos-agent install`: everything of a payload volume onto this machine, each byte checked on its way.
//! Touches the machine's files, accounts, SELinux labels and packages; the volume is only read.

use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::accounts::make_users;
use super::error::BuilderError;
use super::machine::Machine;
use super::packet_filter;
use super::payload::Payload;
use super::report::{InstallReport, Phase};
use super::unpack::write_files;
use crate::bundle::{BundleManifest, INSTALLED_MANIFEST, Link};

/// Longest time to label the installed files.
const RESTORECON_DEADLINE: Duration = Duration::from_mins(1);

/// Installs the bundle of a payload volume whose digest is `bundle_sha256`.
///
/// Errors name the first wrong file or step; files written before it stay, the manifest is written last, so
/// a machine without `/opt/cos/manifest.json` was never installed completely.
pub fn install(
    machine: &Machine<'_>,
    device: &Path,
    bundle_sha256: &str,
) -> Result<InstallReport, BuilderError> {
    let start = Instant::now();
    let payload = Payload::open(device, bundle_sha256)?;
    let mut report = InstallReport {
        bundle_sha256: payload.header.bundle_sha256.clone(),
        manifest_sha256: payload.header.manifest_sha256.clone(),
        ..InstallReport::default()
    };
    machine
        .files
        .remove(INSTALLED_MANIFEST)
        .map_err(BuilderError::file("begin a new installation"))?;
    let kept = OnceLock::new();
    let packet_filter = thread::scope(|scope| {
        let mut filter = None;
        let written = write_files(machine, payload, |manifest, bytes| {
            report.phases.push(Phase::since("read-manifest", start));
            let (manifest, _) = kept.get_or_init(|| (manifest, bytes));
            check_paths(manifest)?;
            if manifest.components.contains_key("docker") {
                filter = Some(scope.spawn(|| {
                    let start = Instant::now();
                    packet_filter::ensure(machine)
                        .map(|packages| (packages, Phase::since("packet-filter", start)))
                }));
            }
            let start = Instant::now();
            report.users = make_users(machine, &manifest.users)?;
            report.directories = make_directories(machine, manifest)?;
            report.phases.push(Phase::since("users-and-directories", start));
            Ok(manifest)
        })?;
        (report.files, report.bytes) = written;
        report.phases.push(Phase::since("read-check-write", start));
        filter.map_or(Ok(None), |filter| join(filter).map(Some))
    })?;
    let Some((manifest, bytes)) = kept.get() else {
        return Ok(report);
    };
    if let Some((packages, phase)) = packet_filter {
        report.packages = packages;
        report.phases.push(phase);
    }
    let finish = Instant::now();
    let links: Vec<Link> = manifest
        .links
        .iter()
        .cloned()
        .chain(script_links(machine, manifest))
        .collect();
    for link in &links {
        machine
            .files
            .link(&link.path, &link.target)
            .map_err(BuilderError::file("install a link"))?;
    }
    report.links = links.len();
    machine
        .files
        .write_atomic(INSTALLED_MANIFEST, bytes, 0o644)
        .map_err(BuilderError::file("install the manifest"))?;
    restore_labels(machine, manifest)?;
    report.phases.push(Phase::since("links-and-labels", finish));
    report.phases.push(Phase::since("total", start));
    Ok(report)
}

type Filter = Result<(Vec<String>, Phase), BuilderError>;

fn join(filter: thread::ScopedJoinHandle<'_, Filter>) -> Filter {
    // A panic in the thread goes on here instead of being taken for a result.
    filter
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Absolute paths without `..`: everything lands below the root.
fn check_paths(manifest: &BundleManifest) -> Result<(), BuilderError> {
    let directories = manifest.directories.iter().map(|directory| &directory.path);
    let files = manifest.files.iter().map(|file| &file.path);
    let links = manifest.links.iter().map(|link| &link.path);
    for path in directories.chain(files).chain(links) {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(BuilderError::Differs {
                what: "a path in the manifest".to_owned(),
                expected: "an absolute path without `..`".to_owned(),
                found: path.clone(),
            });
        }
    }
    Ok(())
}

fn make_directories(machine: &Machine<'_>, manifest: &BundleManifest) -> Result<usize, BuilderError> {
    let accounts = machine.accounts()?;
    for directory in &manifest.directories {
        let step = "make a directory";
        let (user, group) = accounts
            .find(&directory.owner)
            .ok_or_else(|| BuilderError::Step {
                step: format!("{step}, {}", directory.path),
                reason: format!("there is no user {} with a group of that name", directory.owner),
            })?;
        machine
            .files
            .make_directory(&directory.path, directory.mode)
            .map_err(BuilderError::file(step))?;
        machine
            .files
            .set_owner(&directory.path, user, group)
            .map_err(BuilderError::file(step))?;
    }
    Ok(manifest.directories.len())
}

/// Where the bundle keeps System V scripts; nothing looks there by itself.
const SCRIPTS: &str = "/opt/cos/sysv/";

/// Links that make System V scripts known to a machine without systemd (Amazon Linux 1); elsewhere none.
pub(crate) fn script_links(machine: &Machine<'_>, manifest: &BundleManifest) -> Vec<Link> {
    let systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
    if systemd
        .iter()
        .any(|path| matches!(machine.files.mode(path), Ok(Some(_))))
    {
        return Vec::new();
    }
    let scripts = manifest
        .files
        .iter()
        .filter_map(|file| file.path.strip_prefix(SCRIPTS).map(|name| (name, file)));
    scripts
        .map(|(name, file)| Link {
            path: format!("/etc/init.d/{name}"),
            target: file.path.clone(),
        })
        .collect()
}

/// Gives the installed files the labels of the machine's SELinux policy, if it has one: a unit file or a
/// program with the label of the folder it was written in first may be refused at boot.
fn restore_labels(machine: &Machine<'_>, manifest: &BundleManifest) -> Result<(), BuilderError> {
    let Some(restorecon) = machine.find_program("restorecon") else {
        return Ok(());
    };
    let directories = manifest
        .directories
        .iter()
        .map(|directory| directory.path.as_str());
    let files = manifest.files.iter().map(|file| file.path.as_str());
    let links = manifest.links.iter().map(|link| link.path.as_str());
    let arguments: Vec<&str> = ["-F", INSTALLED_MANIFEST]
        .into_iter()
        .chain(directories)
        .chain(files)
        .chain(links)
        .collect();
    machine
        .check(&restorecon, &arguments, RESTORECON_DEADLINE)
        .map(|_| ())
        .map_err(BuilderError::program(
            "restore the SELinux labels of the installed files",
        ))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, Tree, sample, sample_changed};
    use super::*;
    use crate::error::{AgentError, Exit};

    fn run(tree: &Tree, sample: &Sample) -> Result<InstallReport, BuilderError> {
        install(&tree.machine(), &sample.device(), &sample.header.bundle_sha256)
    }

    /// The text of the failure, which must have exit code 4, and the tree after it.
    fn refused(sample: &Sample) -> (String, Tree) {
        let tree = Tree::new();
        let error = AgentError::from(run(&tree, sample).unwrap_err());
        assert_eq!(error.exit(), Exit::Verification, "{error}");
        assert_eq!(
            tree.files.read(INSTALLED_MANIFEST).unwrap(),
            None,
            "it counts as not installed"
        );
        (crate::error::chain(&error), tree)
    }

    #[test]
    fn everything_is_installed_as_the_manifest_says() {
        let (tree, sample) = (Tree::new(), sample());
        let report = run(&tree, &sample).unwrap();
        assert_eq!(report.files, sample.manifest.files.len());
        assert_eq!(
            report.bytes,
            sample.manifest.files.iter().map(|file| file.size).sum::<u64>()
        );
        assert_eq!(report.users, ["nomad"]);
        // Only what came, not what was there.
        assert_eq!(
            report.packages,
            ["iptables.amd64 1.8.9-2", "libnetfilter.amd64 1.0"]
        );
        for file in &sample.manifest.files {
            let content = tree.files.read(&file.path).unwrap().unwrap();
            assert_eq!(
                super::super::digest::sha256(&content),
                file.sha256,
                "{}",
                file.path
            );
            assert_eq!(tree.files.mode(&file.path).unwrap(), Some(file.mode));
        }
        assert_eq!(
            tree.files.link_target("/usr/local/bin/nomad").unwrap().unwrap(),
            "/opt/nomad/bin/nomad"
        );
        assert_eq!(tree.files.mode("/opt/nomad/data").unwrap(), Some(0o700));
        let again = run(&tree, &sample).unwrap();
        assert!(
            again.users.is_empty() && again.packages.is_empty(),
            "a second run has nothing to add"
        );
    }

    #[test]
    fn a_wrong_byte_in_an_archive_names_it_and_both_digests() {
        for entry in ["archives/nomad.zip", "archives/docker.tgz"] {
            let sample = sample();
            let (place, length) = sample.place(entry);
            for place in [place, place + length / 2, place + length - 1] {
                sample.flip(place);
                let (message, tree) = refused(&sample);
                let archive = sample
                    .manifest
                    .components
                    .values()
                    .filter_map(|component| component.archive.as_ref());
                let archive = archive
                    .into_iter()
                    .find(|archive| archive.entry == entry)
                    .unwrap();
                assert!(
                    message.contains(entry) && message.contains(&archive.sha256),
                    "{message}"
                );
                let member = if entry.ends_with("zip") {
                    "/opt/nomad/bin"
                } else {
                    "/opt/docker/bin"
                };
                assert!(
                    tree.files.entries(member).unwrap().is_empty(),
                    "nothing of a wrong archive is kept"
                );
                sample.flip(place);
            }
        }
    }

    #[test]
    fn a_wrong_byte_in_an_own_file_names_it_and_leaves_no_half() {
        let sample = sample();
        let (place, length) = sample.place("files/cos-agent");
        sample.flip(place + length - 1);
        let (message, tree) = refused(&sample);
        let agent = &sample.manifest.files[1];
        assert!(
            message.contains("/opt/cos/bin/cos-agent") && message.contains(&agent.sha256),
            "{message}"
        );
        assert!(tree.files.entries("/opt/cos/bin").unwrap().is_empty());
    }

    #[test]
    fn a_member_that_is_not_the_manifests_is_refused_though_its_archive_is_right() {
        for index in [2, 4] {
            let sample = sample_changed(|manifest| manifest.files[index].sha256 = "0".repeat(64));
            let path = &sample.manifest.files[index].path;
            let (message, tree) = refused(&sample);
            assert!(
                message.contains(path) && message.contains(&"0".repeat(64)),
                "{message}"
            );
            assert_eq!(tree.files.read(path).unwrap(), None);
            let directory = Path::new(path).parent().unwrap().to_str().unwrap();
            let left = tree.files.entries(directory).unwrap();
            assert!(!left.iter().any(|name| name.ends_with(".cos-new")), "{left:?}");
        }
    }

    #[test]
    fn the_old_content_of_a_file_survives_a_wrong_one() {
        let (tree, sample) = (Tree::new(), sample());
        tree.files
            .write_atomic("/opt/nomad/bin/nomad", b"old", 0o755)
            .unwrap();
        let (place, length) = sample.place("archives/nomad.zip");
        sample.flip(place + length / 2);
        run(&tree, &sample).unwrap_err();
        assert_eq!(tree.files.read("/opt/nomad/bin/nomad").unwrap().unwrap(), b"old");
    }

    #[test]
    fn any_flipped_byte_of_the_payload_is_refused() {
        let sample = sample();
        let offset = usize::try_from(crate::bundle::PAYLOAD_BUNDLE_OFFSET).unwrap();
        let end = offset + usize::try_from(sample.header.bundle_size).unwrap();
        let line = sample
            .volume()
            .iter()
            .skip(14)
            .position(|byte| *byte == b'\n')
            .unwrap()
            + 14;
        // Magic, header (each tenth byte), its end, zeros, tar headers and padding, manifest, end of the tar.
        let mut places: Vec<usize> = (0..line)
            .step_by(10)
            .chain([line, line + 1, offset - 1])
            .collect();
        for (_, place, length) in &sample.entries {
            places.extend([place - 512, place - 400, place - 1, *place, place + length / 3]);
            let padding = length.next_multiple_of(512) - length;
            places.extend((padding > 0).then_some(place + length));
        }
        places.extend([end - 1024, end - 1]);
        let clean = sample.volume();
        for place in places {
            sample.flip(place);
            let (message, _) = refused(&sample);
            assert!(message.starts_with("error: "), "{message}");
            std::fs::write(sample.device(), &clean).unwrap();
        }
        run(&Tree::new(), &sample).unwrap();
    }

    #[test]
    fn another_bundle_a_short_volume_and_a_bad_manifest_are_refused() {
        let sample = sample();
        let error = install(&Tree::new().machine(), &sample.device(), &"1".repeat(64)).unwrap_err();
        assert!(error.to_string().contains(&"1".repeat(64)), "{error}");

        let short = &sample.volume()[..700_000];
        std::fs::write(sample.device(), short).unwrap();
        assert!(run(&Tree::new(), &sample).is_err());

        let (message, _) = refused(&sample_changed(|manifest| {
            manifest.links[0].path = "/opt/../etc/x".to_owned();
        }));
        assert!(message.contains("/opt/../etc/x"), "{message}");
        let (message, _) = refused(&sample_changed(|manifest| manifest.arch = "sparc".to_owned()));
        assert!(message.contains("sparc"), "{message}");
        let (message, _) = refused(&sample_changed(|manifest| {
            manifest.files[2].source = crate::bundle::Source::Member {
                component: "docker".to_owned(),
                member: "docker/none".to_owned(),
            };
        }));
        assert!(message.contains("docker/none"), "{message}");
        let (message, _) = refused(&sample_changed(|manifest| {
            manifest.files.remove(0);
        }));
        assert!(message.contains("files/nomad.service"), "{message}");
        let (message, _) = refused(&sample_changed(|manifest| {
            manifest.files[0].source = crate::bundle::Source::Entry("files/none".to_owned());
        }));
        assert!(message.contains("files/nomad.service"), "{message}");
    }

    #[test]
    fn without_a_packet_filter_the_reason_is_told() {
        let mut tree = Tree::new();
        tree.programs.refuse = Some("env");
        let error = AgentError::from(run(&tree, &sample()).unwrap_err());
        assert_eq!(error.exit(), Exit::Step);
        assert!(crate::error::chain(&error).contains("packet filter"), "{error}");
        assert!(error.hint().unwrap().contains("gateway endpoint"));

        let tree = Tree::new();
        tree.files.remove("/usr/sbin/apt-get").unwrap();
        let error = run(&tree, &sample()).unwrap_err();
        assert!(error.to_string().contains("none of dnf, yum, apt-get"), "{error}");
        let without = sample_changed(|manifest| {
            manifest.components.get_mut("docker").unwrap().version = "0".to_owned();
        });
        tree.files.write_atomic("/usr/sbin/iptables", b"", 0o755).unwrap();
        run(&tree, &without).unwrap();
    }

    #[test]
    fn scripts_are_linked_only_where_there_is_no_systemd() {
        let sample = sample_changed(|manifest| manifest.files[0].path = "/opt/cos/sysv/nomad".to_owned());
        let verified = |tree: &Tree| {
            let report = super::super::verify(&tree.machine(), &sample.header.manifest_sha256, None).unwrap();
            report
                .failed()
                .map(|check| check.name.clone())
                .collect::<Vec<_>>()
        };
        let old = Tree::new();
        assert_eq!(run(&old, &sample).unwrap().links, 2);
        assert_eq!(
            old.files.link_target("/etc/init.d/nomad").unwrap().unwrap(),
            "/opt/cos/sysv/nomad"
        );
        assert!(verified(&old).is_empty());
        old.files.remove("/etc/init.d/nomad").unwrap();
        assert_eq!(verified(&old), ["link:/etc/init.d/nomad"]);

        let new = Tree::new();
        new.files
            .write_atomic("/usr/lib/systemd/systemd", b"", 0o755)
            .unwrap();
        assert_eq!(run(&new, &sample).unwrap().links, 1);
        assert_eq!(new.files.link_target("/etc/init.d/nomad").unwrap(), None);
        assert!(verified(&new).is_empty());
    }

    #[test]
    fn a_user_that_cannot_be_made_is_a_failed_step() {
        let mut tree = Tree::new();
        tree.programs.refuse = Some("useradd");
        let error = AgentError::from(run(&tree, &sample()).unwrap_err());
        assert_eq!(error.exit(), Exit::Step);
        assert!(crate::error::chain(&error).contains("make the user nomad"));
    }
}
