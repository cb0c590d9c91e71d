//! Owns reading upstream's archives: which members are installed, with digest and length of each.
//! Touches the archive, for reading; no member is held in memory.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use cos_agent::bundle::{ArchiveFormat, InstalledFile, Source};
use flate2::bufread::MultiGzDecoder;

use super::{layout, on};
use crate::digest::Digest;
use crate::release::{Product, ReleaseError};

/// Largest member taken: some ten times today's largest. An archive that unpacks without end stops here.
const MEMBER_LIMIT: u64 = 2 * 1024 * 1024 * 1024;

/// The files that an archive puts on a node.
pub(super) fn installed(
    product: Product,
    path: &Path,
    format: ArchiveFormat,
) -> Result<Vec<InstalledFile>, ReleaseError> {
    let fault =
        |reason: String, source: Option<Box<dyn std::error::Error + Send + Sync>>| ReleaseError::Archive {
            path: path.to_owned(),
            reason: format!("{product}: {reason}"),
            source,
        };
    let file = BufReader::new(File::open(path).map_err(on(path))?);
    let mut files: Vec<InstalledFile> = Vec::new();
    let mut take = |member: &str, content: &mut dyn Read| -> io::Result<()> {
        let Some(name) = layout::program(product, member) else {
            return Ok(());
        };
        let (sha256, size) = Digest::of_reader(content.take(MEMBER_LIMIT + 1))?;
        if size > MEMBER_LIMIT {
            return Err(io::Error::other(format!(
                "{member} unpacks to more than {MEMBER_LIMIT} bytes"
            )));
        }
        let path = format!("{}/{name}", layout::folder(product));
        if files.iter().any(|file| file.path == path) {
            return Err(io::Error::other(format!("{member} comes twice")));
        }
        let source = Source::Member {
            component: product.name().to_owned(),
            member: member.to_owned(),
        };
        files.push(InstalledFile {
            path,
            mode: 0o755,
            sha256: sha256.to_string(),
            size,
            source,
        });
        Ok(())
    };
    let read = match format {
        ArchiveFormat::Zip => unzip(file, &mut take),
        ArchiveFormat::TarGz => untar(file, &mut take),
    };
    read.map_err(|error| fault("it cannot be unpacked".to_owned(), Some(error.into())))?;
    let carried = |name: &&str| {
        files
            .iter()
            .any(|file| file.path == format!("{}/{name}", layout::folder(product)))
    };
    let missing: Vec<_> = layout::required(product)
        .into_iter()
        .filter(|name| !carried(name))
        .collect();
    if missing.is_empty() {
        Ok(files)
    } else {
        Err(fault(format!("it lacks {}", missing.join(", ")), None))
    }
}

type Take<'a> = dyn FnMut(&str, &mut dyn Read) -> io::Result<()> + 'a;

fn unzip(file: BufReader<File>, take: &mut Take<'_>) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(io::Error::other)?;
        if member.is_file() {
            let name = member.name().map_err(io::Error::other)?.into_owned();
            take(&name, &mut member)?;
        }
    }
    Ok(())
}

fn untar(file: BufReader<File>, take: &mut Take<'_>) -> io::Result<()> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(file));
    for member in archive.entries()? {
        let mut member = member?;
        if member.header().entry_type().is_file() {
            let name = String::from_utf8(member.path_bytes().into_owned()).map_err(io::Error::other)?;
            take(&name, &mut member)?;
        }
    }
    Ok(())
}
