//! Owns recording: phases with their start and length, decisions with their reason. It is handed on by reference, and
//! phases may run side by side. Touches the clock.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Milliseconds from the start of the timeline.
    pub start: f64,
    /// How long it took, in milliseconds.
    pub milliseconds: f64,
    /// How often it had to be tried again.
    #[serde(default)]
    pub retries: u32,
    /// Whether it came to a bad end.
    #[serde(default)]
    pub failed: bool,
}

/// A choice that was made, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What it was about.
    pub subject: String,
    /// What was chosen.
    pub choice: String,
    /// Why.
    pub reason: String,
}

/// The recorder.
#[derive(Debug)]
pub struct Timeline {
    start: Instant,
    began: SystemTime,
    phases: Mutex<Vec<Phase>>,
    decisions: Mutex<Vec<Decision>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// A timeline that starts now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            began: SystemTime::now(),
            phases: Mutex::default(),
            decisions: Mutex::default(),
        }
    }

    /// Begins a phase, which ends when the result is dropped.
    pub fn begin(&self, name: impl Into<String>) -> Running<'_> {
        Running {
            timeline: self,
            name: name.into(),
            began: Instant::now(),
            retries: 0,
            failed: false,
        }
    }

    /// Does something and records how long it took and whether it went well.
    pub fn measure<T, E>(
        &self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut running = self.begin(name);
        let done = work();
        running.failed = done.is_err();
        done
    }

    /// Records a phase that began earlier and ends now.
    pub fn record(&self, name: impl Into<String>, began: Instant, retries: u32, failed: bool) {
        let phase = Phase {
            name: name.into(),
            start: milliseconds(began.saturating_duration_since(self.start)),
            milliseconds: milliseconds(began.elapsed()),
            retries,
            failed,
        };
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.push(phase);
    }

    /// Records a choice. None of the three may hold a secret.
    pub fn decide(&self, subject: impl Display, choice: impl Display, reason: impl Display) {
        let decision = Decision {
            subject: subject.to_string(),
            choice: choice.to_string(),
            reason: reason.to_string(),
        };
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.push(decision);
    }

    /// The phases that have ended, by their start.
    pub fn phases(&self) -> Vec<Phase> {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        phases.sort_by(|one, other| one.start.total_cmp(&other.start));
        phases
    }

    /// The choices, in the order in which they were made.
    pub fn decisions(&self) -> Vec<Decision> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.clone()
    }

    /// When it started, by the clock on the wall.
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// How long ago it started.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A phase that has not ended.
#[derive(Debug)]
pub struct Running<'a> {
    timeline: &'a Timeline,
    name: String,
    began: Instant,
    retries: u32,
    failed: bool,
}

impl Running<'_> {
    /// Counts tries that did not succeed.
    pub fn retried(&mut self, times: u32) {
        self.retries += times;
    }

    /// Marks it as come to a bad end.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.timeline.record(
            std::mem::take(&mut self.name),
            self.began,
            self.retries,
            self.failed,
        );
    }
}

/// Thousandths are enough for people and for graphs.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_side_by_side_are_told_by_their_start() {
        let timeline = Timeline::new();
        let mut first = timeline.begin("first");
        first.retried(2);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(timeline.begin("inside")));
        });
        let failed: Result<(), &str> = timeline.measure("broken", || Err("no"));
        assert!(failed.is_err());
        drop(first);
        let phases = timeline.phases();
        let names: Vec<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["first", "inside", "broken"]);
        assert_eq!(phases[0].retries, 2);
        assert!(phases[2].failed && !phases[0].failed);
        assert!(phases[0].milliseconds >= phases[1].milliseconds);
    }
}
