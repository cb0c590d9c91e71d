//! Owns the machine, the payload and the programs that the builder's tests share: real archives in a real tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use super::digest::sha256;
use super::machine::Machine;
use crate::bundle::{
    Archive, ArchiveFormat, BundleManifest, Component, Directory, InstalledFile, Link, MANIFEST_NAME,
    MANIFEST_VERSION, PAYLOAD_BUNDLE_OFFSET, PAYLOAD_MAGIC, PayloadHeader, Source, Trust, User,
};
use crate::host::{Files, Invocation, Output, ProgramError, Programs};

/// Bytes that compress badly and differ by seed, so that a large file fills several blocks of the volume.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// A payload file and what is in it.
pub(crate) struct Sample {
    pub(crate) folder: TempDir,
    pub(crate) manifest: BundleManifest,
    pub(crate) header: PayloadHeader,
    /// Entries of the bundle as (name, offset on the volume, length).
    pub(crate) entries: Vec<(String, usize, usize)>,
}

impl Sample {
    pub(crate) fn device(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    pub(crate) fn volume(&self) -> Vec<u8> {
        fs::read(self.device()).unwrap()
    }

    /// Changes one byte of the volume.
    pub(crate) fn flip(&self, place: usize) {
        let mut volume = self.volume();
        volume[place] ^= 0x20;
        fs::write(self.device(), volume).unwrap();
    }

    /// Where the content of an entry begins, and how long it is.
    pub(crate) fn place(&self, name: &str) -> (usize, usize) {
        let (_, offset, length) = self.entries.iter().find(|(entry, ..)| entry == name).unwrap();
        (*offset, *length)
    }
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn tarred(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A small bundle with everything that a real one has: zip, tar.gz, own files, links, users, directories.
pub(crate) fn sample() -> Sample {
    sample_changed(|_| {})
}

/// As [`sample`], with a manifest that a careless baker could have written.
pub(crate) fn sample_changed(change: impl FnOnce(&mut BundleManifest)) -> Sample {
    let nomad = noise(1, 900_000);
    let (docker, dockerd) = (noise(2, 300_000), noise(3, 700_000));
    let agent = noise(4, 5_000);
    let zip = zipped(&[("LICENSE.txt", b"words"), ("nomad", &nomad)]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tarred(&[
        ("docker/docker", &docker),
        ("docker/dockerd", &dockerd),
    ]))
    .unwrap();
    let tgz = gzip.finish().unwrap();
    let component = |entry: Option<(&str, ArchiveFormat, &[u8])>, trust| Component {
        version: "1.2.3".to_owned(),
        trust,
        archive: entry.map(|(entry, format, content)| Archive {
            entry: entry.to_owned(),
            format,
            sha256: sha256(content),
            size: content.len() as u64,
        }),
    };
    let file = |path: &str, mode, content: &[u8], source| InstalledFile {
        path: path.to_owned(),
        mode,
        sha256: sha256(content),
        size: content.len() as u64,
        source,
    };
    let member = |component: &str, member: &str| Source::Member {
        component: component.to_owned(),
        member: member.to_owned(),
    };
    let unit = b"[Service]\nExecStart=/bin/true\n";
    let directory = |path: &str, mode, owner: &str, sealed_empty| Directory {
        path: path.to_owned(),
        mode,
        owner: owner.to_owned(),
        sealed_empty,
    };
    let mut manifest = BundleManifest {
        version: MANIFEST_VERSION,
        arch: if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "x86_64"
        }
        .to_owned(),
        components: BTreeMap::from([
            (
                "nomad".to_owned(),
                component(
                    Some(("archives/nomad.zip", ArchiveFormat::Zip, &zip)),
                    Trust::Signed,
                ),
            ),
            (
                "docker".to_owned(),
                component(
                    Some(("archives/docker.tgz", ArchiveFormat::TarGz, &tgz)),
                    Trust::FirstUse,
                ),
            ),
            ("cos-agent".to_owned(), component(None, Trust::Own)),
        ]),
        directories: vec![
            directory("/opt/cos", 0o755, "root", false),
            directory("/opt/nomad", 0o755, "nomad", false),
            directory("/opt/nomad/data", 0o700, "nomad", true),
        ],
        files: vec![
            file(
                "/etc/systemd/system/nomad.service",
                0o644,
                unit,
                Source::Entry("files/nomad.service".to_owned()),
            ),
            file(
                super::AGENT_PATH,
                0o755,
                &agent,
                Source::Entry("files/cos-agent".to_owned()),
            ),
            file(
                "/opt/docker/bin/docker",
                0o755,
                &docker,
                member("docker", "docker/docker"),
            ),
            file(
                "/opt/docker/bin/dockerd",
                0o755,
                &dockerd,
                member("docker", "docker/dockerd"),
            ),
            file("/opt/nomad/bin/nomad", 0o755, &nomad, member("nomad", "nomad")),
        ],
        links: vec![Link {
            path: "/usr/local/bin/nomad".to_owned(),
            target: "/opt/nomad/bin/nomad".to_owned(),
        }],
        users: vec![User {
            name: "nomad".to_owned(),
            home: "/opt/nomad".to_owned(),
        }],
    };
    change(&mut manifest);
    let text = serde_json::to_vec(&manifest).unwrap();
    let contents: [(&str, &[u8]); 5] = [
        (MANIFEST_NAME, &text),
        ("archives/nomad.zip", &zip),
        ("archives/docker.tgz", &tgz),
        ("files/nomad.service", unit),
        ("files/cos-agent", &agent),
    ];
    let bundle = tarred(&contents);
    let offset = usize::try_from(PAYLOAD_BUNDLE_OFFSET).unwrap();
    let entries: Vec<(String, usize, usize)> = tar::Archive::new(bundle.as_slice())
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| {
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let place = offset + usize::try_from(entry.raw_file_position()).unwrap();
            (name, place, usize::try_from(entry.size()).unwrap())
        })
        .collect();
    let header = PayloadHeader {
        bundle_sha256: sha256(&bundle),
        bundle_size: bundle.len() as u64,
        manifest_sha256: sha256(&text),
        agent_offset: entries[4].1 as u64,
        agent_size: agent.len() as u64,
        agent_sha256: sha256(&agent),
    };
    let mut volume = PAYLOAD_MAGIC.as_bytes().to_vec();
    volume.extend(serde_json::to_vec(&header).unwrap());
    volume.push(b'\n');
    volume.resize(offset, 0);
    volume.extend(bundle);
    // A volume is longer than what is on it; its rest may be anything.
    volume.extend(noise(5, 10_000));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("volume"), volume).unwrap();
    Sample {
        folder,
        manifest,
        header,
        entries,
    }
}

