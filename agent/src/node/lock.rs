//! Owns that one process at a time acts on the node, by locks of the host.
//! Touches one file for each lock, below `/run`.

use std::ops::ControlFlow;
use std::time::Duration;

use thiserror::Error;

use super::wait::{self, Backoff, WaitError};
use crate::host::{FileError, FileLock, Files};

const FOLDER: &str = "/run/cos-agent";
/// Held while the node is made what it should be: by `apply` and `reconcile`.
pub(crate) const APPLY: &str = "/run/cos-agent/apply.lock";
/// Held while disks are brought up.
pub(crate) const DISKS: &str = "/run/cos-agent/disks.lock";
/// Held while the node is seen in or out: by `watch`, `drain`, `leave` and `eligible`.
pub(crate) const WATCH: &str = "/run/cos-agent/watch.lock";

/// A lock was not to be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Whether another process holds it could not be told.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process held it all the time.
    #[error("another cos-agent has been changing this node for {:.0} s: it holds {path}", after.as_secs_f64())]
    Held {
        /// The lock's file.
        path: &'static str,
        /// How long was waited.
        after: Duration,
    },
}

/// The lock; none if another process holds it.
pub(crate) fn take(files: &Files, path: &str) -> Result<Option<FileLock>, FileError> {
    files.make_directory(FOLDER, 0o755)?;
    files.try_lock(path)
}

/// The lock, as soon as nobody else holds it.
pub(crate) fn wait(files: &Files, path: &'static str, deadline: Duration) -> Result<FileLock, LockError> {
    let taken = wait::until(deadline, Backoff::LOCAL, || {
        Ok(match take(files, path)? {
            Some(lock) => ControlFlow::Break(lock),
            None => ControlFlow::Continue("another run holds the lock".to_owned()),
        })
    });
    taken.map_err(|error| match error {
        WaitError::Probe(error) => LockError::File(error),
        WaitError::Deadline { after, .. } => LockError::Held { path, after },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let first = take(&files, APPLY).unwrap();
        assert!(first.is_some());
        assert!(take(&files, APPLY).unwrap().is_none());
        assert!(take(&files, WATCH).unwrap().is_some());
        let held = wait(&files, APPLY, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(held, LockError::Held { path: APPLY, .. }), "{held}");
        drop(first);
        wait(&files, APPLY, Duration::ZERO).unwrap();
    }
}
