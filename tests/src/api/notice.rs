//! Owns what can be told an instance of its end, and the document by which its metadata says so.
//! Touches nothing; a pure function of the notice and the time.

use std::str::FromStr;

use clap::{Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where the metadata tells what a group wants of its instance.
pub const TARGET: &str = "autoscaling/target-lifecycle-state";
const SPOT: &str = "spot/instance-action";
const REBALANCE: &str = "events/recommendations/rebalance";
const EVENTS: &str = "events/maintenance/scheduled";

/// A word to an instance. The sandbox says it and does no more: what it announces is done by `ec2 terminate-instances`
/// and its like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice {
    /// Spot interruption
    Spot {
        /// When it comes, from now on.
        #[arg(long = "in", value_name = "TIME", default_value = "2m")]
        after: Seconds,
        /// What it does.
        #[arg(long, default_value = "terminate")]
        action: SpotAction,
    },
    /// Recommendation to rebalance
    Rebalance,
    /// Planned maintenance
    Event {
        /// Its earliest time, from now on.
        #[arg(long = "in", value_name = "TIME", default_value = "10m")]
        after: Seconds,
        /// What it does.
        #[arg(long, default_value = "system-reboot")]
        code: EventCode,
    },
    /// What the Auto Scaling group wants of it: Terminated, Standby, Warmed:Stopped and so on
    Target {
        /// The state's name.
        state: String,
    },
    /// Take a notice back
    Withdraw {
        /// Which.
        kind: Kind,
    },
}

/// A time from now on, such as `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seconds(pub i64);

impl FromStr for Seconds {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|time: SignedDuration| Self(time.as_secs()))
    }
}

/// What a Spot interruption does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "EC2's own words")]
pub enum SpotAction {
    Terminate,
    Stop,
    Hibernate,
}

/// What planned maintenance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "EC2's own words")]
pub enum EventCode {
    InstanceStop,
    InstanceReboot,
    SystemReboot,
    SystemMaintenance,
    InstanceRetirement,
}

/// Which notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the kinds of notices, which are documented")]
pub enum Kind {
    Spot,
    Rebalance,
    Event,
    Target,
}

impl Notice {
    /// Path below `meta-data/`, and what is found there; nothing if it is taken back.
    ///
    /// Shapes and examples: EC2 user guide, "Spot Instance interruption notices", "EC2 instance rebalance
    /// recommendations", "View scheduled events"; Auto Scaling user guide, "Retrieve the target lifecycle state".
    pub fn document(&self, now: Timestamp) -> (&'static str, Option<String>) {
        let later = |Seconds(after): Seconds| {
            let after = SignedDuration::from_secs(after);
            now.checked_add(after).unwrap_or(Timestamp::MAX)
        };
        let second = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // The only times in the metadata that are not in RFC 3339.
        let day = |time: Timestamp| time.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
        match self {
            Self::Spot { after, action } => {
                let document = json!({"action": action, "time": second(later(*after))});
                (SPOT, Some(document.to_string()))
            }
            Self::Rebalance => (REBALANCE, Some(json!({"noticeTime": second(now)}).to_string())),
            Self::Event { after, code } => {
                let begins = later(*after);
                let ends = begins
                    .checked_add(SignedDuration::from_hours(2))
                    .unwrap_or(begins);
                let document = json!([{
                    "NotBefore": day(begins),
                    "NotAfter": day(ends),
                    "Code": code,
                    "Description": "scheduled maintenance of the sandbox",
                    "EventId": format!("instance-event-{:017x}", begins.as_second()),
                    "State": "active",
                }]);
                (EVENTS, Some(document.to_string()))
            }
            Self::Target { state } => (TARGET, Some(state.clone())),
            Self::Withdraw { kind } => (kind.path(), None),
        }
    }
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Spot => SPOT,
            Self::Rebalance => REBALANCE,
            Self::Event => EVENTS,
            Self::Target => TARGET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_those_of_ec2() {
        let now: Timestamp = "2026-11-05T09:08:07Z".parse().unwrap();
        let after = "2m".parse().unwrap();
        let action = SpotAction::Stop;
        assert_eq!(
            Notice::Spot { after, action }.document(now),
            (
                "spot/instance-action",
                Some(r#"{"action":"stop","time":"2026-11-05T09:10:07Z"}"#.to_owned())
            )
        );
        assert_eq!(
            Notice::Rebalance.document(now).1.unwrap(),
            r#"{"noticeTime":"2026-11-05T09:08:07Z"}"#
        );
        let event = Notice::Event {
            after: Seconds(600),
            code: EventCode::InstanceRetirement,
        };
        let said: serde_json::Value = serde_json::from_str(&event.document(now).1.unwrap()).unwrap();
        assert_eq!(said[0]["NotBefore"], "5 Nov 2026 09:18:07 GMT");
        assert_eq!(said[0]["Code"], "instance-retirement");
        let kind = Kind::Rebalance;
        assert_eq!(Notice::Withdraw { kind }.document(now), (REBALANCE, None));
    }
}
