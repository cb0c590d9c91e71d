//! Owns virtual time: whose turn it is, of many threads of which one runs at a time.
//! Touches threads.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// The order of all events. A node's thread runs from its turn until it waits for a moment; then whoever waits for the
/// next moment has the turn. So every run with the same chances is the same run.
#[derive(Debug, Default)]
pub(crate) struct Schedule(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Moments that nodes wait for; of equal ones the first that was asked for comes first.
    moments: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    asked: u64,
    turn: Option<usize>,
    now: Duration,
    threads: Vec<Thread>,
}

impl State {
    fn ask(&mut self, moment: Duration, node: usize) {
        self.moments.push(Reverse((moment, self.asked, node)));
        self.asked += 1;
    }

    /// Gives the turn to whoever waits for the next moment.
    fn hand_over(&mut self) {
        self.turn = self.moments.pop().map(|Reverse((moment, _, node))| {
            assert!(moment >= self.now, "time went back");
            self.now = moment;
            node
        });
        if let Some(node) = self.turn {
            self.threads[node].unpark();
        }
    }
}

impl Schedule {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with these threads, each of which waits in [`Schedule::begin`] for its moment.
    pub(crate) fn start(&self, threads: Vec<Thread>, moments: &[Duration]) {
        let mut state = self.state();
        state.threads = threads;
        for (node, moment) in moments.iter().enumerate() {
            state.ask(*moment, node);
        }
        state.hand_over();
    }

    /// Waits for the first turn.
    pub(crate) fn begin(&self, node: usize) {
        while self.state().turn != Some(node) {
            thread::park();
        }
    }

    /// Waits for a moment.
    pub(crate) fn until(&self, node: usize, moment: Duration) {
        let mut state = self.state();
        assert_eq!(state.turn, Some(node), "a node waits out of turn");
        state.ask(moment, node);
        state.hand_over();
        drop(state);
        self.begin(node);
    }

    /// Gives the turn away for good.
    pub(crate) fn end(&self) {
        self.state().hand_over();
    }
}
