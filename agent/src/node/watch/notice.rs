//! Owns what the metadata service, an operator or a shutdown can tell a node about its end, and how it is read.
//! Touches nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// What EC2 will do to a Spot instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpotAction {
    /// Stop it; it may be started again.
    Stop,
    /// Write its memory to disk, which begins at once.
    Hibernate,
    /// Terminate it. Also what a word stands for that we do not know: an interruption is one.
    #[serde(other)]
    Terminate,
}

/// A Spot interruption (`spot/instance-action`), given two minutes before, if at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotNotice {
    /// What happens.
    pub action: SpotAction,
    /// When; none if the notice has no readable time.
    pub at: Option<Timestamp>,
}

/// A recommendation to rebalance (`events/recommendations/rebalance`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// When it was given.
    pub at: Option<Timestamp>,
}

/// What kind of maintenance EC2 has planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventCode {
    /// The instance is stopped, to be started on another host.
    InstanceStop,
    /// The instance is rebooted.
    InstanceReboot,
    /// Its host is rebooted.
    SystemReboot,
    /// Its host has work done on network or power.
    SystemMaintenance,
    /// The instance is stopped or terminated for good.
    InstanceRetirement,
    /// A code that AWS did not document when this was written.
    Other(String),
}

impl EventCode {
    fn of(code: &str) -> Self {
        match code {
            "instance-stop" => Self::InstanceStop,
            "instance-reboot" => Self::InstanceReboot,
            "system-reboot" => Self::SystemReboot,
            "system-maintenance" => Self::SystemMaintenance,
            "instance-retirement" => Self::InstanceRetirement,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for EventCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InstanceStop => "instance-stop",
            Self::InstanceReboot => "instance-reboot",
            Self::SystemReboot => "system-reboot",
            Self::SystemMaintenance => "system-maintenance",
            Self::InstanceRetirement => "instance-retirement",
            Self::Other(code) => code,
        })
    }
}

/// One planned maintenance (`events/maintenance/scheduled`) that is neither completed nor cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledEvent {
    /// EC2's name for it.
    pub id: String,
    /// What it is.
    pub code: EventCode,
    /// Its earliest time.
    pub not_before: Timestamp,
}

/// Where Auto Scaling wants the instance to be (`autoscaling/target-lifecycle-state`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// At work.
    InService,
    /// Gone.
    Terminated,
    /// Out of the group, running.
    Detached,
    /// In the group, without work.
    Standby,
    /// In the warm pool: stopped, running or hibernated there.
    Warmed(String),
    /// A state that AWS did not document when this was written.
    Other(String),
}

impl Target {
    /// A state by Auto Scaling's name. `Warmed:Terminated` is as terminated as `Terminated`.
    pub fn of(name: &str) -> Self {
        match name {
            "InService" => Self::InService,
            "Terminated" | "Warmed:Terminated" => Self::Terminated,
            "Detached" => Self::Detached,
            "Standby" => Self::Standby,
            "Warmed:Stopped" | "Warmed:Running" | "Warmed:Hibernated" => Self::Warmed(name.to_owned()),
            other => Self::Other(other.to_owned()),
        }
    }

    /// The target that an instance's lifecycle state in DescribeAutoScalingInstances is on its way to, for a
    /// machine whose metadata service does not tell. None where the state tells nothing.
    pub fn of_lifecycle_state(state: &str) -> Option<Self> {
        Some(match state {
            "Terminating"
            | "Terminating:Wait"
            | "Terminating:Proceed"
            | "Terminated"
            | "Warmed:Terminating"
            | "Warmed:Terminating:Wait"
            | "Warmed:Terminating:Proceed"
            | "Warmed:Terminated" => Self::Terminated,
            "EnteringStandby" | "Standby" => Self::Standby,
            "Detaching" | "Detached" => Self::Detached,
            "InService" | "Pending" | "Pending:Wait" | "Pending:Proceed" => Self::InService,
            warmed if warmed.starts_with("Warmed:") => Self::Warmed(warmed.to_owned()),
            _ => return None,
        })
    }

    /// Whether a machine with this target takes part in the cluster, or will.
    pub fn joins(&self) -> bool {
        !matches!(self, Self::Terminated | Self::Warmed(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InService => "InService",
            Self::Terminated => "Terminated",
            Self::Detached => "Detached",
            Self::Standby => "Standby",
            Self::Warmed(name) | Self::Other(name) => name,
        })
    }
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// It stays off, or is no more.
    PowerOff,
    /// It comes back at once.
    Reboot,
}

/// How far out of the cluster a node is, or should be. Each contains those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Posture {
    /// It takes work.
    #[default]
    Serving,
    /// It keeps its work and takes no more.
    Ineligible,
    /// It has no work.
    Drained,
    /// It is no member of Nomad and Consul.
    Gone,
}

impl fmt::Display for Posture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Serving => "serving",
            Self::Ineligible => "ineligible",
            Self::Drained => "drained",
            Self::Gone => "gone",
        })
    }
}

/// What an operator wants of the node (`cos-agent drain`, `leave`, `eligible`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What it should be; `serving` takes back what was asked before.
    pub posture: Posture,
    /// When it was asked.
    pub since: Timestamp,
    /// When jobs that are still there are stopped.
    pub deadline: Timestamp,
    /// Whether system jobs stay.
    #[serde(default)]
    pub ignore_system_jobs: bool,
    /// In the operator's words.
    #[serde(default)]
    pub reason: String,
}

