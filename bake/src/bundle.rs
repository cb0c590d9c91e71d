//! Owns the bundle: one deterministic tar with every byte that a node gets, and the manifest that says so.
//! Touches the folder of bundles in the cache; archives and the agent for reading.
//!
//! Files are streamed: a bundle of 500 MB is made in a few megabytes of memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cos_agent::bundle::{
    Archive, BundleManifest, Component, InstalledFile, MANIFEST_NAME, MANIFEST_VERSION, Source as FileSource,
    Trust,
};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::blocking::on_thread;
use crate::digest::{Digest, DigestMismatch, DigestWriter};
use crate::lock::{Lock, Source};
use crate::release::{Arch, FetchEvent, PART_PREFIX, Product, ReleaseError};

mod agent;
mod layout;
mod members;
mod shelf;

pub use agent::{AgentBinary, AgentOrigin, agent_binary};

/// Raised when the same inputs would give another tar, so that no older bundle is reused.
const FORMAT: u32 = 1;

/// The agent's name among the components.
const AGENT: &str = "cos-agent";

/// A bundle on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The tar.
    pub path: PathBuf,
    /// Digest of the tar.
    pub sha256: Digest,
    /// Length of the tar in bytes.
    pub size: u64,
    /// What is in it.
    pub manifest: BundleManifest,
    /// Digest of the manifest's bytes inside the tar.
    pub manifest_sha256: Digest,
    /// Where the agent's bytes begin in the tar.
    pub agent_offset: u64,
    /// Length of the agent in bytes.
    pub agent_size: u64,
    /// Digest of the agent.
    pub agent_sha256: Digest,
    /// Whether the tar was there already, made from the same inputs.
    pub reused: bool,
}

/// Everything that decides the bytes of a bundle.
#[derive(Serialize)]
struct Inputs<'a> {
    format: u32,
    agent_version: &'a str,
    arch: &'a str,
    archives: Vec<(&'a str, &'a str, Digest, u64, Trust)>,
    agent: Digest,
    own_files: Vec<(&'a str, u32, Digest)>,
    directories: Vec<cos_agent::bundle::Directory>,
    links: Vec<cos_agent::bundle::Link>,
    users: Vec<cos_agent::bundle::User>,
}

/// Makes the bundle for an architecture, or finds the one that was made from the same inputs.
///
/// `folder` keeps a few bundles, those that were used last. Archives are downloaded only if a bundle has to be made. The work on files runs on
/// a thread of its own.
pub async fn prepare(
    source: &Source<'_>,
    lock: &Lock,
    arch: Arch,
    agent: &AgentBinary,
    folder: &Path,
) -> Result<Bundle, ReleaseError> {
    match made_before(source, lock, arch, agent, folder).await? {
        Some(bundle) => Ok(bundle),
        None => make(source, lock, arch, agent, folder).await,
    }
}

/// The bundle that was made from the same inputs, if there is one. Downloads nothing.
pub async fn made_before(
    source: &Source<'_>,
    lock: &Lock,
    arch: Arch,
    agent: &AgentBinary,
    folder: &Path,
) -> Result<Option<Bundle>, ReleaseError> {
    lock.check_signers(source.keys)?;
    let (lock, agent, folder) = (lock.clone(), agent.path.clone(), folder.to_owned());
    match on_thread(move || find(&lock, arch, &agent, &folder)).await? {
        Ok(bundle) => Ok(Some(bundle)),
        Err(Absent::Damaged { path, mismatch }) => {
            source.fetcher.tell(FetchEvent::CacheDamaged { path, mismatch });
            Ok(None)
        }
        Err(Absent::NotMade) => Ok(None),
    }
}

/// Makes the bundle, whether there is one or not. Archives that are not in the cache are downloaded.
pub async fn make(
    source: &Source<'_>,
    lock: &Lock,
    arch: Arch,
    agent: &AgentBinary,
    folder: &Path,
) -> Result<Bundle, ReleaseError> {
    let archives = source.archives(lock, arch).await?;
    let (lock, agent, folder) = (lock.clone(), agent.path.clone(), folder.to_owned());
    on_thread(move || build(&lock, arch, &archives, &agent, &folder)).await
}

