//! Locks read, written and damaged; and resolved from a mirror that answers on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::release::sample::{Answer, Mirror, VERSIONS, archive, public};
use crate::release::{ArchiveCache, FailureClass, FetchEvent, Fetcher, Upstream};

fn entry(component: Product, arch: Arch, version: &str) -> LockedArchive {
    let signed = component.is_signed();
    LockedArchive {
        component,
        arch,
        version: version.to_owned(),
        url: format!("https://example.org/{component}"),
        sha256: Digest::of(component.name().as_bytes()),
        size: 7,
        trust: if signed { Trust::Signed } else { Trust::FirstUse },
        signed_by: signed.then(|| HASHICORP_FINGERPRINT.to_owned()),
        signing_key: signed.then(|| "374EC75B485913604A831CC7C820C6D5CD27AB87".to_owned()),
    }
}

pub(crate) fn sample() -> Lock {
    let entries = Product::ALL
        .into_iter()
        .flat_map(|product| Arch::ALL.map(|arch| entry(product, arch, "1.2.3")));
    Lock::new(entries)
}

fn parse(bytes: &[u8]) -> Result<Lock, ReleaseError> {
    Lock::parse(bytes, Path::new("cos.lock"))
}

#[test]
fn a_lock_reads_what_it_writes_and_order_does_not_count() {
    let lock = sample();
    assert_eq!(parse(lock.render().as_bytes()).unwrap(), lock);
    let reversed = Lock::new(lock.archives().iter().rev().cloned());
    assert_eq!(reversed.render(), lock.render());
    assert!(!lock.render().contains("WARNING"));
    assert!(
        lock.archives()
            .is_sorted_by_key(|archive| (archive.component.name(), archive.arch.name()))
    );

    let folder = TempDir::new().unwrap();
    let path = folder.path().join(LOCK_NAME);
    assert_eq!(Lock::read(&path).unwrap(), None);
    lock.write(&path).unwrap();
    assert_eq!(Lock::read(&path).unwrap(), Some(lock));
}

#[test]
fn another_signer_is_written_in_plain_sight_and_needs_its_key_again() {
    let mut other = entry(Product::Nomad, Arch::X86_64, "1.2.3");
    other.signed_by = Some("AB".repeat(20));
    let lock = Lock::new([other]);
    assert!(lock.render().contains(&format!(
        "WARNING: not signed by HashiCorp, but by {}",
        "AB".repeat(20)
    )));
    let lock = parse(lock.render().as_bytes()).unwrap();
    let error = lock.check_signers(&TrustedKeys::pinned().unwrap()).unwrap_err();
    assert!(matches!(error, ReleaseError::UntrustedSigner { .. }));
    assert_eq!(error.exit_class(), FailureClass::Verification);
    sample().check_signers(&TrustedKeys::pinned().unwrap()).unwrap();
}

