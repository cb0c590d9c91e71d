//! Owns the way of a payload's entries to files: read in order on one thread, unpacked on others, none missing.
//! Touches the volume, which is only read, and through `extract` the machine's files.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use super::error::BuilderError;
use super::extract::Wanted;
use super::machine::Machine;
use super::payload::{Entry, Payload};
use crate::bundle::BundleManifest;

/// Entries that are unpacked at once. One more is being read, so that memory holds three archives at most:
/// some 180 MB with today's releases.
const WORKERS: usize = 2;

/// Reads the volume on this thread and writes files on others; returns count and bytes of the files.
pub(crate) fn write_files<'m>(
    machine: &Machine<'_>,
    payload: Payload,
    begin: impl FnOnce(BundleManifest, Vec<u8>) -> Result<&'m BundleManifest, BuilderError>,
) -> Result<(usize, u64), BuilderError> {
    let wanted = OnceLock::new();
    let missing: RefCell<BTreeSet<&str>> = RefCell::default();
    let (sender, receiver) = mpsc::sync_channel::<Entry>(0);
    let receiver = Mutex::new(Some(receiver));
    let (read, written) = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| work(machine, &receiver, &wanted)))
            .collect();
        let read = payload.read(
            |manifest, bytes| {
                let manifest = begin(manifest, bytes)?;
                let sorted = Wanted::new(manifest)?;
                missing.borrow_mut().extend(sorted.names());
                let _ = wanted.set(sorted);
                Ok(manifest)
            },
            |entry| {
                if !missing.borrow_mut().remove(entry.name.as_str()) {
                    return Err(BuilderError::Unexpected { entry: entry.name });
                }
                // A send fails once a worker has failed: its error says why.
                Ok(sender.send(entry).is_ok())
            },
        );
        drop(sender);
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (
            read,
            workers
                .into_iter()
                .map(join)
                .collect::<Vec<Result<(usize, u64), BuilderError>>>(),
        )
    });
    // A worker's error names the file; the reader's may be only that its workers are gone.
    let mut total = (0, 0);
    for result in written {
        let (files, bytes) = result?;
        total = (total.0 + files, total.1 + bytes);
    }
    read?;
    match missing.into_inner().first() {
        None => Ok(total),
        Some(entry) => {
            let container = "the bundle".to_owned();
            Err(BuilderError::Missing {
                what: (*entry).to_owned(),
                container,
            })
        }
    }
}

/// Takes entries until there are no more, or until one fails; then nobody takes any.
fn work(
    machine: &Machine<'_>,
    receiver: &Mutex<Option<Receiver<Entry>>>,
    wanted: &OnceLock<Wanted<'_>>,
) -> Result<(usize, u64), BuilderError> {
    let mut total = (0, 0);
    loop {
        let entry = {
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            receiver.as_ref().and_then(|receiver| receiver.recv().ok())
        };
        let (Some(entry), Some(wanted)) = (entry, wanted.get()) else {
            return Ok(total);
        };
        match wanted.install(machine.files, &entry) {
            Ok((files, bytes)) => total = (total.0 + files, total.1 + bytes),
            Err(error) => {
                // Not while another worker waits for an entry with the lock held: that one gets an entry,
                // or the end, first.
                receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(error);
            }
        }
    }
}
