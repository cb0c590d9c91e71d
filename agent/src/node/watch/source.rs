//! Owns where notices come from, and when each source is asked.
//! Touches the metadata service.

use std::fmt;
use std::time::Duration;

use super::spec::Intervals;
use crate::node::sources::Imds;

/// Longest time for one answer of the metadata service, retries included.
const ANSWER: Duration = Duration::from_secs(2);

/// How often markers are looked at where there is no source.
const IDLE: Duration = Duration::from_secs(1);

/// A source that is asked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Spot interruption.
    Spot,
    /// Auto Scaling's target state.
    Target,
    /// Recommendation to rebalance.
    Rebalance,
    /// Planned maintenance.
    Scheduled,
    /// Auto Scaling's own API.
    Group,
}

impl Source {
    /// All of the metadata service's.
    pub const METADATA: [Self; 4] = [Self::Spot, Self::Target, Self::Rebalance, Self::Scheduled];

    /// Its path below `latest/`; none for what is no document.
    pub fn path(self) -> Option<&'static str> {
        match self {
            Self::Spot => Some("meta-data/spot/instance-action"),
            Self::Target => Some("meta-data/autoscaling/target-lifecycle-state"),
            Self::Rebalance => Some("meta-data/events/recommendations/rebalance"),
            Self::Scheduled => Some("meta-data/events/maintenance/scheduled"),
            Self::Group => None,
        }
    }

    fn interval(self, intervals: &Intervals) -> Duration {
        match self {
            Self::Spot => intervals.spot,
            Self::Target => intervals.target,
            Self::Rebalance => intervals.rebalance,
            Self::Scheduled => intervals.scheduled,
            Self::Group => intervals.group,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(
                formatter,
                "instance metadata {}",
                path.trim_start_matches("meta-data/")
            ),
            None => formatter.write_str("Auto Scaling's API"),
        }
    }
}

/// The metadata service.
pub trait NoticeSource {
    /// One document; none if there is no such thing (404).
    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, String>;
}

impl NoticeSource for Imds {
    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, String> {
        self.begin(ANSWER);
        self.get(path).map_err(|error| error.to_string())
    }
}

/// When each source is due, by a clock that never jumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    intervals: Intervals,
    due: Vec<(Source, Duration)>,
}

impl Schedule {
    /// Everything of the metadata service is due at once.
    pub(super) fn new(intervals: Intervals, ticks: Duration) -> Self {
        Self {
            intervals,
            due: Source::METADATA.iter().map(|source| (*source, ticks)).collect(),
        }
    }

    /// Nothing is ever due.
    pub(super) fn silence(&mut self) {
        self.due.clear();
    }

    /// A source that is due, most urgent first; it is due again after its interval. Those that fall due within a
    /// second are taken along, so that the machine wakes up once for all of them.
    pub(super) fn take(&mut self, ticks: Duration) -> Option<Source> {
        let soon = ticks + Duration::from_secs(1);
        let (source, due) = self.due.iter_mut().find(|(_, due)| *due <= soon)?;
        let interval = source.interval(&self.intervals);
        // From when it was due, not from when it was asked: intervals stay in step with each other.
        *due = (*due + interval).max(ticks + interval / 2);
        Some(*source)
    }

    /// After a failure nothing more is asked now: what does not answer would hold up everything else.
    pub(super) fn postpone(&mut self, ticks: Duration) {
        for (source, due) in &mut self.due {
            *due = (*due).max(ticks + source.interval(&self.intervals));
        }
    }

    /// Whether Auto Scaling's own API is asked, from when on, and then how often.
    pub(super) fn ask_group(&mut self, next: Option<Duration>) {
        self.due.retain(|(source, _)| *source != Source::Group);
        self.due.extend(next.map(|next| (Source::Group, next)));
    }

    /// Whether Auto Scaling's own API is asked.
    pub(super) fn asks_group(&self) -> bool {
        self.due.iter().any(|(source, _)| *source == Source::Group)
    }

    /// How long until the next source is due.
    pub(super) fn pause(&self, ticks: Duration) -> Duration {
        let next = self.due.iter().map(|(_, due)| *due).min();
        next.map_or(IDLE, |next| next.saturating_sub(ticks))
    }
}