/// Entries that no tool writes, under a right checksum.
#[test]
fn a_lock_that_contradicts_itself_is_refused() {
    let forge = |change: &dyn Fn(&mut LockedArchive)| {
        let mut archive = entry(Product::Nomad, Arch::X86_64, "1.2.3");
        change(&mut archive);
        parse(
            Lock {
                archives: vec![archive],
            }
            .render()
            .as_bytes(),
        )
    };
    assert!(forge(&|_| ()).is_ok());
    for wrong in [
        forge(&|archive| archive.signed_by = None),
        forge(&|archive| archive.trust = Trust::FirstUse),
        forge(&|archive| archive.trust = Trust::Own),
        forge(&|archive| archive.version = "../1".to_owned()),
        parse(
            Lock {
                archives: vec![entry(Product::Cni, Arch::Arm64, "1.0.0"); 2],
            }
            .render()
            .as_bytes(),
        ),
    ] {
        assert!(matches!(wrong, Err(ReleaseError::LockSyntax { .. })), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_byte_of_a_lock_can_change(place in any::<prop::sample::Index>(), change in 1..=255u8) {
        let mut bytes = sample().render().into_bytes();
        let index = place.index(bytes.len());
        bytes[index] ^= change;
        let error = parse(&bytes).unwrap_err();
        prop_assert_eq!(error.exit_class(), FailureClass::Verification);
        let ReleaseError::LockDamaged { path, recorded, actual } = &error else { panic!("{error}") };
        let text = error.to_string();
        prop_assert!(text.contains(&path.display().to_string()) && text.contains(&actual.to_string()));
        prop_assert!(text.contains(recorded.as_str()));
    }

    #[test]
    fn no_byte_of_a_lock_can_go_or_come(place in any::<prop::sample::Index>(), byte: u8) {
        let bytes = sample().render().into_bytes();
        let index = place.index(bytes.len());
        let (mut shorter, mut longer) = (bytes.clone(), bytes);
        shorter.remove(index);
        longer.insert(index, byte);
        prop_assert!(parse(&shorter).is_err());
        prop_assert!(parse(&longer).is_err());
    }
}

/// A mirror, a cache, and the key that only this run trusts.
struct Setting {
    mirror: Mirror,
    upstream: Upstream,
    fetcher: Fetcher,
    cache: ArchiveCache,
    keys: TrustedKeys,
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        let mirror = Mirror::new();
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("key.asc");
        std::fs::write(&key, public(&mirror.key)).unwrap();
        Self {
            upstream: mirror.upstream(),
            fetcher: Mirror::fetcher(),
            cache: ArchiveCache::open(folder.path()).unwrap(),
            keys: TrustedKeys::with_file(Some(&key)).unwrap(),
            mirror,
            folder,
        }
    }

    fn source(&self) -> Source<'_> {
        Source {
            upstream: &self.upstream,
            fetcher: &self.fetcher,
            cache: &self.cache,
            keys: &self.keys,
        }
    }

    async fn resolve(&self, existing: Option<&Lock>) -> Result<Lock, ReleaseError> {
        let request = LockRequest {
            versions: BTreeMap::new(),
            arches: BTreeSet::from(Arch::ALL),
        };
        resolve(&request, &self.source(), existing).await
    }

    async fn resolve_version(&self, product: Product, version: &str) -> Result<Lock, ReleaseError> {
        let versions = BTreeMap::from([(product, version.to_owned())]);
        resolve(
            &LockRequest {
                versions,
                arches: BTreeSet::from([Arch::X86_64]),
            },
            &self.source(),
            None,
        )
        .await
    }

    fn archive_path(&self, product: Product) -> String {
        let version = VERSIONS.iter().find(|(other, _)| *other == product).unwrap().1;
        self.mirror
            .path(&self.upstream.archive(product, version, Arch::X86_64))
    }

    /// Names of files in the cache that no archive owns.
    fn unfinished(&self) -> usize {
        let entries = std::fs::read_dir(self.cache.folder()).unwrap();
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".part-"))
            .count()
    }
}

#[tokio::test]
async fn the_latest_stable_versions_are_locked_where_they_exist() {
    let setting = Setting::new();
    let lock = setting.resolve(None).await.unwrap();
    let found: Vec<_> = lock
        .archives()
        .iter()
        .map(|one| (one.component, one.version.as_str()))
        .collect();
    assert_eq!(
        found, VERSIONS,
        "the mirror has no arm64, and nothing but x86_64 may be locked"
    );
    for archive in lock.archives() {
        assert_eq!(archive.arch, Arch::X86_64);
        let bytes = setting.mirror.bytes(&setting.archive_path(archive.component));
        assert_eq!(
            (archive.sha256, archive.size),
            (Digest::of(&bytes), bytes.len() as u64)
        );
        assert_eq!(archive.is_signed_by_added_key(), archive.component.is_signed());
    }
    let signer = lock
        .find(Product::Nomad, Arch::X86_64)
        .unwrap()
        .signed_by
        .as_deref();
    assert_eq!(signer, setting.keys.added());
    assert_eq!(parse(lock.render().as_bytes()).unwrap(), lock);
    assert_eq!(setting.unfinished(), 0);
    // Without the key the very same mirror is refused.
    let keys = TrustedKeys::pinned().unwrap();
    let request = LockRequest {
        versions: BTreeMap::new(),
        arches: BTreeSet::from([Arch::X86_64]),
    };
    let error = resolve(
        &request,
        &Source {
            keys: &keys,
            ..setting.source()
        },
        None,
    )
    .await
    .unwrap_err();
    assert!(matches!(error, ReleaseError::Signature { .. }), "{error}");
    assert_eq!(error.exit_class(), FailureClass::Verification);
}

