//! A small bundle, a lock that fits it, and what the agent says of it, for bakes on the fakes: real bytes with real
//! digests, but no real products.

use std::collections::BTreeMap;
use std::path::Path;

use cos_agent::builder::{InstallReport, SealReport};
use cos_agent::bundle::{BundleManifest, MANIFEST_VERSION, Trust};
use cos_bake::bundle::Bundle;
use cos_bake::digest::Digest;
use cos_bake::lock::{Lock, LockedArchive};
use cos_bake::release::{Arch, Product};

/// A bundle of three blocks, the second of them all zeros.
pub(crate) fn bundle(folder: &Path) -> Bundle {
    let mut bytes = vec![b'a'; 512 * 1024];
    bytes.extend(vec![0; 512 * 1024]);
    bytes.extend(vec![b'b'; 1000]);
    let path = folder.join("bundle.tar");
    std::fs::write(&path, &bytes).unwrap();
    let manifest = BundleManifest {
        version: MANIFEST_VERSION,
        arch: "x86_64".into(),
        components: BTreeMap::new(),
        directories: vec![],
        files: vec![],
        links: vec![],
        users: vec![],
    };
    Bundle {
        path,
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        manifest,
        manifest_sha256: Digest::of(b"manifest"),
        agent_offset: 0,
        agent_size: 10,
        agent_sha256: Digest::of(&bytes[..10]),
        reused: false,
    }
}

/// A lock with every product for x86_64.
pub(crate) fn lock() -> Lock {
    Lock::new(Product::ALL.map(|product| LockedArchive {
        component: product,
        arch: Arch::X86_64,
        version: "1.0.0".into(),
        url: "https://example.com/archive".into(),
        sha256: Digest::of(product.name().as_bytes()),
        size: 1,
        trust: if product.is_signed() {
            Trust::Signed
        } else {
            Trust::FirstUse
        },
        signed_by: product.is_signed().then(|| "00".into()),
        signing_key: None,
    }))
}

/// What the agent prints when it installed the bundle, and this package.
pub(crate) fn installed(package: &str) -> String {
    let report = InstallReport {
        packages: vec![package.into()],
        ..InstallReport::default()
    };
    serde_json::to_string(&report).unwrap()
}

/// What the agent prints when it sealed a builder.
pub(crate) fn sealed() -> String {
    let report = SealReport {
        machine_id_sha256: Some("00".into()),
        ssh_host_key_fingerprints: vec![],
        instance_ids: vec![],
        sealed_at: 0,
        removed: 0,
        kept: vec![],
        seconds: 0.0,
    };
    serde_json::to_string(&report).unwrap()
}
