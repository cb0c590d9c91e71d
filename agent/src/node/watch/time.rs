//! Owns points in time, as notices, deadlines and the journal have them.
//! Touches the machine's clock in `Timestamp::now` only.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The end of the year 9999, which RFC 3339 can still write, in milliseconds.
const LAST: u64 = 253_402_300_799_999;

/// A point in time, UTC, to the millisecond. Written as RFC 3339 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(u64);

impl Timestamp {
    /// The machine's clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > LAST { LAST } else { millis })
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; nothing if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As RFC 3339 and ISO 8601 have it; the zone may be missing and is UTC then.
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339_weak(text.trim()).ok().map(Self::from)
    }

    /// As EC2 writes the times of scheduled events: `21 Jan 2019 09:00:43 GMT`.
    pub fn parse_event(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[day, month, year, clock, "GMT" | "UTC"] = words.as_slice() else {
            return None;
        };
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        let day: u8 = day.parse().ok()?;
        Self::parse(&format!("{year}-{month:02}-{day:02}T{clock}Z"))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::from_millis(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds((*self).into()).fmt(formatter)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        humantime::format_rfc3339_millis(time.into()).to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text} is no point in time"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_both_kinds_are_read() {
        let spot = Timestamp::parse("2017-09-18T08:22:00Z").unwrap();
        assert_eq!(spot.to_string(), "2017-09-18T08:22:00Z");
        let event = Timestamp::parse_event("21 Jan 2019 09:00:43 GMT").unwrap();
        assert_eq!(event.to_string(), "2019-01-21T09:00:43Z");
        assert_eq!(
            Timestamp::parse_event("1 Feb 2019 09:00:43 GMT")
                .unwrap()
                .to_string(),
            "2019-02-01T09:00:43Z"
        );
        for text in [
            "",
            "21 Foo 2019 09:00:43 GMT",
            "21 Jan 2019 09:00:43 CET",
            "31 Feb 2019 09:00:43 GMT",
        ] {
            assert_eq!(Timestamp::parse_event(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_time_survives_the_journal(millis: u64) {
            let time = Timestamp::from_millis(millis);
            let written = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&written).unwrap(), time);
            prop_assert!(!time.to_string().is_empty());
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Timestamp::parse(&text);
            let _ = Timestamp::parse_event(&text);
        }
    }
}
