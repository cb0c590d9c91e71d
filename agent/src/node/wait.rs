//! Owns waiting: until a deadline, with growing pauses, and with the reason why it was not ready yet.
//! Touches the clock; no other module of the node sleeps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::world::World;

/// How long to pause between two probes: doubling from the first pause to the longest, each shortened at
/// random by up to a half, so that many nodes that boot at once do not ask in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Pause after the first probe.
    pub(crate) first: Duration,
    /// Longest pause.
    pub(crate) longest: Duration,
}

impl Backoff {
    /// For units that were just started: a node is ready as soon as the last of them is seen to be.
    pub(crate) const UNITS: Self = Self {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(100),
    };

    /// For services on this machine, which cost nothing to ask: from 5 ms to half a second.
    pub(crate) const LOCAL: Self = Self {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(500),
    };
}

/// A wait came to a bad end.
#[derive(Debug, Error)]
pub(crate) enum WaitError<E> {
    /// It was not ready at the deadline.
    #[error("not ready after {:.1} s: {last_reason}", after.as_secs_f64())]
    Deadline {
        /// How long was waited.
        after: Duration,
        /// What the last probe said.
        last_reason: String,
    },
    /// A probe found that waiting is of no use.
    #[error(transparent)]
    Probe(E),
}

/// Probes until it is ready (`Break`), hopeless (`Err`) or `deadline` has passed. It probes at least once.
pub(crate) fn until<T, E>(
    deadline: Duration,
    backoff: Backoff,
    probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    let mut longest = backoff.first;
    let rest = |left: Duration| {
        pause(jitter(longest, chance()).min(left));
        longest = (longest * 2).min(backoff.longest);
    };
    resting(deadline, ticks, rest, probe)
}

/// As [`until`], by the time of a world.
pub(crate) fn until_in<T, E>(
    world: &dyn World,
    deadline: Duration,
    backoff: Backoff,
    probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    let mut longest = backoff.first;
    let rest = |left: Duration| {
        world.pause(jitter(longest, world.chance()).min(left));
        longest = (longest * 2).min(backoff.longest);
    };
    resting(deadline, || world.ticks(), rest, probe)
}

/// Probes until it is ready or `deadline` is over. `rest` is what happens between two probes; it hears what time is left.
fn resting<T, E>(
    deadline: Duration,
    ticks: impl Fn() -> Duration,
    mut rest: impl FnMut(Duration),
    mut probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    let start = ticks();
    loop {
        let last_reason = match probe().map_err(WaitError::Probe)? {
            ControlFlow::Break(ready) => return Ok(ready),
            ControlFlow::Continue(reason) => reason,
        };
        let after = ticks().saturating_sub(start);
        let left = deadline.saturating_sub(after);
        if left.is_zero() {
            return Err(WaitError::Deadline { after, last_reason });
        }
        rest(left);
    }
}

/// Something that may ring when it is worth looking again.
pub(crate) trait Bell {
    /// Returns when it rings, or after `longest`.
    fn wait(&mut self, longest: Duration);
}

/// As [`until`], with pauses that end as soon as `bell` rings. `longest` is the pause where nothing rings: what the
/// bell announces may also have happened without it.
pub(crate) fn until_rung<T, E>(
    deadline: Duration,
    longest: Duration,
    bell: &mut dyn Bell,
    probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    resting(deadline, ticks, |left| bell.wait(longest.min(left)), probe)
}

/// Waits in silence, for a bell that cannot ring.
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Waits for a message, or until `pause` has passed. Without a sender that is left it only pauses.
pub(crate) fn message<T>(messages: &mpsc::Receiver<T>, pause: Duration) -> Option<T> {
    match messages.recv_timeout(pause) {
        Ok(message) => Some(message),
        Err(mpsc::RecvTimeoutError::Timeout) => None,
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            thread::sleep(pause);
            None
        }
    }
}

/// Between a half and all of `pause`, as chance has it.
pub(crate) fn jitter(pause: Duration, chance: u32) -> Duration {
    pause / 2 + share(pause / 2, chance)
}

/// Between nothing and all of `pause`, as chance has it.
pub(crate) fn share(pause: Duration, chance: u32) -> Duration {
    pause / 1024 * (chance % 1024)
}

/// Any number.
pub(crate) fn chance() -> u32 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    let [one, two, three, four, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([one, two, three, four])
}

/// Time since this process asked for the first time; it never jumps.
pub(crate) fn ticks() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const QUICK: Backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
    };

    #[test]
    fn the_deadline_carries_the_last_reason() {
        let mut probes = 0;
        let ended: Result<(), WaitError<Infallible>> = until(Duration::from_millis(30), QUICK, || {
            probes += 1;
            Ok(ControlFlow::Continue(format!("probe {probes} says no")))
        });
        let said = ended.unwrap_err().to_string();
        assert!(said.contains(&format!("probe {probes} says no")), "{said}");
        assert!(probes > 2);
    }

    #[test]
    fn a_pause_is_never_longer_than_asked() {
        for _ in 0..100 {
            let pause = jitter(Duration::from_millis(100), chance());
            assert!((50..=100).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn shares_fill_the_whole_pause() {
        let pause = Duration::from_millis(100);
        let shares: Vec<_> = (0..400).map(|_| share(pause, chance())).collect();
        assert!(shares.iter().all(|share| *share < pause));
        for quarter in 0..4 {
            let inside = |share: &&Duration| share.as_millis() / 25 == quarter;
            assert!(shares.iter().filter(inside).count() > 40, "quarter {quarter}");
        }
    }
}
