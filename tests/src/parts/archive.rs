//! Owns how archives are written: the same inputs always give the same bytes.
//! Touches the files it is given.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{PartsError, hex};

/// The date of every member: the archives say nothing about when they were made (2025-01-01, seconds).
const MEMBER_TIME: u64 = 1_735_689_600;

/// The files of a folder, sorted by name.
pub(super) fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, PartsError> {
    let entries = std::fs::read_dir(folder).map_err(PartsError::io("read", folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(PartsError::io("read", folder))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    files.sort();
    Ok(files)
}

/// Writes a zip archive as HashiCorp's: members at the top, all executable but the licence.
pub(super) fn zip(archive: &Path, members: &[(String, PathBuf)]) -> Result<(), PartsError> {
    let fault = |source| PartsError::Zip {
        path: archive.to_owned(),
        source,
    };
    let file = File::create(archive).map_err(PartsError::io("make", archive))?;
    let mut writer = ZipWriter::new(BufWriter::new(file));
    for (name, path) in members {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(mode(name));
        writer.start_file(name.as_str(), options).map_err(fault)?;
        let mut source = File::open(path).map_err(PartsError::io("read", path))?;
        io::copy(&mut source, &mut writer).map_err(PartsError::io("write", archive))?;
    }
    let file = writer.finish().map_err(fault)?;
    file.into_inner()
        .map_err(|error| PartsError::io("write", archive)(error.into_error()))?;
    Ok(())
}

/// Writes a gzipped tar archive with one folder entry and the members below it, each name behind `prefix`.
pub(super) fn tgz(archive: &Path, prefix: &str, members: &[(String, PathBuf)]) -> Result<(), PartsError> {
    let fault = || PartsError::io("write", archive);
    let file = File::create(archive).map_err(PartsError::io("make", archive))?;
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(BufWriter::new(file), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    entry(&mut tar, prefix, 0o755, tar::EntryType::Directory, 0, io::empty()).map_err(fault())?;
    for (name, path) in members {
        let source = File::open(path).map_err(PartsError::io("read", path))?;
        let size = source.metadata().map_err(PartsError::io("read", path))?.len();
        entry(
            &mut tar,
            &format!("{prefix}{name}"),
            mode(name),
            tar::EntryType::Regular,
            size,
            source,
        )
        .map_err(fault())?;
    }
    tar.into_inner()
        .and_then(flate2::write::GzEncoder::finish)
        .and_then(|mut file| file.flush())
        .map_err(fault())
}

/// One member. The name is put in by hand: `tar::Header::set_path` would drop upstream's leading `./`.
fn entry(
    tar: &mut tar::Builder<impl io::Write>,
    name: &str,
    mode: u32,
    kind: tar::EntryType,
    size: u64,
    data: impl io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    let Some(field) = header.as_gnu_mut().and_then(|gnu| gnu.name.get_mut(..name.len())) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the name {name} is too long"),
        ));
    };
    field.copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MEMBER_TIME);
    header.set_size(size);
    header.set_cksum();
    tar.append(&header, data)
}

fn mode(name: &str) -> u32 {
    if matches!(name, "LICENSE" | "LICENSE.txt") {
        0o644
    } else {
        0o755
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, PartsError> {
    let mut file = File::open(path).map_err(PartsError::io("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = io::Read::read(&mut file, &mut buffer).map_err(PartsError::io("read", path))?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn members(folder: &Path) -> Vec<(String, PathBuf)> {
        for (name, text) in [("tool", "#!/bin/sh\n"), ("LICENSE.txt", "a licence\n")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        files(folder).unwrap()
    }

    #[test]
    fn the_same_members_give_the_same_bytes() {
        let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let digests = |round: &str| {
            let members = members(source.path());
            let (z, t) = (
                out.path().join(format!("{round}.zip")),
                out.path().join(format!("{round}.tgz")),
            );
            zip(&z, &members).unwrap();
            tgz(&t, "./", &members).unwrap();
            (sha256(&z).unwrap(), sha256(&t).unwrap())
        };
        let first = digests("first");
        // Another modification time must not show.
        let tool = File::options()
            .write(true)
            .open(source.path().join("tool"))
            .unwrap();
        tool.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(first, digests("second"));
    }

    #[test]
    fn members_keep_their_names_modes_and_bytes() {
        let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let members = members(source.path());
        let path = out.path().join("a.tgz");
        tgz(&path, "./", &members).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            found.push((name, entry.header().mode().unwrap(), text));
        }
        let expected = [
            ("./", 0o755, ""),
            ("./LICENSE.txt", 0o644, "a licence\n"),
            ("./tool", 0o755, "#!/bin/sh\n"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()))
        );

        let path = out.path().join("a.zip");
        zip(&path, &members).unwrap();
        let mut archive = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut tool = archive.by_name("tool").unwrap();
        assert_eq!(tool.unix_mode().unwrap() & 0o7777, 0o755);
        let mut text = String::new();
        tool.read_to_string(&mut text).unwrap();
        assert_eq!(text, "#!/bin/sh\n");
    }
}
