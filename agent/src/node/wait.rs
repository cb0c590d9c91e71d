//! Owns waiting: until a deadline, with growing pauses, and with the reason why it was not ready yet.
//! Touches the clock; no other module of the node sleeps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

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
    pausing(deadline, backoff, |pause, left| jitter(pause).min(left), probe)
}

/// As [`until`], for a service that many nodes share: each pause is any length up to the longest that both backoff
/// and deadline allow ("full jitter"), so that nodes that were refused together do not come back together, and the
/// last probe still has some time left.
pub(crate) fn until_spread<T, E>(
    deadline: Duration,
    backoff: Backoff,
    probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    pausing(deadline, backoff, |pause, left| share(pause.min(left)), probe)
}

fn pausing<T, E>(
    deadline: Duration,
    backoff: Backoff,
    length: impl Fn(Duration, Duration) -> Duration,
    probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    let mut pause = backoff.first;
    let rest = |left| {
        thread::sleep(length(pause, left));
        pause = (pause * 2).min(backoff.longest);
    };
    resting(deadline, rest, probe)
}

/// Probes until it is ready or `deadline` is over. `rest` is what happens between two probes; it hears what time is left.
fn resting<T, E>(
    deadline: Duration,
    mut rest: impl FnMut(Duration),
    mut probe: impl FnMut() -> Result<ControlFlow<T, String>, E>,
) -> Result<T, WaitError<E>> {
    let start = Instant::now();
    loop {
        let last_reason = match probe().map_err(WaitError::Probe)? {
            ControlFlow::Break(ready) => return Ok(ready),
            ControlFlow::Continue(reason) => reason,
        };
        let left = deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(WaitError::Deadline {
                after: start.elapsed(),
                last_reason,
            });
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
    resting(deadline, |left| bell.wait(longest.min(left)), probe)
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

/// Between a half and all of `pause`.
fn jitter(pause: Duration) -> Duration {
    pause / 2 + share(pause / 2)
}

/// Between nothing and all of `pause`.
fn share(pause: Duration) -> Duration {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    let share = u32::try_from(hasher.finish() % 1024).unwrap_or(0);
    pause / 1024 * share
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
            let pause = jitter(Duration::from_millis(100));
            assert!((50..=100).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn shares_fill_the_whole_pause() {
        let pause = Duration::from_millis(100);
        let shares: Vec<_> = (0..400).map(|_| share(pause)).collect();
        assert!(shares.iter().all(|share| *share < pause));
        for quarter in 0..4 {
            let inside = |share: &&Duration| share.as_millis() / 25 == quarter;
            assert!(shares.iter().filter(inside).count() > 40, "quarter {quarter}");
        }
    }

    #[test]
    fn a_spread_wait_ends_at_its_deadline_too() {
        let start = Instant::now();
        let ended: Result<(), WaitError<Infallible>> = until_spread(Duration::from_millis(50), QUICK, || {
            Ok(ControlFlow::Continue("no".to_owned()))
        });
        assert!(matches!(ended, Err(WaitError::Deadline { .. })));
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