#[derive(Deserialize)]
struct SpotDocument {
    action: SpotAction,
    #[serde(default)]
    time: String,
}

/// Reads `spot/instance-action`.
pub fn read_spot(document: &[u8]) -> Result<SpotNotice, String> {
    let read: SpotDocument = json(document)?;
    Ok(SpotNotice {
        action: read.action,
        at: Timestamp::parse(&read.time),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RebalanceDocument {
    notice_time: String,
}

/// Reads `events/recommendations/rebalance`.
pub fn read_rebalance(document: &[u8]) -> Result<Rebalance, String> {
    let read: RebalanceDocument = json(document)?;
    Ok(Rebalance {
        at: Timestamp::parse(&read.notice_time),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScheduledDocument {
    code: String,
    event_id: String,
    not_before: String,
    #[serde(default)]
    state: String,
}

/// Reads `events/maintenance/scheduled`: what is still to come. One unreadable event hides none of the others; it
/// is an error only if nothing could be read.
pub fn read_scheduled(document: &[u8]) -> Result<Vec<ScheduledEvent>, String> {
    let read: Vec<serde_json::Value> = json(document)?;
    let mut events = Vec::new();
    let mut fault = None;
    for value in read {
        match scheduled(value) {
            Ok(event) => events.extend(event),
            Err(reason) => fault = Some(reason),
        }
    }
    match fault {
        Some(reason) if events.is_empty() => Err(reason),
        _ => Ok(events),
    }
}

fn scheduled(value: serde_json::Value) -> Result<Option<ScheduledEvent>, String> {
    let read: ScheduledDocument = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if matches!(read.state.as_str(), "completed" | "canceled" | "cancelled") {
        return Ok(None);
    }
    let not_before = Timestamp::parse_event(&read.not_before)
        .or_else(|| Timestamp::parse(&read.not_before))
        .ok_or_else(|| {
            format!(
                "event {} has no readable time: {}",
                read.event_id, read.not_before
            )
        })?;
    Ok(Some(ScheduledEvent {
        id: read.event_id,
        code: EventCode::of(&read.code),
        not_before,
    }))
}

/// Reads `autoscaling/target-lifecycle-state`.
pub fn read_target(document: &[u8]) -> Result<Target, String> {
    let text = String::from_utf8_lossy(document);
    let name = text.trim();
    let named = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || byte == b':');
    if named && name.len() <= 64 {
        return Ok(Target::of(name));
    }
    Err(format!(
        "{:?} is no lifecycle state",
        name.chars().take(64).collect::<String>()
    ))
}

/// Reads what an operator asked for.
pub fn read_request(document: &[u8]) -> Result<Request, String> {
    json(document)
}

fn json<T: serde::de::DeserializeOwned>(document: &[u8]) -> Result<T, String> {
    serde_json::from_slice(document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documents_of_the_metadata_service_are_read() {
        let spot = read_spot(br#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#).unwrap();
        assert_eq!(spot.action, SpotAction::Terminate);
        assert_eq!(spot.at, Timestamp::parse("2017-09-18T08:22:00Z"));
        let unknown = read_spot(br#"{"action": "evaporate", "time": "soon"}"#).unwrap();
        assert_eq!((unknown.action, unknown.at), (SpotAction::Terminate, None));
        assert!(
            read_rebalance(br#"{"noticeTime": "2020-10-26T08:22:00Z"}"#)
                .unwrap()
                .at
                .is_some()
        );
        let events = read_scheduled(
            br#"[{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot",
                "EventId": "instance-event-1", "NotAfter": "21 Jan 2019 09:17:23 GMT", "State": "active"},
               {"NotBefore": "22 Jan 2019 09:00:43 GMT", "Code": "instance-stop", "EventId": "instance-event-2",
                "State": "canceled"},
               {"Code": "odd"}]"#,
        )
        .unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].code, EventCode::SystemReboot);
        assert_eq!(read_scheduled(b"[]").unwrap(), []);
        assert_eq!(
            read_target(b"Warmed:Stopped\n").unwrap(),
            Target::Warmed("Warmed:Stopped".to_owned())
        );
        assert_eq!(read_target(b"Warmed:Terminated").unwrap(), Target::Terminated);
        assert!(read_target(b"<html>").is_err());
        assert!(read_scheduled(br#"[{"Code": "odd"}]"#).is_err());
    }

    #[test]
    fn a_lifecycle_state_leads_to_a_target() {
        for (state, target) in [
            ("Terminating:Wait", Some(Target::Terminated)),
            ("Warmed:Terminating:Wait", Some(Target::Terminated)),
            ("EnteringStandby", Some(Target::Standby)),
            ("Pending:Wait", Some(Target::InService)),
            (
                "Warmed:Pending:Wait",
                Some(Target::Warmed("Warmed:Pending:Wait".to_owned())),
            ),
            ("Quarantined", None),
        ] {
            assert_eq!(Target::of_lifecycle_state(state), target, "{state}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (read_spot(&bytes), read_rebalance(&bytes), read_scheduled(&bytes), read_target(&bytes), read_request(&bytes));
        }

        #[test]
        fn any_event_is_read_or_refused(code in ".{0,20}", id in ".{0,20}", time in ".{0,30}", state in ".{0,10}") {
            let event = serde_json::json!([{"Code": code, "EventId": id, "NotBefore": time, "State": state}]);
            let _ = read_scheduled(event.to_string().as_bytes());
        }
    }
}
