//! Owns the way from "the latest Nomad" to a locked archive, and from a locked archive to a file.
//! Touches the network and the archive cache, through [`crate::release`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use cos_agent::bundle::Trust;
use futures::future::try_join_all;

use super::{Lock, LockedArchive, same_as_before};
use crate::digest::{Digest, DigestMismatch};
use crate::release::signature::{self, Signer, TrustedKeys};
use crate::release::{
    Arch, ArchiveCache, Checksums, Fetcher, Product, ReleaseError, Upstream, docker_versions, newest_github,
    newest_hashicorp, version_is_plain,
};

/// Largest listing taken; Nomad's `index.json` is some 3 MiB.
const LISTING_LIMIT: u64 = 64 * 1024 * 1024;
/// Largest digest list or signature taken; real ones have 5 KiB and less.
const CHECKSUMS_LIMIT: u64 = 1024 * 1024;

/// What to lock.
#[derive(Debug, Clone, Default)]
pub struct LockRequest {
    /// Exact versions; a product that is not named gets its latest stable version.
    pub versions: BTreeMap<Product, String>,
    /// Architectures to lock.
    pub arches: BTreeSet<Arch>,
}

/// Where archives come from, and what is believed of them.
pub struct Source<'a> {
    /// Addresses.
    pub upstream: &'a Upstream,
    /// Downloads.
    pub fetcher: &'a Fetcher,
    /// Archives that are here already.
    pub cache: &'a ArchiveCache,
    /// Keys whose signatures are believed.
    pub keys: &'a TrustedKeys,
}

/// Resolves versions, verifies signatures, and downloads every archive once, so that each is known to exist
/// and to be what its digest says.
///
/// What `existing` locks under the same version must not have changed. An architecture for which upstream
/// has no archive is left out; a product that has none at all is an error.
pub async fn resolve(
    request: &LockRequest,
    source: &Source<'_>,
    existing: Option<&Lock>,
) -> Result<Lock, ReleaseError> {
    let products = Product::ALL
        .into_iter()
        .map(|product| source.lock_product(product, request, existing));
    Ok(Lock::new(try_join_all(products).await?.into_iter().flatten()))
}