#[tokio::test]
async fn archives_come_from_the_cache_and_damage_there_is_made_good() {
    let setting = Setting::new();
    let lock = setting.resolve(None).await.unwrap();
    let before = setting.mirror.requests.load(Ordering::Relaxed);
    let files = setting.source().archives(&lock, Arch::X86_64).await.unwrap();
    assert_eq!(
        setting.mirror.requests.load(Ordering::Relaxed),
        before,
        "all archives are in the cache"
    );
    let mut bytes = std::fs::read(&files[&Product::Nomad]).unwrap();
    bytes[17] ^= 1;
    std::fs::write(&files[&Product::Nomad], bytes).unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let fetcher = Fetcher::new(Arc::new(move |event| listener.lock().unwrap().push(event))).unwrap();
    let again = Source {
        fetcher: &fetcher,
        ..setting.source()
    }
    .archives(&lock, Arch::X86_64)
    .await
    .unwrap();
    assert_eq!(
        Digest::of_file(&again[&Product::Nomad]).unwrap().0,
        lock.archive(Product::Nomad, Arch::X86_64).unwrap().sha256
    );
    assert!(
        told.lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, FetchEvent::CacheDamaged { .. }))
    );
    let error = setting.source().archives(&lock, Arch::Arm64).await.unwrap_err();
    assert!(matches!(
        error,
        ReleaseError::NotLocked {
            arch: Arch::Arm64,
            ..
        }
    ));
}

/// One flipped byte anywhere upstream, found at locking or at the download that follows.
#[tokio::test]
async fn one_flipped_byte_upstream_is_refused() {
    let setting = Setting::new();
    let lock = setting.resolve(None).await.unwrap();
    let judged = [
        "/hashicorp/",
        "/docker/linux/static/stable/x86_64/docker-",
        "/cni/releases/download/",
    ];
    let paths: Vec<_> = setting
        .mirror
        .paths()
        .into_iter()
        .filter(|path| judged.iter().any(|prefix| path.starts_with(prefix)) && !path.ends_with("index.json"))
        .collect();
    assert_eq!(
        paths.len(),
        8,
        "two archives with list and signature, two without: {paths:?}"
    );
    for path in paths {
        let good = setting.mirror.bytes(&path);
        for index in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[index] ^= 4;
            setting.mirror.put(&path, bad.clone());
            let fresh = TempDir::new().unwrap();
            let cache = ArchiveCache::open(fresh.path()).unwrap();
            let source = Source {
                cache: &cache,
                ..setting.source()
            };
            let request = LockRequest {
                versions: BTreeMap::new(),
                arches: BTreeSet::from([Arch::X86_64]),
            };
            // The existing lock is what makes even the unsigned archives fail.
            let error = resolve(&request, &source, Some(&lock)).await.unwrap_err();
            assert_eq!(
                error.exit_class(),
                FailureClass::Verification,
                "{path} at {index}: {error}"
            );
            let chain = format!(
                "{error}: {}",
                std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
            );
            assert!(chain.contains(&Digest::of(&bad).to_string()), "{path}: {chain}");
            if !path.contains("SHA256SUMS") {
                assert!(chain.contains(&Digest::of(&good).to_string()), "{path}: {chain}");
                let error = source.archives(&lock, Arch::X86_64).await.unwrap_err();
                assert!(matches!(error, ReleaseError::Digest(_)), "{path}: {error}");
                let left = std::fs::read_dir(cache.folder()).unwrap().flatten();
                let kept = left.filter(|entry| {
                    entry.file_name().to_string_lossy() == format!("sha256-{}", Digest::of(&good))
                });
                assert_eq!(kept.count(), 0);
            }
        }
        setting.mirror.put(&path, good);
    }
    setting.resolve(Some(&lock)).await.unwrap();
}

#[tokio::test]
async fn a_longer_or_shorter_archive_is_refused() {
    let setting = Setting::new();
    let lock = setting.resolve(None).await.unwrap();
    let path = setting.archive_path(Product::Docker);
    let good = setting.mirror.bytes(&path);
    std::fs::remove_file(setting.cache.path(Digest::of(&good))).unwrap();
    for bad in [good[..good.len() - 1].to_vec(), [&good[..], b"x"].concat()] {
        setting.mirror.put(&path, bad);
        let error = setting.source().archives(&lock, Arch::X86_64).await.unwrap_err();
        assert!(matches!(error, ReleaseError::Size { .. }), "{error}");
        assert_eq!(error.exit_class(), FailureClass::Verification);
    }
    assert_eq!(setting.unfinished(), 0);
}

