//! Owns that one process at a time acts on the node.
//! Touches one file for each lock, below `/run`.

use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::wait::{self, Backoff, WaitError};
use crate::host::Files;

/// Held while the node is made what it should be: by `apply` and `reconcile`.
pub(crate) const APPLY: &str = "/run/cos-agent/apply.lock";
/// Held while the node is seen in or out: by `watch`, `drain`, `leave` and `eligible`.
pub(crate) const WATCH: &str = "/run/cos-agent/watch.lock";

/// A lock was not to be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Whether another process holds it could not be told.
    #[error("could not take {}", path.display())]
    File {
        /// The lock's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process held it all the time.
    #[error("another cos-agent has been changing this node for {:.0} s: it holds {path}", after.as_secs_f64())]
    Held {
        /// The lock's file.
        path: &'static str,
        /// How long was waited.
        after: Duration,
    },
}

/// A lock that is held; the kernel lets go of it when the process ends, however it does.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

impl Lock {
    /// The lock; none if another process holds it.
    pub(crate) fn take(files: &Files, path: &str) -> Result<Option<Self>, LockError> {
        let path = files.locate(path);
        let lock = |source| LockError::File {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(lock)?;
        }
        let file = File::create(&path).map_err(lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(lock(source)),
        }
    }

    /// The lock, as soon as nobody else holds it.
    pub(crate) fn wait(files: &Files, path: &'static str, deadline: Duration) -> Result<Self, LockError> {
        let taken = wait::until(deadline, Backoff::LOCAL, || {
            Ok(match Self::take(files, path)? {
                Some(lock) => ControlFlow::Break(lock),
                None => ControlFlow::Continue("it is held".to_owned()),
            })
        });
        taken.map_err(|error| match error {
            WaitError::Probe(error) => error,
            WaitError::Deadline { after, .. } => LockError::Held { path, after },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let first = Lock::take(&files, APPLY).unwrap();
        assert!(first.is_some());
        assert!(Lock::take(&files, APPLY).unwrap().is_none());
        assert!(Lock::take(&files, WATCH).unwrap().is_some());
        let held = Lock::wait(&files, APPLY, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(held, LockError::Held { path: APPLY, .. }), "{held}");
        drop(first);
        Lock::wait(&files, APPLY, Duration::ZERO).unwrap();
    }
}
