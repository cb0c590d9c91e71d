//! Owns locks between processes: one holder for a path, until it lets go or ends, however it ends.
//! Touches files below the root path.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{FileError, Files};

/// A lock that is held; dropping it lets go.
#[derive(Debug)]
pub struct FileLock {
    /// Open as long as the lock is held.
    _file: File,
}

impl Files {
    /// Takes the lock of a path (`flock`), which is made with mode 0600 if it is not there; none if somebody else
    /// holds it.
    pub fn try_lock(&self, path: impl AsRef<Path>) -> Result<Option<FileLock>, FileError> {
        let path = self.locate(path);
        let locked = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(TryLockError::Error)
            .and_then(|file| file.try_lock().map(|()| file));
        match locked {
            Ok(file) => Ok(Some(FileLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(FileError {
                action: "lock",
                path,
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_until_it_lets_go() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let held = files.try_lock("/lock").unwrap().unwrap();
        assert_eq!(files.mode("/lock").unwrap(), Some(0o600));
        assert!(files.try_lock("/lock").unwrap().is_none());
        drop(held);
        assert!(files.try_lock("/lock").unwrap().is_some());
        assert!(files.try_lock("/none/lock").is_err());
    }
}