impl Source<'_> {
    /// The files of all components for an architecture, downloaded if they are not in the cache, and verified.
    pub async fn archives(
        &self,
        lock: &Lock,
        arch: Arch,
    ) -> Result<BTreeMap<Product, PathBuf>, ReleaseError> {
        lock.check_signers(self.keys)?;
        let files = Product::ALL.into_iter().map(async |product| {
            let file = self.file(lock.archive(product, arch)?).await?;
            Ok::<_, ReleaseError>((product, file))
        });
        Ok(try_join_all(files).await?.into_iter().collect())
    }

    /// The file of a locked archive.
    async fn file(&self, locked: &LockedArchive) -> Result<PathBuf, ReleaseError> {
        if let Some(path) = self.cache.find(locked.sha256, self.fetcher).await? {
            return Ok(path);
        }
        let LockedArchive {
            component,
            version,
            arch,
            ..
        } = locked;
        // A mirror that is named now goes before the address of the time of locking: the digest decides anyway.
        let url = if self.upstream.is_official() {
            locked.url.clone()
        } else {
            self.upstream.archive(*component, version, *arch)
        };
        let download = self
            .fetcher
            .download(&url, self.cache.folder(), Some(locked.size))
            .await?;
        let Some(download) = download else {
            return Err(ReleaseError::NoSuchVersion {
                product: *component,
                version: version.clone(),
                url,
            });
        };
        DigestMismatch::check(&url, locked.sha256, download.digest)?;
        self.cache.keep(download)
    }

    async fn lock_product(
        &self,
        product: Product,
        request: &LockRequest,
        existing: Option<&Lock>,
    ) -> Result<Vec<LockedArchive>, ReleaseError> {
        let version = match request.versions.get(&product) {
            Some(version) if version_is_plain(version) => version.clone(),
            Some(version) => {
                return Err(ReleaseError::VersionSyntax {
                    product,
                    version: version.clone(),
                });
            }
            None => self.newest(product, &request.arches).await?,
        };
        let signed = if product.is_signed() {
            Some(self.checksums(product, &version).await?)
        } else {
            None
        };
        let archives = request.arches.iter().map(async |&arch| {
            let archive = match &signed {
                Some((checksums, signer)) => {
                    self.lock_signed(product, &version, arch, checksums, signer)
                        .await?
                }
                None => self.lock_first_use(product, &version, arch).await?,
            };
            if let Some(archive) = &archive {
                same_as_before(existing, archive)?;
            }
            Ok::<_, ReleaseError>(archive)
        });
        let archives: Vec<_> = try_join_all(archives).await?.into_iter().flatten().collect();
        if archives.is_empty() {
            let arches: Vec<_> = request.arches.iter().map(|arch| arch.name()).collect();
            return Err(ReleaseError::NoArchive {
                product,
                version,
                arches: arches.join(", "),
            });
        }
        Ok(archives)
    }

    /// The latest stable version.
    async fn newest(&self, product: Product, arches: &BTreeSet<Arch>) -> Result<String, ReleaseError> {
        if product == Product::Docker {
            return self.newest_docker(arches).await;
        }
        let url = self.upstream.listing(product, Arch::X86_64);
        let listing = self.fetcher.get(&url, LISTING_LIMIT).await?;
        let listing = listing.ok_or_else(|| ReleaseError::NoStableVersion {
            product,
            url: url.clone(),
        })?;
        let newest = if product == Product::Cni {
            newest_github(&listing)
        } else {
            newest_hashicorp(&listing)
        };
        let newest = newest.map_err(|source| ReleaseError::Malformed {
            url: url.clone(),
            what: "list of versions",
            source: Some(source.into()),
        })?;
        newest
            .map(|version| version.to_string())
            .ok_or(ReleaseError::NoStableVersion { product, url })
    }

    /// Docker lists each architecture by itself: the newest version that all of them have.
    async fn newest_docker(&self, arches: &BTreeSet<Arch>) -> Result<String, ReleaseError> {
        let listings = arches.iter().map(async |&arch| {
            let url = self.upstream.listing(Product::Docker, arch);
            Ok::<_, ReleaseError>((self.fetcher.get(&url, LISTING_LIMIT).await?, url))
        });
        let mut common: Option<BTreeSet<_>> = None;
        let mut last = String::new();
        for (listing, url) in try_join_all(listings).await? {
            last = url;
            let Some(listing) = listing else { continue };
            let versions = docker_versions(&String::from_utf8_lossy(&listing));
            common = Some(match common {
                Some(before) => before.intersection(&versions).copied().collect(),
                None => versions,
            });
        }
        let newest = common.and_then(|versions| versions.last().map(ToString::to_string));
        newest.ok_or(ReleaseError::NoStableVersion {
            product: Product::Docker,
            url: last,
        })
    }

    /// The digest list of a version, once its signature holds.
    async fn checksums(&self, product: Product, version: &str) -> Result<(Checksums, Signer), ReleaseError> {
        let url = self.upstream.checksums(product, version);
        let signature_url = format!("{url}.sig");
        let list = self.fetcher.get(&url, CHECKSUMS_LIMIT).await?;
        let Some(list) = list else {
            return Err(ReleaseError::NoSuchVersion {
                product,
                version: version.to_owned(),
                url,
            });
        };
        let signature = self.fetcher.get(&signature_url, CHECKSUMS_LIMIT).await?;
        let Some(signature) = signature else {
            return Err(ReleaseError::Unsigned { url, signature_url });
        };
        let judged = signature::verify(self.keys, &list, &signature, SystemTime::now());
        let signer = judged.map_err(|source| ReleaseError::Signature {
            url: url.clone(),
            sha256: Digest::of(&list),
            signature_sha256: Digest::of(&signature),
            source: Box::new(source),
        })?;
        let checksums = Checksums::parse(&list);
        let checksums = checksums.ok_or(ReleaseError::Malformed {
            url,
            what: "list of digests",
            source: None,
        })?;
        Ok((checksums, signer))
    }

    async fn lock_signed(
        &self,
        product: Product,
        version: &str,
        arch: Arch,
        checksums: &Checksums,
        signer: &Signer,
    ) -> Result<Option<LockedArchive>, ReleaseError> {
        let Some(sha256) = checksums.get(&product.archive_name(version, arch)) else {
            return Ok(None);
        };
        let url = self.upstream.archive(product, version, arch);
        let size = match self.cache.find(sha256, self.fetcher).await? {
            Some(path) => {
                let fault = |source| ReleaseError::File {
                    path: path.clone(),
                    source,
                };
                std::fs::metadata(&path).map_err(fault)?.len()
            }
            None => match self.fetcher.download(&url, self.cache.folder(), None).await? {
                Some(download) => {
                    DigestMismatch::check(&url, sha256, download.digest)?;
                    let size = download.size;
                    self.cache.keep(download)?;
                    size
                }
                None => return Ok(None),
            },
        };
        Ok(Some(LockedArchive {
            component: product,
            arch,
            version: version.to_owned(),
            url,
            sha256,
            size,
            trust: Trust::Signed,
            signed_by: Some(signer.certificate.clone()),
            signing_key: Some(signer.subkey.clone()),
        }))
    }

    /// Downloaded each time, cache or not: what upstream serves now is compared with what was locked.
    async fn lock_first_use(
        &self,
        product: Product,
        version: &str,
        arch: Arch,
    ) -> Result<Option<LockedArchive>, ReleaseError> {
        let url = self.upstream.archive(product, version, arch);
        let download = self.fetcher.download(&url, self.cache.folder(), None).await?;
        let Some(download) = download else { return Ok(None) };
        let (sha256, size) = (download.digest, download.size);
        self.cache.keep(download)?;
        Ok(Some(LockedArchive {
            component: product,
            arch,
            version: version.to_owned(),
            url,
            sha256,
            size,
            trust: Trust::FirstUse,
            signed_by: None,
            signing_key: None,
        }))
    }
}
