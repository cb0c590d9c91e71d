//! Owns AWS's published limits, as buckets of tokens.
//! Touches nothing.

use std::time::Duration;

/// Requests a second that Parameter Store takes by default, for GetParameter, GetParameters and GetParametersByPath of
/// an account in a region together: "Systems Manager service quotas", "Parameter Store",
/// <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
pub(crate) const STANDARD: f64 = 40.0;

/// The same with the setting `high-throughput-enabled`, for GetParameter and GetParameters together, as the page above
/// had it for years.
pub(crate) const HIGHER: f64 = 3_000.0;

/// The same for GetParameters alone, as its later editions are remembered; the smaller one of two readings.
pub(crate) const HIGHER_ALONE: f64 = 1_000.0;

/// Decryptions a second in a region with the smallest quota, for all of an account's symmetric keys together; each
/// SecureString of an answer is one: <https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html>.
pub(crate) const DECRYPTIONS: f64 = 10_000.0;

/// Packets a second that an interface may exchange with the metadata service, DNS and the time service together:
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>.
pub(crate) const PACKETS: u32 = 1_024;

/// A limit: so many a second, and no more at once than what gathers in `depth`. AWS publishes rates and no depths.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) rate: f64,
    capacity: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: f64, depth: Duration) -> Self {
        let capacity = (rate * depth.as_secs_f64()).max(1.0);
        Self {
            rate,
            capacity,
            tokens: capacity,
            filled: Duration::ZERO,
        }
    }

    /// Takes so many tokens, or none if there are too few.
    pub(crate) fn take(&mut self, count: f64, now: Duration) -> bool {
        let since = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.capacity);
        self.filled = now;
        let enough = self.tokens >= count;
        if enough {
            self.tokens -= count;
        }
        enough
    }

    /// The shortest time in which so many can be taken; what was gathered before is no merit.
    pub(crate) fn allows(&self, count: f64) -> Duration {
        Duration::from_secs_f64((count - self.capacity).max(0.0) / self.rate)
    }
}
