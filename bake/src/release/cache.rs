//! Owns the folder of downloaded archives, each named by its digest, and checked again on every use.
//! Touches that folder.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fetch::{Downloaded, PART_PREFIX};
use super::{FetchEvent, Fetcher, ReleaseError};
use crate::blocking::on_thread;
use crate::digest::{Digest, DigestMismatch};
use crate::folders;

/// Unfinished files older than this are another process's remains.
const STALE: Duration = Duration::from_hours(24);

/// Archives on disk, by digest.
#[derive(Debug, Clone)]
pub struct ArchiveCache {
    folder: PathBuf,
}

impl ArchiveCache {
    /// Opens, or makes, the folder `archives` of `cache`; removes what a killed process left half-way.
    pub fn open(cache: &Path) -> Result<Self, ReleaseError> {
        let folder = cache.join("archives");
        let fault = |source| ReleaseError::File {
            path: folder.clone(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(fault)?;
        remove_remains(&folder).map_err(fault)?;
        Ok(Self { folder })
    }

    /// cos-bake's own cache folder.
    pub fn default_root() -> Result<PathBuf, ReleaseError> {
        folders::cache().ok_or(ReleaseError::NoCacheFolder)
    }

    /// Folder that downloads go to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that holds, or would hold, an archive.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("sha256-{digest}"))
    }

    /// The archive, if it is here and its bytes still have the digest; a damaged one is removed and told of.
    pub async fn find(&self, digest: Digest, fetcher: &Fetcher) -> Result<Option<PathBuf>, ReleaseError> {
        let path = self.path(digest);
        let fault = |source| ReleaseError::File {
            path: path.clone(),
            source,
        };
        let file = path.clone();
        let actual = match on_thread(move || Digest::of_file(&file)).await {
            Ok((actual, _)) => actual,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(error)),
        };
        if let Err(mismatch) = DigestMismatch::check(path.display(), digest, actual) {
            std::fs::remove_file(&path).map_err(fault)?;
            fetcher.tell(FetchEvent::CacheDamaged { path, mismatch });
            return Ok(None);
        }
        Ok(Some(path))
    }

    /// Gives a download its name. The caller has judged the digest.
    pub fn keep(&self, download: Downloaded) -> Result<PathBuf, ReleaseError> {
        let path = self.path(download.digest);
        let fault = |source| ReleaseError::File {
            path: path.clone(),
            source,
        };
        // Data before name: after a crash the name must not stand over missing bytes.
        download.file.as_file().sync_all().map_err(fault)?;
        download.file.persist(&path).map_err(|error| fault(error.error))?;
        Ok(path)
    }
}

/// Removes what killed processes left half-way in a folder of the cache.
pub(crate) fn remove_remains(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let part = entry.file_name().to_string_lossy().starts_with(PART_PREFIX);
        let age = entry
            .metadata()
            .and_then(|data| data.modified())
            .map(|at| SystemTime::now().duration_since(at));
        if part && age.is_ok_and(|age| age.is_ok_and(|age| age > STALE)) {
            // Another process may have removed it a moment ago: nothing is lost either way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_half_way_goes_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, hours: u64| {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            let age = Duration::from_hours(hours);
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        file(".part-old", 25);
        file(".part-new", 1);
        file("sha256-00", 1000);
        remove_remains(folder.path()).unwrap();
        let entries = std::fs::read_dir(folder.path()).unwrap().flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, [".part-new", "sha256-00"]);
    }
}
