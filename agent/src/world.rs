//! Owns the port between the agent's clients of AWS and what is around them: time, chance, and one exchange of HTTP.
//! Touches the clock, unless an implementation brings its own.

use std::fmt;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::node::wait;

/// What a client lives in. The real ones answer over the network and leave time as it is; a simulation brings its own
/// of everything, so that thousands of clients live through minutes within seconds.
pub trait World: fmt::Debug + Send + Sync {
    /// Sends one request and reads its answer; every status is an answer.
    fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Reply, Trouble>;

    /// Time since some moment; it never jumps.
    fn ticks(&self) -> Duration {
        wait::ticks()
    }

    /// The time of day.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Waits.
    fn pause(&self, time: Duration) {
        wait::pause(time);
    }

    /// Any number, as likely as each other one.
    fn chance(&self) -> u32 {
        wait::chance()
    }
}

/// One request, as it goes out. Its headers may hold secrets, so `Debug` shows none of them.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// Where it goes.
    pub url: &'a str,
    /// Headers that are no business of HTTP itself.
    pub headers: &'a [(&'a str, &'a str)],
    /// What it carries; a GET and a PUT carry nothing.
    pub body: &'a [u8],
    /// Longest time for all of it.
    pub within: Duration,
}

/// What came back. `Debug` shows the length of the body only.
#[derive(Clone, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// May hold secrets.
    pub body: Zeroizing<Vec<u8>>,
    /// The service's clock, where it tells it.
    pub date: Option<SystemTime>,
    /// The service's name for this request, where it has one.
    pub request_id: Option<String>,
    /// The service's name for an error, where it tells it in a header.
    pub error_type: Option<String>,
}

/// Nothing usable came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The way is set up wrongly.
    Configuration(String),
    /// The other side's certificate is not trusted.
    Distrust(String),
    /// The connection was taken, and no answer came in time; may pass.
    Silence(String),
    /// May pass.
    Passing(String),
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outgoing")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reply")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_and_comes_back_is_not_shown() {
        let outgoing = Outgoing {
            method: "POST",
            url: "https://ssm/",
            headers: &[("x-amz-security-token", "planted")],
            body: b"planted",
            within: Duration::ZERO,
        };
        let reply = Reply {
            status: 200,
            body: Zeroizing::new(b"planted".to_vec()),
            ..Reply::default()
        };
        let shown = format!("{outgoing:?} {reply:?}");
        assert!(shown.contains("https://ssm/") && shown.contains("200"), "{shown}");
        // As a text, and as the numbers of its bytes.
        assert!(
            !shown.contains("planted") && !shown.contains("112, 108"),
            "{shown}"
        );
    }
}
