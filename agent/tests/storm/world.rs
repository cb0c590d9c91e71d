//! Owns what one node lives in: a clock of its own in the common time, its metadata service, and the one Parameter Store.
//! Touches nothing real.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime};

use cos_agent::world::{Outgoing, Reply, Trouble, World};

use crate::metadata;
use crate::parameter_store::ParameterStore;
use crate::schedule::Schedule;

/// When all storms begin: noon of a day.
const BEGIN: Duration = Duration::from_hours(498_780);

/// One exchange with the metadata service.
const METADATA: Duration = Duration::from_millis(2);

/// A way to Parameter Store, or back: between this and three times as much. The first one makes a connection.
const WAY: Duration = Duration::from_millis(8);

/// What is common to all nodes of a storm.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) schedule: Schedule,
    pub(crate) store: Mutex<ParameterStore>,
    pub(crate) user_data: String,
}

#[derive(Debug)]
pub(crate) struct NodeWorld {
    common: Arc<Common>,
    node: usize,
    /// The node's own thread. Those that it starts for a moment only ask the metadata service, which takes no turn.
    thread: ThreadId,
    /// The node's clock, in nanoseconds. It runs ahead of the common time between two turns.
    clock: AtomicU64,
    random: AtomicU64,
    pub(crate) metadata: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) requests: AtomicU64,
}

impl NodeWorld {
    /// A node that begins at a moment; the thread that makes it is its own.
    pub(crate) fn new(common: Arc<Common>, node: usize, begin: Duration, seed: u64) -> Self {
        Self {
            common,
            node,
            thread: thread::current().id(),
            clock: AtomicU64::new(nanoseconds(begin)),
            // A node's chances are its own, and none is zero.
            random: AtomicU64::new((seed << 32 | node as u64) + 1),
            metadata: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    fn advance(&self, time: Duration) {
        self.clock.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// Lets others live until the node's clock says this.
    fn wait(&self, time: Duration) {
        self.advance(time);
        if thread::current().id() == self.thread {
            self.common.schedule.until(self.node, self.ticks());
        }
    }

    fn way(&self) -> Duration {
        WAY + WAY * 2 / 1024 * (self.chance() % 1024)
    }
}

impl World for NodeWorld {
    fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Reply, Trouble> {
        if outgoing.url.starts_with("http://169.254.169.254/") {
            let user_data = &self.common.user_data;
            let reply = metadata::answer(outgoing, self.node, user_data, self.now());
            self.metadata.fetch_add(1, Ordering::Relaxed);
            self.packets
                .fetch_add(metadata::packets(&reply).into(), Ordering::Relaxed);
            self.advance(METADATA);
            return Ok(reply);
        }
        let (there, back) = (self.way(), self.way());
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.wait(there);
        let mut store = self.common.store.lock().unwrap();
        let reply = store.answer(outgoing, self.node, self.ticks(), self.now());
        drop(store);
        self.advance(back);
        Ok(reply)
    }

    fn ticks(&self) -> Duration {
        Duration::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + BEGIN + self.ticks()
    }

    fn pause(&self, time: Duration) {
        self.wait(time);
    }

    /// splitmix64, whose neighbouring seeds have nothing in common.
    fn chance(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(word >> 32).unwrap()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}