/// Makes the bundle from archives that are here, and keeps it in `folder`. Blocks.
pub fn build(
    lock: &Lock,
    arch: Arch,
    archives: &BTreeMap<Product, PathBuf>,
    agent: &Path,
    folder: &Path,
) -> Result<Bundle, ReleaseError> {
    std::fs::create_dir_all(folder).map_err(on(folder))?;
    let (agent_sha256, agent_size) = agent::check(agent, arch)?;
    let mut files = own_files(agent_sha256, agent_size);
    let mut components = BTreeMap::from([(AGENT.to_owned(), own_component())]);
    for product in Product::ALL {
        let locked = lock.archive(product, arch)?;
        let path = archives
            .get(&product)
            .ok_or(ReleaseError::NotLocked { product, arch })?;
        // Nothing is unpacked before the archive is known to be the locked one.
        let (actual, size) = Digest::of_file(path).map_err(on(path))?;
        DigestMismatch::check(path.display(), locked.sha256, actual)?;
        let archive = Archive {
            entry: entry_name(product, &locked.version, arch),
            format: layout::format(product),
            sha256: locked.sha256.to_string(),
            size,
        };
        files.extend(members::installed(product, path, archive.format)?);
        let component = Component {
            version: locked.version.clone(),
            trust: locked.trust,
            archive: Some(archive),
        };
        components.insert(product.name().to_owned(), component);
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let manifest = BundleManifest {
        version: MANIFEST_VERSION,
        arch: arch.name().to_owned(),
        components,
        directories: layout::directories(),
        files,
        links: layout::links(),
        users: layout::users(),
    };
    let inputs = inputs_digest(lock, arch, agent_sha256)?;
    let path = folder.join(format!("{inputs}.tar"));
    let written = write_tar(&manifest, lock, arch, archives, agent, folder)?;
    // The digest goes first: a tar without one would be made again, a digest without its tar does nothing.
    crate::lock::write_whole(
        &folder.join(format!("{inputs}.sha256")),
        format!("{}\n", written.1).as_bytes(),
    )
    .map_err(on(&path))?;
    written.0.persist(&path).map_err(|error| on(&path)(error.error))?;
    shelf::prune(folder, SystemTime::now());
    describe(&path, written.1, written.2, false)
}

/// Why there is no bundle to reuse.
enum Absent {
    NotMade,
    Damaged { path: PathBuf, mismatch: DigestMismatch },
}

/// The bundle that was made from the same inputs, if its bytes are still what they were.
fn find(
    lock: &Lock,
    arch: Arch,
    agent: &Path,
    folder: &Path,
) -> Result<Result<Bundle, Absent>, ReleaseError> {
    let (agent_sha256, _) = agent::check(agent, arch)?;
    let inputs = inputs_digest(lock, arch, agent_sha256)?;
    let path = folder.join(format!("{inputs}.tar"));
    let Ok(recorded) = std::fs::read_to_string(folder.join(format!("{inputs}.sha256"))) else {
        return Ok(Err(Absent::NotMade));
    };
    let (actual, size) = match Digest::of_file(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(Absent::NotMade)),
        Err(error) => return Err(on(&path)(error)),
    };
    let Ok(recorded) = recorded.trim_end().parse() else {
        return Ok(Err(Absent::NotMade));
    };
    if let Err(mismatch) = DigestMismatch::check(path.display(), recorded, actual) {
        return Ok(Err(Absent::Damaged { path, mismatch }));
    }
    let bundle = describe(&path, actual, size, true)?;
    // The record beside the tar is no proof: what the tar says of itself must be what is locked now.
    for product in Product::ALL {
        let locked = lock.archive(product, arch)?;
        let packed = bundle
            .manifest
            .components
            .get(product.name())
            .and_then(|component| component.archive.as_ref());
        let same = packed.is_some_and(|packed| packed.sha256 == locked.sha256.to_string());
        if !same {
            return Ok(Err(Absent::NotMade));
        }
    }
    if bundle.agent_sha256 != agent_sha256 {
        return Ok(Err(Absent::NotMade));
    }
    shelf::used(&path);
    Ok(Ok(bundle))
}

