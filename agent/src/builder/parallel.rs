//! Owns reading one range of a device or file in order while many reads are in flight.
//! Touches the device, read-only.
//!
//! A volume made from a snapshot is fetched from S3 on first read (AWS, "Initialize Amazon EBS volumes"):
//! each first read costs tens of milliseconds, so one reader after the other would take minutes where
//! thirty-two at once take seconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes of one read; the block size of EBS snapshots.
const BLOCK: u64 = 512 * 1024;

/// Blocks that may be read ahead of the consumer; with the reads in flight this bounds memory to 24 MiB.
const WINDOW: u64 = 48;

/// Something that can be read at any place by several threads at once.
pub(crate) trait Blocks: Send + Sync + 'static {
    /// Fills the buffer from `offset` bytes after the start.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Blocks for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

/// Reads a range in order; threads fetch the blocks ahead.
pub(crate) struct ParallelReader {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
    block: Vec<u8>,
    position: usize,
}

struct Shared {
    source: Box<dyn Blocks>,
    start: u64,
    length: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fetched: BTreeMap<u64, io::Result<Vec<u8>>>,
    next_to_fetch: u64,
    next_to_consume: u64,
    stopped: bool,
}

impl ParallelReader {
    /// Reads `length` bytes from `start` with up to `in_flight` reads at once.
    pub(crate) fn new(source: impl Blocks, start: u64, length: u64, in_flight: usize) -> Self {
        let shared = Arc::new(Shared {
            source: Box::new(source),
            start,
            length,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let threads = (0..in_flight.min(usize::try_from(length.div_ceil(BLOCK)).unwrap_or(usize::MAX)))
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.fetch())
            })
            .collect();
        Self {
            shared,
            threads,
            block: Vec::new(),
            position: 0,
        }
    }
}

impl Shared {
    /// The state stays consistent at every unlock, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopped && state.next_to_fetch >= state.next_to_consume + WINDOW {
                state = self.wait(state);
            }
            let offset = state.next_to_fetch * BLOCK;
            if state.stopped || offset >= self.length {
                return;
            }
            let number = state.next_to_fetch;
            state.next_to_fetch += 1;
            drop(state);
            let mut block = vec![0; (self.length - offset).min(BLOCK) as usize];
            let read = self
                .source
                .read_exact_at(&mut block, self.start + offset)
                .map(|()| block);
            self.lock().fetched.insert(number, read);
            self.changed.notify_all();
        }
    }
}

impl Read for ParallelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.block.len() {
            let mut state = self.shared.lock();
            if state.next_to_consume * BLOCK >= self.shared.length {
                return Ok(0);
            }
            let number = state.next_to_consume;
            let block = loop {
                match state.fetched.remove(&number) {
                    Some(Ok(block)) => break block,
                    Some(Err(error)) => {
                        // Whoever reads on after a failure must fail again, not wait for ever.
                        state.fetched.insert(number, Err(error.kind().into()));
                        return Err(error);
                    }
                    None => state = self.shared.wait(state),
                }
            };
            state.next_to_consume += 1;
            drop(state);
            self.shared.changed.notify_all();
            self.block = block;
            self.position = 0;
        }
        let count = buffer.len().min(self.block.len() - self.position);
        buffer[..count].copy_from_slice(&self.block[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

impl Drop for ParallelReader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// A volume whose first read of a block takes 20 ms; a block's bytes are its number from `start` on.
    struct Lazy {
        start: u64,
        length: u64,
        now: AtomicUsize,
        most: Arc<AtomicUsize>,
    }

    impl Blocks for Lazy {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            self.now.fetch_sub(1, Ordering::SeqCst);
            if offset + buffer.len() as u64 > self.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer.fill(u8::try_from((offset - self.start) / BLOCK).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_lazy_volume_is_read_in_order_with_many_reads_in_flight() {
        let most = Arc::new(AtomicUsize::new(0));
        let length = 100 * BLOCK + 77;
        let lazy = Lazy {
            start: 1000,
            length: length + 1000,
            now: AtomicUsize::new(0),
            most: Arc::clone(&most),
        };
        let mut bytes = Vec::new();
        ParallelReader::new(lazy, 1000, length, 32)
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(bytes.len() as u64, length);
        let size = usize::try_from(BLOCK).unwrap();
        for (number, block) in (0..).zip(bytes.chunks(size)) {
            assert!(block == &vec![number; size][..block.len()], "block {number}");
        }
        assert!(most.load(Ordering::SeqCst) >= 16, "{most:?} at once");
    }

    #[test]
    fn a_short_volume_is_an_error_and_an_unread_one_ends() {
        let lazy = |length| Lazy {
            start: 0,
            length,
            now: AtomicUsize::new(0),
            most: Arc::default(),
        };
        let mut bytes = Vec::new();
        let short = ParallelReader::new(lazy(BLOCK), 0, 3 * BLOCK, 4).read_to_end(&mut bytes);
        assert_eq!(short.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut reader = ParallelReader::new(lazy(100), 0, BLOCK, 4);
        assert!(reader.read(&mut [0; 9]).is_err());
        assert!(reader.read(&mut [0; 9]).is_err(), "a failure lasts");
        drop(ParallelReader::new(lazy(1000 * BLOCK), 0, 1000 * BLOCK, 4));
    }
}
