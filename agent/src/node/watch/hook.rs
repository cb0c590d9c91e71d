//! Owns lifecycle hooks: what the watcher needs of Auto Scaling's API, which hook waits for the node, how long.
//! Touches nothing; the port's real implementation speaks to AWS.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::time::Timestamp;

/// The longest that heartbeats can stretch a hook: 48 hours or a hundred times its timeout, whichever is less
/// (Auto Scaling's user guide; the API tells the same number as `GlobalTimeout`).
const LONGEST: Duration = Duration::from_hours(48);
const MOST_TIMEOUTS: u32 = 100;

/// What is kept of a hook's time to complete it.
const MARGIN: Duration = Duration::from_secs(30);

/// Which way an instance goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transition {
    /// Into service, or into the warm pool (`EC2_INSTANCE_LAUNCHING`).
    Launching,
    /// Out of service (`EC2_INSTANCE_TERMINATING`).
    Terminating,
}

/// How a lifecycle action ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionResult {
    /// The instance goes on.
    Continue,
    /// A launching instance is terminated; a terminating one is so either way.
    Abandon,
}

/// What Auto Scaling says of this instance (DescribeAutoScalingInstances).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInstance {
    /// Name of its group.
    pub group: String,
    /// Its lifecycle state, such as `Terminating:Wait`.
    pub state: String,
}

/// One hook of a group (DescribeLifecycleHooks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleHook {
    /// Its name.
    pub name: String,
    /// When it acts.
    pub transition: Transition,
    /// How long it waits for a heartbeat or the end.
    pub heartbeat_timeout: Duration,
}

/// A call of Auto Scaling's API failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The instance's role may not do this; it is of no use to try again. The text names the action.
    #[error("denied: {0}")]
    Denied(String),
    /// Nothing waits for this instance: the hook was completed before, ran out, or never began
    /// (`ValidationError`, "No active Lifecycle Action found").
    #[error("no lifecycle action is waiting: {0}")]
    NoAction(String),
    /// Anything else: throttled, unreachable, an error of the service.
    #[error("{0}")]
    Passing(String),
}

/// Auto Scaling's API, for this instance. Each call has a deadline of its own, of seconds.
pub trait LifecycleActions {
    /// This instance; none if it belongs to no group.
    fn instance(&self) -> Result<Option<GroupInstance>, CallError>;
    /// All hooks of a group.
    fn hooks(&self, group: &str) -> Result<Vec<LifecycleHook>, CallError>;
    /// Ends this instance's wait at a hook (CompleteLifecycleAction with InstanceId).
    fn complete(&self, group: &str, hook: &str, result: ActionResult) -> Result<(), CallError>;
    /// Starts the hook's timeout anew (RecordLifecycleActionHeartbeat with InstanceId).
    fn heartbeat(&self, group: &str, hook: &str) -> Result<(), CallError>;
}

/// A hook at which this instance waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHook {
    /// Name of the group.
    pub group: String,
    /// Name of the hook.
    pub name: String,
    /// Which way the instance goes.
    pub transition: Transition,
    /// The hook's timeout in seconds.
    pub timeout_seconds: u64,
    /// When it was found to wait.
    pub since: Timestamp,
    /// When it last heard of us, if it did.
    pub last_beat: Option<Timestamp>,
    /// How often it heard of us.
    pub beats: u32,
}

impl OpenHook {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// The end of its time, whatever heartbeats say, less a margin.
    pub fn limit(&self) -> Timestamp {
        let longest = self.timeout().saturating_mul(MOST_TIMEOUTS).min(LONGEST);
        self.since.plus(longest.saturating_sub(MARGIN))
    }

    /// When the next heartbeat is due: at once when the hook was just found, since nobody knows how much of its
    /// timeout has passed, then every half timeout. None when its time cannot be stretched further.
    pub fn next_beat(&self) -> Option<Timestamp> {
        let next = self
            .last_beat
            .map_or(self.since, |last| last.plus(self.timeout() / 2));
        (next < self.limit()).then_some(next)
    }
}

/// The hook at which an instance waits, by what Auto Scaling says of it; the error is why there is none, or why
/// it cannot be told.
pub(crate) fn choose<'a>(
    instance: &GroupInstance,
    hooks: &'a [LifecycleHook],
    launch: Option<&str>,
    termination: Option<&str>,
) -> Result<&'a LifecycleHook, String> {
    let (transition, wanted) = match instance.state.as_str() {
        "Pending:Wait" | "Warmed:Pending:Wait" => (Transition::Launching, launch),
        "Terminating:Wait" | "Warmed:Terminating:Wait" => (Transition::Terminating, termination),
        state => return Err(format!("the instance is {state} in group {}", instance.group)),
    };
    let mut able = hooks
        .iter()
        .filter(|hook| hook.transition == transition && wanted.is_none_or(|name| name == hook.name));
    match (able.next(), able.next(), wanted) {
        (Some(hook), None, _) => Ok(hook),
        (Some(_), Some(_), _) => Err(format!(
            "group {} has several hooks for this: name the one that the node is to complete",
            instance.group
        )),
        (None, _, Some(name)) => Err(format!("group {} has no such hook as {name}", instance.group)),
        (None, _, None) => Err(format!("group {} has no hook for this", instance.group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, transition: Transition) -> LifecycleHook {
        LifecycleHook {
            name: name.to_owned(),
            transition,
            heartbeat_timeout: Duration::from_mins(5),
        }
    }

    #[test]
    fn the_hook_is_the_one_at_which_the_instance_waits() {
        let both = [
            hook("up", Transition::Launching),
            hook("down", Transition::Terminating),
        ];
        let two = [
            hook("down", Transition::Terminating),
            hook("lambda", Transition::Terminating),
        ];
        let instance = |state: &str| GroupInstance {
            group: "g".to_owned(),
            state: state.to_owned(),
        };
        let name = |state, hooks, launch, termination| {
            choose(&instance(state), hooks, launch, termination).map(|hook| hook.name.clone())
        };
        assert_eq!(name("Terminating:Wait", &both, None, None).unwrap(), "down");
        assert_eq!(name("Pending:Wait", &both, None, None).unwrap(), "up");
        assert_eq!(name("Warmed:Pending:Wait", &both, None, None).unwrap(), "up");
        assert!(
            name("InService", &both, None, None)
                .unwrap_err()
                .contains("InService")
        );
        assert!(
            name("Terminating:Wait", &two, None, None)
                .unwrap_err()
                .contains("several")
        );
        assert_eq!(
            name("Terminating:Wait", &two, None, Some("lambda")).unwrap(),
            "lambda"
        );
        assert!(
            name("Terminating:Wait", &two, None, Some("x"))
                .unwrap_err()
                .contains("no such hook as x")
        );
    }

    #[test]
    fn heartbeats_come_every_half_timeout_and_end_at_the_limit() {
        for (timeout, limit, beats) in [(30_u64, 2970_u64, 198), (300, 29_970, 200), (7200, 172_770, 48)] {
            let mut open = OpenHook {
                group: "g".to_owned(),
                name: "h".to_owned(),
                transition: Transition::Terminating,
                timeout_seconds: timeout,
                since: Timestamp::from_millis(0),
                last_beat: None,
                beats: 0,
            };
            assert_eq!(open.limit(), Timestamp::from_millis(limit * 1000));
            while let Some(next) = open.next_beat() {
                assert!(next < open.limit());
                open.last_beat = Some(next);
                open.beats += 1;
            }
            assert_eq!(open.beats, beats, "timeout {timeout}");
        }
    }
}
