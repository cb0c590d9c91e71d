//! Owns the decision whether a node may take work: by what its checks found, and by how long it has tried.
//! Touches nothing.

use std::time::Duration;

use super::Outcome;

/// The gate of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Longest time until the node must be ready.
    pub deadline: Duration,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Everything is proven.
    Ready,
    /// Not yet: what is missing, each with its reason.
    Wait(String),
    /// It never will be: why, and what may be done.
    Abandon {
        /// Why.
        reason: String,
        /// What may be done about it.
        hint: Option<String>,
    },
}

impl Gate {
    /// Decides, `elapsed` after the node began to try. Nothing checked is nothing proven.
    pub fn decide(&self, outcomes: &[Outcome], elapsed: Duration) -> Decision {
        let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.healthy).collect();
        if failed.is_empty() && !outcomes.is_empty() {
            return Decision::Ready;
        }
        if let Some(hard) = failed.iter().find(|outcome| outcome.hard) {
            return Decision::Abandon {
                reason: told(hard),
                hint: hard.hint.clone(),
            };
        }
        let missing: Vec<String> = failed.iter().map(|outcome| told(outcome)).collect();
        let missing = if missing.is_empty() {
            "nothing was checked yet".to_owned()
        } else {
            missing.join("; ")
        };
        if elapsed < self.deadline {
            return Decision::Wait(missing);
        }
        Decision::Abandon {
            reason: format!("not ready within {:.0} s: {missing}", self.deadline.as_secs_f64()),
            hint: failed.iter().find_map(|outcome| outcome.hint.clone()),
        }
    }
}

fn told(outcome: &Outcome) -> String {
    format!("{}: {}", outcome.check, outcome.reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Check;
    use super::*;

    fn outcome(check: Check, healthy: bool, hard: bool) -> Outcome {
        Outcome {
            check,
            healthy,
            reason: "reason".to_owned(),
            hint: hard.then(|| "hint".to_owned()),
            hard,
            milliseconds: 1,
        }
    }

    const GATE: Gate = Gate {
        deadline: Duration::from_mins(5),
    };

    #[test]
    fn the_table() {
        let good = outcome(Check::Docker, true, false);
        let late = outcome(Check::Dns, false, false);
        let hard = outcome(Check::Cni, false, true);
        let (early, end) = (Duration::ZERO, GATE.deadline);
        assert_eq!(GATE.decide(std::slice::from_ref(&good), end), Decision::Ready);
        assert_eq!(
            GATE.decide(&[], early),
            Decision::Wait("nothing was checked yet".to_owned())
        );
        assert_eq!(
            GATE.decide(&[good.clone(), late.clone()], early),
            Decision::Wait("dns: reason".to_owned())
        );
        assert_eq!(
            GATE.decide(&[late.clone(), hard], early),
            Decision::Abandon {
                reason: "cni: reason".to_owned(),
                hint: Some("hint".to_owned()),
            }
        );
        assert_eq!(
            GATE.decide(&[good, late], end),
            Decision::Abandon {
                reason: "not ready within 300 s: dns: reason".to_owned(),
                hint: None,
            }
        );
    }

    proptest! {
        /// Time alone never makes a node ready, and only time or a hard failure ends the wait.
        #[test]
        fn ready_means_all_of_them(
            states in prop::collection::vec((any::<bool>(), any::<bool>()), 0..6), seconds in 0..600_u64,
        ) {
            let outcomes: Vec<Outcome> = states
                .iter()
                .map(|(healthy, hard)| outcome(Check::Docker, *healthy, *hard && !healthy))
                .collect();
            let all = !states.is_empty() && states.iter().all(|(healthy, _)| *healthy);
            let hard = outcomes.iter().any(|outcome| outcome.hard);
            let elapsed = Duration::from_secs(seconds);
            match GATE.decide(&outcomes, elapsed) {
                Decision::Ready => prop_assert!(all),
                Decision::Wait(_) => prop_assert!(!all && !hard && elapsed < GATE.deadline),
                Decision::Abandon { .. } => prop_assert!(!all && (hard || elapsed >= GATE.deadline)),
            }
        }
    }
}