/// Digest of everything that decides the bytes of a bundle.
fn inputs_digest(lock: &Lock, arch: Arch, agent: Digest) -> Result<Digest, ReleaseError> {
    let archives = Product::ALL.into_iter().map(|product| {
        let locked = lock.archive(product, arch)?;
        Ok((
            product.name(),
            locked.version.as_str(),
            locked.sha256,
            locked.size,
            locked.trust,
        ))
    });
    let own = layout::OWN_FILES
        .iter()
        .map(|file| (file.path, file.mode, Digest::of(file.content.as_bytes())));
    let inputs = Inputs {
        format: FORMAT,
        agent_version: env!("CARGO_PKG_VERSION"),
        arch: arch.name(),
        archives: archives.collect::<Result<_, ReleaseError>>()?,
        agent,
        own_files: own.collect(),
        directories: layout::directories(),
        links: layout::links(),
        users: layout::users(),
    };
    Ok(Digest::of(&to_json(&inputs, Path::new(MANIFEST_NAME))?))
}

fn to_json(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, ReleaseError> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| on(path)(error.into()))?;
    json.push(b'\n');
    Ok(json)
}

fn own_component() -> Component {
    Component {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust: Trust::Own,
        archive: None,
    }
}

/// The files that are COS's own: the agent and what it installs as it is.
fn own_files(agent_sha256: Digest, agent_size: u64) -> Vec<InstalledFile> {
    let texts = layout::OWN_FILES.iter().map(|file| InstalledFile {
        path: file.path.to_owned(),
        mode: file.mode,
        sha256: Digest::of(file.content.as_bytes()).to_string(),
        size: file.content.len() as u64,
        source: FileSource::Entry(layout::own_entry(file.path)),
    });
    let agent = InstalledFile {
        path: layout::AGENT_PATH.to_owned(),
        mode: 0o755,
        sha256: agent_sha256.to_string(),
        size: agent_size,
        source: FileSource::Entry(layout::own_entry(layout::AGENT_PATH)),
    };
    texts.chain([agent]).collect()
}

fn entry_name(product: Product, version: &str, arch: Arch) -> String {
    format!("archives/{}", product.archive_name(version, arch))
}

/// Writes the tar into a temporary file; returns it with digest and length.
fn write_tar(
    manifest: &BundleManifest,
    lock: &Lock,
    arch: Arch,
    archives: &BTreeMap<Product, PathBuf>,
    agent: &Path,
    folder: &Path,
) -> Result<(NamedTempFile, Digest, u64), ReleaseError> {
    let mut file = tempfile::Builder::new()
        .prefix(PART_PREFIX)
        .tempfile_in(folder)
        .map_err(on(folder))?;
    let mut tar = tar::Builder::new(DigestWriter::new(io::BufWriter::new(file.as_file_mut())));
    let json = to_json(manifest, folder)?;
    append(&mut tar, MANIFEST_NAME, json.len() as u64, json.as_slice()).map_err(on(folder))?;
    for product in Product::ALL {
        let locked = lock.archive(product, arch)?;
        let path = archives
            .get(&product)
            .ok_or(ReleaseError::NotLocked { product, arch })?;
        let entry = entry_name(product, &locked.version, arch);
        append_file(&mut tar, &entry, path, locked.sha256)?;
    }
    for file in manifest
        .files
        .iter()
        .filter(|file| file.path != layout::AGENT_PATH)
    {
        let FileSource::Entry(entry) = &file.source else {
            continue;
        };
        let own = layout::OWN_FILES.iter().find(|own| own.path == file.path);
        let content = own.map(|own| own.content).unwrap_or_default();
        append(&mut tar, entry, content.len() as u64, content.as_bytes()).map_err(on(folder))?;
    }
    let expected = manifest.files.iter().find(|file| file.path == layout::AGENT_PATH);
    let expected = expected
        .and_then(|file| file.sha256.parse().ok())
        .unwrap_or_else(|| Digest::of(b""));
    append_file(&mut tar, &layout::own_entry(layout::AGENT_PATH), agent, expected)?;
    let mut writer = tar.into_inner().map_err(on(folder))?;
    writer.flush().map_err(on(folder))?;
    let (digest, size) = writer.finish();
    file.as_file().sync_all().map_err(on(folder))?;
    Ok((file, digest, size))
}

