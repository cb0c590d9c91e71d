//! Owns the words for what can be done about a node, and what is remembered of deeds that did not succeed.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::hook::ActionResult;
use super::time::Timestamp;

/// One effect on the node or the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Ask Nomad whether the node is eligible now, to give it back as it was.
    LookAtNode,
    /// Make the node ineligible.
    TakeOut,
    /// Have its jobs moved by this time.
    Drain {
        /// When jobs that are left are stopped.
        deadline: Timestamp,
        /// Whether system jobs stay.
        ignore_system_jobs: bool,
    },
    /// Ask Nomad how the drain goes.
    LookAtDrain,
    /// Stop waiting for jobs that did not end.
    GiveUpDrain,
    /// Tell Nomad by SIGTERM to leave: a client drains itself first, a server has its vote taken out.
    Signal,
    /// Ask whether Nomad ended.
    LookAtUnit,
    /// End the drain, and make the node eligible if it was.
    CancelDrain {
        /// Whether it becomes eligible.
        eligible: bool,
    },
    /// Make the node eligible.
    BringBack,
    /// Tell Consul that the node is under maintenance, or no longer.
    Maintenance {
        /// Whether it is.
        on: bool,
    },
    /// Leave Nomad: a server its peers, a client its servers.
    LeaveNomad,
    /// Leave Consul.
    LeaveConsul,
    /// Stop waiting for the moment in which a server could leave.
    Stay {
        /// Whether in Consul, not Nomad.
        consul: bool,
    },
    /// Join Consul and Nomad again.
    Join,
    /// Ask Auto Scaling which hook waits for the node.
    FindHook {
        /// Whether for its way in, not out.
        arrival: bool,
    },
    /// Tell the hook that the node is still at it.
    Heartbeat {
        /// Whether the hook of the way in.
        arrival: bool,
    },
    /// Tell the hook how it ended.
    Complete {
        /// Whether the hook of the way in.
        arrival: bool,
        /// How it ended.
        result: ActionResult,
    },
    /// Check whether the node is ready for work.
    Prove,
    /// Stop expecting that it will be.
    GiveUpProof,
    /// Write down that the node is in service.
    Arrived,
    /// Write down that nothing is asked of the node any more.
    Forget,
}

impl Action {
    /// Its name in messages; actions of one name share their retries.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LookAtNode => "look at the node",
            Self::TakeOut => "make the node ineligible",
            Self::Drain { .. } => "drain",
            Self::LookAtDrain => "look at the drain",
            Self::GiveUpDrain => "go on without waiting for the rest",
            Self::Signal => "tell Nomad by SIGTERM to leave",
            Self::LookAtUnit => "look whether Nomad ended",
            Self::CancelDrain { .. } => "cancel the drain",
            Self::BringBack => "make the node eligible",
            Self::Maintenance { on: true } => "begin Consul's maintenance mode",
            Self::Maintenance { on: false } => "end Consul's maintenance mode",
            Self::LeaveNomad => "leave Nomad",
            Self::LeaveConsul => "leave Consul",
            Self::Stay { consul: false } => "stay a member of Nomad's servers",
            Self::Stay { consul: true } => "stay a member of Consul's servers",
            Self::Join => "join Consul and Nomad",
            Self::FindHook { .. } => "find the lifecycle hook",
            Self::Heartbeat { .. } => "send the hook a heartbeat",
            Self::Complete {
                result: ActionResult::Continue,
                ..
            } => "complete the hook: CONTINUE",
            Self::Complete {
                result: ActionResult::Abandon,
                ..
            } => "complete the hook: ABANDON",
            Self::Prove => "prove readiness",
            Self::GiveUpProof => "give up waiting for readiness",
            Self::Arrived => "be in service",
            Self::Forget => "be as before",
        }
    }

    /// Whether it only looks, and is not worth a line each time.
    pub fn is_look(&self) -> bool {
        matches!(
            self,
            Self::LookAtNode | Self::LookAtDrain | Self::LookAtUnit | Self::Prove | Self::FindHook { .. }
        )
    }

    /// Pauses between two tries: first, longest.
    fn pauses(&self) -> (Duration, Duration) {
        let seconds = |first, longest| (Duration::from_secs(first), Duration::from_secs(longest));
        match self {
            Self::LeaveNomad | Self::LeaveConsul => seconds(3, 10),
            Self::FindHook { .. } => seconds(2, 30),
            Self::Heartbeat { .. } | Self::Complete { .. } => seconds(2, 15),
            Self::Prove => seconds(2, 5),
            Self::CancelDrain { .. } | Self::BringBack => seconds(1, 60),
            Self::LookAtDrain | Self::LookAtUnit => seconds(2, 2),
            _ => seconds(1, 8),
        }
    }
}

/// An action with its deadline and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// By when it must have been done to be of use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.action.name())?;
        if let Some(deadline) = self.deadline {
            write!(formatter, " until {deadline}")?;
        }
        write!(formatter, " ({})", self.reason)
    }
}

/// Steps that did not succeed, by name. Lost when the watcher is killed: then each is tried at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retries(BTreeMap<&'static str, Retry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    since: Timestamp,
    next: Option<Timestamp>,
    pause: Duration,
    reason: String,
}

impl Retries {
    /// The step did not succeed and may later. Tells when it is tried again.
    pub fn not_now(&mut self, action: &Action, reason: &str, now: Timestamp) -> Timestamp {
        let (first, longest) = action.pauses();
        let retry = self.0.entry(action.name()).or_insert_with(|| Retry {
            since: now,
            next: None,
            pause: first,
            reason: String::new(),
        });
        let next = now.plus(retry.pause);
        retry.pause = (retry.pause * 2).min(longest);
        retry.next = Some(next);
        reason.clone_into(&mut retry.reason);
        next
    }

    /// The step will never succeed.
    pub fn never(&mut self, action: &Action, reason: &str, now: Timestamp) {
        self.not_now(action, reason, now);
        if let Some(retry) = self.0.get_mut(action.name()) {
            retry.next = None;
        }
    }

    /// The step succeeded.
    pub fn done(&mut self, action: &Action) {
        self.0.remove(action.name());
    }

    /// Everything is forgotten: another story begins.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The last reason of a step that has not succeeded.
    pub fn reason(&self, action: &Action) -> Option<&str> {
        self.0.get(action.name()).map(|retry| retry.reason.as_str())
    }

    /// Whether the step was refused for good.
    pub(super) fn refused(&self, action: &Action) -> bool {
        self.0
            .get(action.name())
            .is_some_and(|retry| retry.next.is_none())
    }

    /// How long the step has not succeeded.
    pub(super) fn failing_for(&self, action: &Action, now: Timestamp) -> Duration {
        self.0
            .get(action.name())
            .map_or(Duration::ZERO, |retry| now.since(retry.since))
    }

    /// When the step may be tried again; none if now.
    pub(super) fn held_until(&self, action: &Action, now: Timestamp) -> Option<Timestamp> {
        self.0
            .get(action.name())
            .and_then(|retry| retry.next)
            .filter(|next| *next > now)
    }
}
