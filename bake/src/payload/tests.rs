//! Payloads of small bundles: every block right, one flipped byte refused, installed by the agent itself.

use std::io::Write as _;
use std::path::Path;

use cos_agent::builder::{BuilderError, InstallReport, Machine};
use cos_agent::host::{Files, Invocation, Output, ProgramError, Programs};
use proptest::prelude::*;
use tempfile::{NamedTempFile, TempDir};

use super::*;
use crate::bundle::tests::Ingredients;
use crate::release::FailureClass;

/// So many bytes more in the agent that the bundle has three blocks.
const EXTRA: usize = 2 * BLOCK_SIZE;

/// The volume as the uploader would make it: blocks that are not zero, on zeros.
fn volume(payload: &Payload) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(payload.size_bytes()).unwrap()];
    for index in 0..payload.blocks() {
        let block = payload.read_block(index).unwrap();
        assert_eq!((block.index, block.bytes.len()), (index, BLOCK_SIZE));
        assert_eq!(Digest::of(&block.bytes), block.sha256);
        if !block.is_zero() {
            let at = index as usize * BLOCK_SIZE;
            bytes[at..at + BLOCK_SIZE].copy_from_slice(&block.bytes);
        }
    }
    bytes
}

#[test]
fn the_volume_is_header_bundle_and_zeros() {
    let ingredients = Ingredients::new(EXTRA);
    let bundle = ingredients.build().unwrap();
    let payload = Payload::open(&bundle).unwrap();
    let bytes = volume(&payload);
    let tar = std::fs::read(&bundle.path).unwrap();
    assert!(tar.len() > 2 * BLOCK_SIZE);
    assert_eq!(
        payload.blocks(),
        1 + u32::try_from(tar.len().div_ceil(BLOCK_SIZE)).unwrap()
    );
    assert_eq!(payload.volume_size_gib(), 1);
    assert_eq!(&bytes[BLOCK_SIZE..BLOCK_SIZE + tar.len()], tar);
    assert!(bytes[BLOCK_SIZE + tar.len()..].iter().all(|&byte| byte == 0));
    let line = bytes
        .strip_prefix(PAYLOAD_MAGIC.as_bytes())
        .unwrap()
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap();
    let header: PayloadHeader = serde_json::from_slice(line).unwrap();
    assert_eq!(header, payload.header);
    let at = usize::try_from(header.agent_offset).unwrap();
    let agent = &bytes[at..at + usize::try_from(header.agent_size).unwrap()];
    assert_eq!(agent, std::fs::read(&ingredients.agent).unwrap());
    assert!(payload.read_block(payload.blocks()).is_err());
}

#[test]
fn a_zero_block_says_so() {
    let block = |bytes| Block {
        index: 0,
        sha256: Digest::of(b""),
        bytes,
    };
    assert!(block(vec![0; BLOCK_SIZE]).is_zero());
    let mut bytes = vec![0; BLOCK_SIZE];
    bytes[BLOCK_SIZE - 1] = 1;
    assert!(!block(bytes).is_zero());
}

#[test]
fn a_bundle_that_changed_is_refused_before_and_after_it_was_opened() {
    let ingredients = Ingredients::new(EXTRA);
    let bundle = ingredients.build().unwrap();
    let good = std::fs::read(&bundle.path).unwrap();
    let opened = Payload::open(&bundle).unwrap();
    for index in [0, 600, BLOCK_SIZE + 7, good.len() - 1] {
        let mut bad = good.clone();
        bad[index] ^= 1;
        std::fs::write(&bundle.path, &bad).unwrap();
        let error = Payload::open(&bundle).unwrap_err();
        assert!(
            matches!(&error, ReleaseError::Digest(mismatch) if mismatch.expected == bundle.sha256),
            "{error}"
        );
        assert_eq!(error.exit_class(), FailureClass::Verification);
        let number = u32::try_from(1 + index / BLOCK_SIZE).unwrap();
        let error = opened.read_block(number).unwrap_err();
        let ReleaseError::Digest(mismatch) = &error else {
            panic!("{error}")
        };
        assert!(
            mismatch.file.starts_with(&format!("block {number} of ")),
            "{mismatch}"
        );
        let others = (0..opened.blocks()).filter(|other| *other != number);
        others.for_each(|other| drop(opened.read_block(other).unwrap()));
    }
    std::fs::write(&bundle.path, [&good[..], b"more"].concat()).unwrap();
    assert!(matches!(Payload::open(&bundle), Err(ReleaseError::Digest(_))));
    std::fs::write(&bundle.path, &good[..good.len() - 1]).unwrap();
    assert!(Payload::open(&bundle).is_err());
}

/// A machine where no program need run: users exist, and so does the packet filter.
struct NoPrograms;

impl Programs for NoPrograms {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        panic!("nothing need run, but {invocation:?} does");
    }
}

/// Installs a volume with the agent's own code into a folder. Everything is owned by the one who tests.
fn install(volume: &[u8], sha256: &str) -> (TempDir, Result<InstallReport, BuilderError>) {
    let root = TempDir::new().unwrap();
    let put = |path: &str, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let lines = |id: &dyn std::fmt::Display| {
        ["root", "consul", "nomad"]
            .map(|name| format!("{name}:x:{id}:{group}::/:/bin/false\n"))
            .concat()
    };
    put("etc/passwd", &lines(&user));
    put("etc/group", &lines(&group));
    put("usr/sbin/iptables", "");
    let mut device = NamedTempFile::new().unwrap();
    device.write_all(volume).unwrap();
    let files = Files::new(root.path());
    let machine = Machine {
        files: &files,
        programs: &NoPrograms,
    };
    let report = cos_agent::builder::install(&machine, device.path(), sha256);
    (root, report)
}

fn read(root: &Path, path: &str) -> Vec<u8> {
    std::fs::read(root.join(path.trim_start_matches('/'))).unwrap()
}

#[test]
fn the_agent_installs_what_the_baker_packed() {
    let ingredients = Ingredients::new(EXTRA);
    let bundle = ingredients.build().unwrap();
    let payload = Payload::open(&bundle).unwrap();
    let (root, report) = install(&volume(&payload), &bundle.sha256.to_string());
    let report = report.unwrap();
    assert_eq!(report.files, bundle.manifest.files.len());
    for file in &bundle.manifest.files {
        assert_eq!(
            Digest::of(&read(root.path(), &file.path)).to_string(),
            file.sha256,
            "{}",
            file.path
        );
    }
    let installed = read(root.path(), cos_agent::bundle::INSTALLED_MANIFEST);
    assert_eq!(Digest::of(&installed), bundle.manifest_sha256);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_byte_of_a_payload_can_change(place in any::<prop::sample::Index>(), change in 1..=255u8) {
        static MADE: std::sync::OnceLock<(Vec<u8>, String, usize)> = std::sync::OnceLock::new();
        let (good, sha256, used) = MADE.get_or_init(|| {
            let ingredients = Ingredients::new(0);
            let bundle = ingredients.build().unwrap();
            let payload = Payload::open(&bundle).unwrap();
            (volume(&payload), bundle.sha256.to_string(), BLOCK_SIZE + usize::try_from(bundle.size).unwrap())
        });
        // Behind the bundle's end nothing is ever read.
        let index = place.index(*used);
        let mut bad = good.clone();
        bad[index] ^= change;
        let (root, report) = install(&bad, sha256);
        prop_assert!(report.is_err(), "byte {} changed by {:#x}", index, change);
        prop_assert!(!root.path().join("opt/cos/manifest.json").exists());
    }
}
