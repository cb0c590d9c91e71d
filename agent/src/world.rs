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

/// One request, as it goes out.
#[derive(Debug, Clone, Copy)]
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

/// What came back.
#[derive(Debug, Clone, Default)]
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
