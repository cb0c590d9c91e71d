//! Owns writing the manifest's files from an entry of the bundle, each checked while it is written.
//! Touches those files only; a file with a wrong byte leaves nothing behind.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::digest::{hexadecimal, sha256};
use super::error::BuilderError;
use super::payload::Entry;
use crate::bundle::{Archive, ArchiveFormat, BundleManifest, InstalledFile, Source};
use crate::host::Files;

/// Bytes that are copied at once.
const PIECE: usize = 256 * 1024;

/// What the manifest wants from each entry of the bundle.
pub(crate) struct Wanted<'m> {
    entries: BTreeMap<&'m str, From<'m>>,
}

/// How the files of one entry come out of it.
enum From<'m> {
    /// The entry is the file.
    Entry(Vec<&'m InstalledFile>),
    /// The entry is an archive with members.
    Archive(&'m Archive, BTreeMap<&'m str, Vec<&'m InstalledFile>>),
}

impl<'m> Wanted<'m> {
    /// Sorts the manifest's files by entry. A file of a component without an archive is an error.
    pub(crate) fn new(manifest: &'m BundleManifest) -> Result<Self, BuilderError> {
        let mut entries: BTreeMap<&str, From<'_>> = BTreeMap::new();
        for archive in manifest
            .components
            .values()
            .filter_map(|component| component.archive.as_ref())
        {
            entries.insert(&archive.entry, From::Archive(archive, BTreeMap::new()));
        }
        for file in &manifest.files {
            let entry = match &file.source {
                Source::Entry(entry) => entry,
                Source::Member { component, .. } => {
                    let archive = manifest
                        .components
                        .get(component)
                        .and_then(|component| component.archive.as_ref());
                    let missing = || BuilderError::Missing {
                        what: format!("an archive of the component {component} for {}", file.path),
                        container: "the manifest".to_owned(),
                    };
                    &archive.ok_or_else(missing)?.entry
                }
            };
            match (
                entries.entry(entry).or_insert_with(|| From::Entry(Vec::new())),
                &file.source,
            ) {
                (From::Entry(files), Source::Entry(_)) => files.push(file),
                (From::Archive(_, members), Source::Member { member, .. }) => {
                    members.entry(member).or_default().push(file);
                }
                _ => return Err(BuilderError::Unexpected { entry: entry.clone() }),
            }
        }
        Ok(Self { entries })
    }

    /// Names of all entries that must come.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'m str> {
        self.entries.keys().copied()
    }

    /// Writes every file of the entry; returns their count and bytes.
    pub(crate) fn install(&self, files: &Files, entry: &Entry) -> Result<(usize, u64), BuilderError> {
        let wanted = match self.entries.get(entry.name.as_str()) {
            None => {
                return Err(BuilderError::Unexpected {
                    entry: entry.name.clone(),
                });
            }
            Some(From::Entry(wanted)) => {
                wanted
                    .iter()
                    .try_for_each(|file| write(files, file, &mut entry.content.as_slice()))?;
                wanted.clone()
            }
            Some(From::Archive(archive, members)) => {
                let found = sha256(&entry.content);
                if found != archive.sha256 {
                    let what = format!("sha256 of {} in the bundle", entry.name);
                    return Err(BuilderError::Differs {
                        what,
                        expected: archive.sha256.clone(),
                        found,
                    });
                }
                match archive.format {
                    ArchiveFormat::Zip => unzip(files, entry, members)?,
                    ArchiveFormat::TarGz => untar(files, entry, members)?,
                }
                members.values().flatten().copied().collect()
            }
        };
        Ok((wanted.len(), wanted.iter().map(|file| file.size).sum()))
    }
}

fn unzip(
    files: &Files,
    entry: &Entry,
    members: &BTreeMap<&str, Vec<&InstalledFile>>,
) -> Result<(), BuilderError> {
    let mut archive =
        zip::ZipArchive::new(Cursor::new(&entry.content)).map_err(BuilderError::malformed(&entry.name))?;
    for (name, wanted) in members {
        for file in wanted {
            let mut member = match archive.by_name(name) {
                Ok(member) => member,
                Err(zip::result::ZipError::FileNotFound) => return Err(missing(name, entry)),
                Err(error) => {
                    return Err(BuilderError::malformed(format!("{name} in {}", entry.name))(
                        error,
                    ));
                }
            };
            write(files, file, &mut member)?;
        }
    }
    Ok(())
}

fn untar(
    files: &Files,
    entry: &Entry,
    members: &BTreeMap<&str, Vec<&InstalledFile>>,
) -> Result<(), BuilderError> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(entry.content.as_slice()));
    let mut left = members.clone();
    for member in archive.entries().map_err(BuilderError::malformed(&entry.name))? {
        let mut member = member.map_err(BuilderError::malformed(&entry.name))?;
        let path = member.path().map_err(BuilderError::malformed(&entry.name))?;
        let name = path.to_string_lossy().trim_start_matches("./").to_owned();
        if !member.header().entry_type().is_file() {
            continue;
        }
        let Some((wanted_name, wanted)) = left
            .keys()
            .find(|wanted| wanted.trim_start_matches("./") == name)
            .copied()
            .and_then(|key| left.remove_entry(key))
        else {
            continue;
        };
        match wanted.as_slice() {
            [file] => write(files, file, &mut member)?,
            several => {
                let mut content = Vec::new();
                member
                    .read_to_end(&mut content)
                    .map_err(BuilderError::malformed(format!(
                        "{wanted_name} in {}",
                        entry.name
                    )))?;
                several
                    .iter()
                    .try_for_each(|file| write(files, file, &mut content.as_slice()))?;
            }
        }
        if left.is_empty() {
            break;
        }
    }
    left.keys()
        .next()
        .map_or(Ok(()), |name| Err(missing(name, entry)))
}

fn missing(member: &str, entry: &Entry) -> BuilderError {
    BuilderError::Missing {
        what: member.to_owned(),
        container: entry.name.clone(),
    }
}

/// Writes one file, atomically; if size or digest is not the manifest's, the old content stays.
fn write(files: &Files, file: &InstalledFile, content: &mut dyn Read) -> Result<(), BuilderError> {
    let mut fault = None;
    let written = files.write_atomic_with(&file.path, file.mode, |output| {
        let mut hasher = Sha256::new();
        let mut size = 0;
        let mut piece = vec![0; PIECE];
        loop {
            let count = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    fault = Some(BuilderError::malformed(format!("the source of {}", file.path))(
                        source,
                    ));
                    return Err(io::ErrorKind::InvalidData.into());
                }
            };
            size += count as u64;
            hasher.update(&piece[..count]);
            output.write_all(&piece[..count])?;
            if size > file.size {
                // Whatever follows, the digest of a longer file is another one; stop before the disk is full.
                break;
            }
        }
        let found = hexadecimal(&hasher.finalize());
        if (size, &found) == (file.size, &file.sha256) {
            return Ok(());
        }
        fault = Some(BuilderError::Differs {
            what: format!("sha256 of {} ({} bytes)", file.path, file.size),
            expected: file.sha256.clone(),
            found: if size == file.size {
                found
            } else {
                format!("{found} ({size} bytes read)")
            },
        });
        Err(io::ErrorKind::InvalidData.into())
    });
    match fault {
        Some(fault) => Err(fault),
        None => written.map_err(BuilderError::file("install a file")),
    }
}
