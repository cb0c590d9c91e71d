//! Owns running targets: so many inputs each, counted, and what brings one down kept.
//! Touches threads and time.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::damage::{Random, damage};
use crate::target::Target;

/// What came of one target.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) name: String,
    pub(crate) inputs: u64,
    pub(crate) accepted: u64,
    /// Longest time for one input.
    pub(crate) slowest: Duration,
    pub(crate) took: Duration,
    /// The input that brought the reader down, in hex.
    pub(crate) panicked: Option<String>,
}

impl Tally {
    /// Accepted, in percent.
    pub(crate) fn share(&self) -> f64 {
        let of = |count: u64| f64::from(u32::try_from(count).unwrap());
        100.0 * of(self.accepted) / of(self.inputs.max(1))
    }
}

/// Gives `count` inputs to the targets by their weights, several targets at a time.
pub(crate) fn run(targets: Vec<Target>, count: u64, seed: u64) -> Vec<Tally> {
    let weights: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(targets);
    let tallies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // The lock must not be held while the target runs.
                    let next = waiting.lock().unwrap().pop();
                    let Some(target) = next else {
                        return;
                    };
                    let inputs = (count * u64::from(target.weight)).div_ceil(weights);
                    let tally = one(target, inputs, seed);
                    tallies.lock().unwrap().push(tally);
                }
            });
        }
    });
    let mut tallies = tallies.into_inner().unwrap();
    tallies.sort_by(|one, other| one.name.cmp(&other.name));
    tallies
}

fn one(mut target: Target, inputs: u64, seed: u64) -> Tally {
    let mut random = Random::new(seed, &target.name);
    let mut bytes = Vec::new();
    let begin = Instant::now();
    let mut tally = Tally {
        name: target.name,
        inputs: 0,
        accepted: 0,
        slowest: Duration::ZERO,
        took: Duration::ZERO,
        panicked: None,
    };
    let mut before = begin;
    for _ in 0..inputs {
        damage(&mut random, &target.samples, target.words, &mut bytes);
        tally.inputs += 1;
        let Ok(accepted) = catch_unwind(AssertUnwindSafe(|| (target.read)(&bytes))) else {
            tally.panicked = Some(hex(&bytes));
            break;
        };
        tally.accepted += u64::from(accepted);
        let now = Instant::now();
        tally.slowest = tally.slowest.max(now - before);
        before = now;
    }
    tally.took = begin.elapsed();
    tally
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