/// Appends a file, and makes sure that what was copied is what was judged a moment ago.
fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    path: &Path,
    expected: Digest,
) -> Result<(), ReleaseError> {
    let file = File::open(path).map_err(on(path))?;
    let size = file.metadata().map_err(on(path))?.len();
    let mut reader = HashingReader {
        inner: file.take(size),
        hash: DigestWriter::new(io::sink()),
    };
    append(tar, name, size, &mut reader).map_err(on(path))?;
    let (actual, _) = reader.hash.finish();
    Ok(DigestMismatch::check(path.display(), expected, actual)?)
}

/// Appends an entry whose header holds nothing of this machine: no time, no owner.
fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    tar.append(&header, content)
}

struct HashingReader<R> {
    inner: R,
    hash: DigestWriter<io::Sink>,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.write_all(&buffer[..length])?;
        Ok(length)
    }
}

/// Reads from the tar itself what others need to know of it, whether it was just made or found.
fn describe(path: &Path, sha256: Digest, size: u64, reused: bool) -> Result<Bundle, ReleaseError> {
    let unreadable = |reason: &str, source: Option<io::Error>| ReleaseError::Archive {
        path: path.to_owned(),
        reason: reason.to_owned(),
        source: source.map(Into::into),
    };
    let mut tar = tar::Archive::new(BufReader::new(File::open(path).map_err(on(path))?));
    let mut manifest = None;
    let mut agent = None;
    let agent_entry = layout::own_entry(layout::AGENT_PATH);
    for entry in tar.entries_with_seek().map_err(on(path))? {
        let mut entry = entry.map_err(|error| unreadable("it is not a readable tar", Some(error)))?;
        let name = entry.path_bytes().into_owned();
        if manifest.is_none() {
            if name != MANIFEST_NAME.as_bytes() {
                return Err(unreadable("its first entry is not the manifest", None));
            }
            let mut json = Vec::new();
            entry.read_to_end(&mut json).map_err(on(path))?;
            let parsed: BundleManifest = serde_json::from_slice(&json)
                .map_err(|error| unreadable("its manifest cannot be read", Some(error.into())))?;
            manifest = Some((parsed, Digest::of(&json)));
        } else if name == agent_entry.as_bytes() {
            agent = Some((entry.raw_file_position(), entry.size()));
        }
    }
    let (manifest, manifest_sha256) = manifest.ok_or_else(|| unreadable("it is empty", None))?;
    let (agent_offset, agent_size) = agent.ok_or_else(|| unreadable("it has no agent", None))?;
    let mut file = File::open(path).map_err(on(path))?;
    file.seek(io::SeekFrom::Start(agent_offset)).map_err(on(path))?;
    let (agent_sha256, _) = Digest::of_reader(file.take(agent_size)).map_err(on(path))?;
    let path = path.to_owned();
    Ok(Bundle {
        path,
        sha256,
        size,
        manifest,
        manifest_sha256,
        agent_offset,
        agent_size,
        agent_sha256,
        reused,
    })
}

/// Names the file that an operation failed on.
fn on(path: &Path) -> impl Fn(io::Error) -> ReleaseError {
    let path = path.to_owned();
    move |source| ReleaseError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
pub(crate) mod tests;
