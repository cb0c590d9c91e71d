//! Owns when a call is tried again, and when it is given up: pure, so that a simulation can live through it.
//! Touches nothing. `_docs/decisions/0014-storm.md` tells why it is so.

use std::time::Duration;

use crate::node::wait::{jitter, share};

/// Shortest of the longest pauses.
const FIRST: Duration = Duration::from_millis(200);

/// Longest pause after a refusal for too many requests. It bounds what is lost at the end of a storm, when there is
/// room again and those that are left have yet to come back.
const LONGEST_THROTTLED: Duration = Duration::from_secs(10);

/// A refused call pauses for this part of the time that it has been refused already. How many others there are, and
/// how much the service takes, nobody tells; but a call that was refused for long is in a storm that takes long, and
/// then a long pause is a small part of all of it.
const PART: u32 = 5;

/// Longest pause after trouble.
const LONGEST_TROUBLED: Duration = Duration::from_secs(20);

/// What a try met, where another one may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// The service is well, and takes no more requests now.
    Throttling,
    /// Anything else that may pass.
    Trouble,
}

/// The tries of one call. Times are since its begin.
#[derive(Debug)]
pub(super) struct Retry {
    deadline: Duration,
    patience: Duration,
    /// When the service last said that it is there and has no room.
    heard: Duration,
    /// Longest pause after the next trouble.
    troubled: Duration,
}

impl Retry {
    /// A call that gives up a service that is silent or broken for `deadline`, and one that has no room for `patience`.
    pub(super) fn new(deadline: Duration, patience: Duration) -> Self {
        Self {
            deadline,
            patience: patience.max(deadline),
            heard: Duration::ZERO,
            troubled: FIRST,
        }
    }

    /// What is left at a time, if nothing more is heard.
    pub(super) fn left(&self, now: Duration) -> Duration {
        (self.heard + self.deadline)
            .min(self.patience)
            .saturating_sub(now)
    }

    /// The pause after a try; none if it was the last one.
    pub(super) fn pause(&mut self, met: Met, now: Duration, chance: u32) -> Option<Duration> {
        if met == Met::Throttling {
            self.heard = now;
            self.troubled = FIRST;
        }
        let left = self.left(now);
        if left.is_zero() {
            return None;
        }
        let pause = match met {
            // At least a half: who was refused last comes back last, so that nobody is left behind.
            Met::Throttling => jitter((now / PART).clamp(FIRST, LONGEST_THROTTLED), chance),
            // Any length: nodes that met the same trouble in the same moment do not come back together.
            Met::Trouble => {
                let longest = self.troubled;
                self.troubled = (longest * 2).min(LONGEST_TROUBLED);
                share(longest.min(left), chance)
            }
        };
        // The last try shall have some time left.
        Some(if pause < left { pause } else { share(left, chance) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_mins(10);

    /// How long it takes until a call is given up, if each try meets this and takes 20 ms.
    fn given_up(met: impl Fn(u32) -> Met, patience: Duration) -> (Duration, u32) {
        let mut retry = Retry::new(DEADLINE, patience);
        let (mut now, mut tries) = (Duration::ZERO, 0);
        loop {
            tries += 1;
            now += Duration::from_millis(20);
            match retry.pause(met(tries), now, 700) {
                Some(pause) => now += pause,
                None => return (now, tries),
            }
        }
    }

    #[test]
    fn a_service_without_room_is_waited_for_longer_than_one_that_is_broken() {
        let (after, tries) = given_up(|_| Met::Trouble, PATIENCE);
        assert!(after >= DEADLINE && after < DEADLINE * 2, "{after:?}");
        assert!(tries < 40, "{tries}");
        let (after, tries) = given_up(|_| Met::Throttling, PATIENCE);
        assert!(after >= PATIENCE && after < PATIENCE + DEADLINE, "{after:?}");
        assert!(tries < 180, "{tries}");
        let (after, _) = given_up(|_| Met::Throttling, DEADLINE);
        assert!(after >= DEADLINE && after < DEADLINE * 2, "{after:?}");
    }

    #[test]
    fn a_sign_of_life_begins_the_deadline_anew() {
        let heard_once = |tries| {
            if tries == 12 {
                Met::Throttling
            } else {
                Met::Trouble
            }
        };
        let (after, _) = given_up(heard_once, PATIENCE);
        assert!(after > DEADLINE + Duration::from_secs(1), "{after:?}");
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_what_is_left(
            met in prop_oneof![Just(Met::Throttling), Just(Met::Trouble)],
            milliseconds in 0_u64..1_000_000, chance in any::<u32>(), patience in 0_u64..1_000,
        ) {
            let mut retry = Retry::new(DEADLINE, Duration::from_secs(patience));
            let now = Duration::from_millis(milliseconds);
            if let Some(pause) = retry.pause(met, now, chance) {
                prop_assert!(pause <= retry.left(now));
                prop_assert!(pause <= LONGEST_TROUBLED);
            }
        }
    }
}