/// A machine in a folder, whose root is whoever runs the tests, and programs that do there what they do.
pub(crate) struct Tree {
    _folder: TempDir,
    pub(crate) files: Files,
    pub(crate) programs: TreePrograms,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        let write =
            |path: &str, content: String, mode| files.write_atomic(path, content.as_bytes(), mode).unwrap();
        write(
            "/etc/passwd",
            format!("root:x:{user}:{group}:root:/root:/bin/sh\n"),
            0o644,
        );
        write("/etc/group", format!("root:x:{group}:\n"), 0o644);
        for program in ["useradd", "nologin", "apt-get", "dpkg-query"] {
            write(&format!("/usr/sbin/{program}"), String::new(), 0o755);
        }
        let programs = TreePrograms {
            files: files.clone(),
            ran: Mutex::default(),
            refuse: None,
        };
        Self {
            _folder: folder,
            files,
            programs,
        }
    }

    pub(crate) fn machine(&self) -> Machine<'_> {
        Machine {
            files: &self.files,
            programs: &self.programs,
        }
    }
}

/// Programs that change the tree as the real ones would change a machine.
pub(crate) struct TreePrograms {
    files: Files,
    /// What was run, without `chroot ROOT`.
    pub(crate) ran: Mutex<Vec<String>>,
    /// Name of a program that fails.
    pub(crate) refuse: Option<&'static str>,
}

impl Programs for TreePrograms {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        assert_eq!(
            invocation.program, "chroot",
            "a tree is never taken for the running machine"
        );
        assert_eq!(invocation.arguments[0], self.files.root().to_string_lossy());
        let words: Vec<&str> = invocation.arguments[1..].iter().map(String::as_str).collect();
        self.ran.lock().unwrap().push(words.join(" "));
        let program = words[0].rsplit('/').next().unwrap_or_default();
        if self.refuse == Some(program) || self.refuse.is_some_and(|name| words[1..].contains(&name)) {
            return Ok(Output {
                status: Some(100),
                stdout: String::new(),
                stderr: "refused".to_owned(),
            });
        }
        let mut stdout = String::new();
        match program {
            "useradd" => {
                let name = words.last().unwrap();
                let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
                for (path, line) in [
                    (
                        "/etc/passwd",
                        format!("{name}:x:{user}:{group}::/:/sbin/nologin\n"),
                    ),
                    ("/etc/group", format!("{name}:x:{group}:\n")),
                ] {
                    let mut content = self.files.read(path).unwrap().unwrap();
                    content.extend(line.bytes());
                    self.files.write_atomic(path, &content, 0o644).unwrap();
                }
            }
            "env" if words.contains(&"iptables") => {
                self.files.write_atomic("/usr/sbin/iptables", b"", 0o755).unwrap();
            }
            "dpkg-query" => {
                stdout.push_str("base-files.amd64 12\n");
                if self.files.mode("/usr/sbin/iptables").unwrap().is_some() {
                    stdout.push_str("iptables.amd64 1.8.9-2\nlibnetfilter.amd64 1.0\n");
                }
            }
            _ => {}
        }
        Ok(Output {
            status: Some(0),
            stdout,
            stderr: String::new(),
        })
    }
}
