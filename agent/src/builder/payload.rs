//! Owns reading a payload volume: header, manifest, then every entry of the bundle, each once and in order.
//! Touches the device, read-only.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::digest::{Hashing, sha256};
use super::error::BuilderError;
use super::parallel::ParallelReader;
use crate::bundle::{
    BundleManifest, MANIFEST_NAME, MANIFEST_VERSION, PAYLOAD_BUNDLE_OFFSET, PAYLOAD_MAGIC, PayloadHeader,
};

/// Reads in flight on the volume.
const IN_FLIGHT: usize = 32;

/// Longest manifest that is read into memory, in bytes; a real one has some 20 KB.
const LONGEST_MANIFEST: u64 = 16 * 1024 * 1024;

/// A payload volume whose header was read and agrees with the digest that was asked for.
pub(crate) struct Payload {
    device: PathBuf,
    file: File,
    /// The header.
    pub(crate) header: PayloadHeader,
}

/// One entry of the bundle, in memory.
pub(crate) struct Entry {
    /// Name in the tar.
    pub(crate) name: String,
    /// Content.
    pub(crate) content: Vec<u8>,
}

impl Payload {
    /// Opens the device and checks its first block: magic, header, the expected digest, zeros up to the end.
    pub(crate) fn open(device: &Path, bundle_sha256: &str) -> Result<Self, BuilderError> {
        let read = |source| BuilderError::Read {
            path: device.to_owned(),
            source,
        };
        let mut file = File::open(device).map_err(read)?;
        let mut block = Vec::new();
        Read::by_ref(&mut file)
            .take(PAYLOAD_BUNDLE_OFFSET)
            .read_to_end(&mut block)
            .map_err(read)?;
        let Some(rest) = block.strip_prefix(PAYLOAD_MAGIC.as_bytes()) else {
            return Err(BuilderError::NotAPayload {
                device: device.to_owned(),
            });
        };
        let what = || format!("the header of {}", device.display());
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("it has no end of line");
        let (line, zeros) = rest.split_at(end.map_err(BuilderError::malformed(what()))?);
        let header: PayloadHeader = serde_json::from_slice(line).map_err(BuilderError::malformed(what()))?;
        let differs = |what: String, expected: &str, found: &str| {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            if expected == found {
                Ok(())
            } else {
                Err(BuilderError::Differs {
                    what,
                    expected,
                    found,
                })
            }
        };
        differs(
            format!("bundle digest in {}", what()),
            bundle_sha256,
            &header.bundle_sha256,
        )?;
        let stray = zeros.iter().skip(1).filter(|byte| **byte != 0).count();
        differs(
            format!("count of bytes after {} that are not zero", what()),
            "0",
            &stray.to_string(),
        )?;
        Ok(Self {
            device: device.to_owned(),
            file,
            header,
        })
    }

    /// Reads the bundle: the manifest goes to `begin`, each other entry to `take`, until that says stop.
    /// Returns true if the bundle was read to its end and its digest is the expected one.
    pub(crate) fn read<'m>(
        self,
        begin: impl FnOnce(BundleManifest, Vec<u8>) -> Result<&'m BundleManifest, BuilderError>,
        mut take: impl FnMut(Entry) -> Result<bool, BuilderError>,
    ) -> Result<bool, BuilderError> {
        let Self { device, file, header } = self;
        let volume = ParallelReader::new(file, PAYLOAD_BUNDLE_OFFSET, header.bundle_size, IN_FLIGHT);
        let mut archive = tar::Archive::new(Hashing::new(volume));
        // A wrong byte and a broken device both end here; only the device's own errors have a raw error.
        let broken = |source: io::Error| match source.raw_os_error() {
            Some(_) => BuilderError::Read {
                path: device.clone(),
                source,
            },
            None => BuilderError::Malformed {
                what: "the bundle".to_owned(),
                source: source.into(),
            },
        };
        let mut entries = archive.entries().map_err(broken)?;
        let first = match entries.next() {
            Some(entry) => {
                read_entry(entry.map_err(broken)?, |_, size| size <= LONGEST_MANIFEST).map_err(broken)?
            }
            None => None,
        };
        let Some((manifest, _)) = first.filter(|(entry, _)| entry.name == MANIFEST_NAME) else {
            let container = "the bundle's first entry".to_owned();
            return Err(BuilderError::Missing {
                what: MANIFEST_NAME.to_owned(),
                container,
            });
        };
        let manifest = begin(parse(&manifest.content, &header)?, manifest.content)?;
        for entry in entries {
            let entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
            let Some((entry, offset)) =
                read_entry(entry, |name, size| expected_size(manifest, name) == Some(size))
                    .map_err(broken)?
            else {
                return Err(BuilderError::Unexpected { entry: name });
            };
            check_agent(manifest, &header, &entry, PAYLOAD_BUNDLE_OFFSET + offset)?;
            if !take(entry)? {
                return Ok(false);
            }
        }
        let (found, size) = archive.into_inner().finish().map_err(broken)?;
        if (&found, size) != (&header.bundle_sha256, header.bundle_size) {
            let what = format!("sha256 of the bundle on {}", device.display());
            return Err(BuilderError::Differs {
                what,
                expected: header.bundle_sha256,
                found,
            });
        }
        Ok(true)
    }
}