#[tokio::test]
async fn a_version_that_changes_is_refused_and_a_new_version_is_not() {
    let setting = Setting::new();
    let lock = setting.resolve(None).await.unwrap();
    // Even with a good signature over the new bytes.
    setting
        .mirror
        .release(Product::Nomad, "1.11.0", Arch::X86_64, archive(Product::Nomad, 2));
    let error = setting.resolve(Some(&lock)).await.unwrap_err();
    assert!(
        matches!(
            error,
            ReleaseError::ChangedUpstream {
                product: Product::Nomad,
                ..
            }
        ),
        "{error}"
    );
    setting
        .mirror
        .release(Product::Nomad, "1.12.0", Arch::X86_64, archive(Product::Nomad, 3));
    setting.mirror.put(
        "/hashicorp/nomad/index.json",
        br#"{"versions":{"1.11.0":{},"1.12.0":{}}}"#.to_vec(),
    );
    let newer = setting.resolve(Some(&lock)).await.unwrap();
    assert_eq!(
        newer.find(Product::Nomad, Arch::X86_64).unwrap().version,
        "1.12.0"
    );
}

#[tokio::test]
async fn versions_and_files_that_are_not_there_are_named() {
    let setting = Setting::new();
    let error = setting
        .resolve_version(Product::Nomad, "9.9.9")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ReleaseError::NoSuchVersion { version, .. } if version == "9.9.9"),
        "{error}"
    );
    assert_eq!(error.exit_class(), FailureClass::Usage);
    let error = setting
        .resolve_version(Product::Docker, "9.9.9")
        .await
        .unwrap_err();
    assert!(matches!(error, ReleaseError::NoArchive { .. }), "{error}");
    let error = setting
        .resolve_version(Product::Consul, "../etc")
        .await
        .unwrap_err();
    assert!(matches!(error, ReleaseError::VersionSyntax { .. }), "{error}");
    setting
        .mirror
        .remove("/hashicorp/consul/1.21.0/consul_1.21.0_SHA256SUMS.sig");
    let error = setting
        .resolve_version(Product::Consul, "1.21.0")
        .await
        .unwrap_err();
    assert!(matches!(error, ReleaseError::Unsigned { .. }), "{error}");
    assert_eq!(error.exit_class(), FailureClass::Verification);
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    let setting = Setting::new();
    let (nomad, docker) = (
        setting.archive_path(Product::Nomad),
        setting.archive_path(Product::Docker),
    );
    let index = "/hashicorp/nomad/index.json";
    setting
        .mirror
        .answer(&nomad, Answer::StatusFirst(503, 2, setting.mirror.bytes(&nomad)));
    setting
        .mirror
        .answer(&docker, Answer::BreakFirst(2, setting.mirror.bytes(&docker)));
    setting
        .mirror
        .answer(index, Answer::StatusFirst(429, 1, setting.mirror.bytes(index)));
    setting.resolve(None).await.unwrap();
    assert_eq!(setting.unfinished(), 0);

    // What does not pass is not tried again, and what never passes ends.
    setting
        .mirror
        .answer(index, Answer::StatusFirst(403, 9, Vec::new()));
    let before = setting.mirror.requests.load(Ordering::Relaxed);
    let request = |product| {
        let others = VERSIONS.into_iter().filter(move |(other, _)| *other != product);
        let versions = others
            .map(|(product, version)| (product, version.to_owned()))
            .collect();
        LockRequest {
            versions,
            arches: BTreeSet::from([Arch::X86_64]),
        }
    };
    let error = resolve(&request(Product::Nomad), &setting.source(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ReleaseError::Status { status, .. } if status == 403),
        "{error}"
    );
    assert!(setting.mirror.requests.load(Ordering::Relaxed) - before < 12);
    setting
        .mirror
        .answer(index, Answer::StatusFirst(500, 99, Vec::new()));
    let error = resolve(&request(Product::Nomad), &setting.source(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ReleaseError::Status { status, .. } if status == 500),
        "{error}"
    );
    assert_eq!(error.exit_class(), FailureClass::Network);

    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = Upstream::mirror(&format!("http://{closed}")).unwrap();
    let error = resolve(
        &request(Product::Cni),
        &Source {
            upstream: &nobody,
            ..setting.source()
        },
        None,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error, ReleaseError::Unreachable { attempts: 5, .. }),
        "{error}"
    );
    drop(setting.folder);
}
