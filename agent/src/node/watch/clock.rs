//! Owns time as the watcher lives in it, and the signals that cut a wait short.
//! Touches the machine's clocks and this process's signals.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::time::Timestamp;
use crate::node::wait;

/// Somebody wants this process to end (SIGTERM, SIGINT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop;

/// Time.
pub trait Clock {
    /// The time of day, by which notices and deadlines go.
    fn now(&self) -> Timestamp;
    /// Time since some moment, by which polls go: it never jumps.
    fn ticks(&self) -> Duration;
    /// Waits this long, or until a signal.
    fn wait(&mut self, pause: Duration) -> Option<Stop>;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
    signals: mpsc::Receiver<Stop>,
}

impl RealClock {
    /// From now on SIGTERM and SIGINT end waits, not this process. To be called before there are other threads:
    /// they take over which signals are blocked.
    pub fn start() -> Result<Self, nix::Error> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        let (sender, signals) = mpsc::channel();
        thread::spawn(move || {
            while set.wait().is_ok() {
                if sender.send(Stop).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            start: Instant::now(),
            signals,
        })
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn ticks(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait(&mut self, pause: Duration) -> Option<Stop> {
        wait::message(&self.signals, pause)
    }
}