/// Reads a regular entry into memory if its name and size are wanted; also says where its content starts.
fn read_entry(
    mut entry: tar::Entry<'_, impl Read>,
    wanted: impl FnOnce(&str, u64) -> bool,
) -> io::Result<Option<(Entry, u64)>> {
    let name = entry.path()?.to_string_lossy().into_owned();
    if !entry.header().entry_type().is_file() || !wanted(&name, entry.size()) {
        return Ok(None);
    }
    let offset = entry.raw_file_position();
    let mut content = Vec::with_capacity(usize::try_from(entry.size()).map_err(io::Error::other)?);
    entry.read_to_end(&mut content)?;
    Ok(Some((Entry { name, content }, offset)))
}

/// Reads the manifest, after its digest.
fn parse(content: &[u8], header: &PayloadHeader) -> Result<BundleManifest, BuilderError> {
    let found = sha256(content);
    if found != header.manifest_sha256 {
        let what = format!("sha256 of {MANIFEST_NAME} in the bundle");
        return Err(BuilderError::Differs {
            what,
            expected: header.manifest_sha256.clone(),
            found,
        });
    }
    let manifest: BundleManifest =
        serde_json::from_slice(content).map_err(BuilderError::malformed("the bundle's manifest"))?;
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    let facts = [
        (
            "version of the bundle's manifest",
            MANIFEST_VERSION.to_string(),
            manifest.version.to_string(),
        ),
        (
            "architecture of the bundle, for this machine,",
            arch.to_owned(),
            manifest.arch.clone(),
        ),
    ];
    for (what, expected, found) in facts {
        if expected != found {
            return Err(BuilderError::Differs {
                what: what.to_owned(),
                expected,
                found,
            });
        }
    }
    Ok(manifest)
}

/// Size that the manifest says for an entry of the bundle; none if it does not name it.
fn expected_size(manifest: &BundleManifest, name: &str) -> Option<u64> {
    let archives = manifest
        .components
        .values()
        .filter_map(|component| component.archive.as_ref());
    let archive = archives
        .into_iter()
        .find(|archive| archive.entry == name)
        .map(|archive| archive.size);
    archive.or_else(|| {
        let from_entry = |file: &&crate::bundle::InstalledFile| {
            matches!(&file.source, crate::bundle::Source::Entry(entry) if entry == name)
        };
        manifest.files.iter().find(from_entry).map(|file| file.size)
    })
}

/// The header tells a few lines of shell where the agent lies; what they ran must be what is installed.
fn check_agent(
    manifest: &BundleManifest,
    header: &PayloadHeader,
    entry: &Entry,
    offset: u64,
) -> Result<(), BuilderError> {
    let is_agent = |file: &&crate::bundle::InstalledFile| {
        file.path == super::AGENT_PATH
            && matches!(&file.source, crate::bundle::Source::Entry(name) if *name == entry.name)
    };
    let Some(agent) = manifest.files.iter().find(is_agent) else {
        return Ok(());
    };
    let describe = |offset, size, sha256: &str| format!("{size} bytes at {offset} with sha256 {sha256}");
    let expected = describe(offset, agent.size, &agent.sha256);
    let found = describe(header.agent_offset, header.agent_size, &header.agent_sha256);
    if expected == found {
        return Ok(());
    }
    Err(BuilderError::Differs {
        what: "place of the agent in the payload's header".to_owned(),
        expected,
        found,
    })
}
