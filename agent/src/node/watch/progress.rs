//! Owns how far the node has come on its way out or in, and what each outcome of an effect changes about it.
//! Touches nothing.

use serde::{Deserialize, Serialize};

use super::action::{Action, Step};
use super::decide::BLIND_SETTLE;
use super::hook::{ActionResult, OpenHook};
use super::time::Timestamp;

/// How jobs came to be away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how", content = "detail")]
pub enum Away {
    /// All moved, or ended.
    Complete,
    /// The deadline came first; this many were there still, if it could be told.
    Deadline(Option<u32>),
    /// Nomad drained itself by its own configuration and ended.
    BySignal,
    /// Nomad does not run.
    NoNomad,
}

/// Whether the node is a member of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "detail")]
pub enum Membership {
    /// It is, as far as is known.
    #[default]
    Member,
    /// It left.
    Left,
    /// It goes down as a member, because of this.
    Stays(String),
}

impl Membership {
    fn is_open(&self) -> bool {
        *self == Self::Member
    }
}

/// What a hook is for us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "detail")]
pub enum Hook {
    /// It waits for the node.
    Open(OpenHook),
    /// It was completed with this result.
    Completed(ActionResult),
    /// None waits for this node, because of this.
    None(String),
}

/// How the jobs are asked to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// When those that are left are stopped.
    pub deadline: Timestamp,
    /// How many were left when it was last looked, if it could be told.
    pub left: Option<u32>,
    /// Since when Nomad has called the drain complete.
    pub complete_since: Option<Timestamp>,
}

/// Whether the node takes no jobs because of us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "detail")]
pub enum Out {
    /// We left it as it was.
    #[default]
    No,
    /// It takes none.
    Yes,
    /// It does take jobs, because of this.
    Refused(String),
}

/// How far the node has come. Kept in the journal, so that a watcher that was killed goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Whether the node was eligible before it was touched; none while untouched.
    pub eligible_before: Option<bool>,
    /// Whether the node takes no jobs because of us.
    pub out: Out,
    /// The drain that was asked for.
    pub drain: Option<Draining>,
    /// When Nomad was told to drain itself and end.
    pub signalled: Option<Timestamp>,
    /// Whether quorum lets the Nomad server go.
    pub cleared: bool,
    /// How the jobs came to be away.
    pub away: Option<Away>,
    /// Whether Consul was told that the node is under maintenance.
    pub maintenance: bool,
    /// Nomad.
    pub nomad: Membership,
    /// Consul.
    pub consul: Membership,
    /// The hook that waits for the node to have left.
    pub departure: Option<Hook>,
    /// The hook that waits for the node to be ready.
    pub arrival: Option<Hook>,
    /// Whether the node proved that it is ready.
    pub proven: bool,
    /// Why the node gave up becoming ready, if it did.
    pub hopeless: Option<String>,
}

/// What an effect found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is done; there is nothing more to know.
    Nothing,
    /// Whether the node is eligible.
    Eligible(bool),
    /// Whether Nomad calls the drain complete, and how many allocations have not ended, if that can be told.
    Drain {
        /// Whether Nomad calls it complete.
        complete: bool,
        /// Allocations that have not ended.
        left: Option<u32>,
    },
    /// The drain is no more, and not because it is complete: somebody cancelled it.
    NotDraining,
    /// Nomad does not run.
    NotRunning,
    /// Nomad runs.
    Running,
    /// Quorum lets the server go.
    MayLeave,
    /// A hook.
    Hook(Hook),
    /// The node stays a member, because of this.
    Stays(String),
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done(Found),
    /// Not now; the reason may pass.
    NotNow(String),
    /// Not ever; the reason will not pass.
    Never(String),
}

impl Progress {
    /// Whether the node is a member of nothing any more, or will not be for as long as it runs.
    pub(super) fn has_parted(&self) -> bool {
        !self.nomad.is_open() || !self.consul.is_open()
    }

    /// Takes in what is about to be done, where doing it twice does harm: it is written down before it is done, so
    /// that a watcher that is killed in between does it once or not at all.
    pub fn intend(&mut self, step: &Step, now: Timestamp) -> bool {
        let once = step.action == Action::Signal;
        if once {
            self.apply(step, &Outcome::Done(Found::Nothing), now);
        }
        once
    }

    /// Takes back what was intended and could not be done.
    pub fn relent(&mut self, step: &Step) {
        if step.action == Action::Signal {
            self.signalled = None;
        }
    }

    /// Takes in how a step ended. What is `NotNow` changes nothing: it is tried again.
    pub fn apply(&mut self, step: &Step, outcome: &Outcome, now: Timestamp) {
        let found = match outcome {
            Outcome::Done(found) => found,
            Outcome::NotNow(_) => return,
            Outcome::Never(reason) => return self.refused(step, reason),
        };
        match (&step.action, found) {
            (Action::LookAtNode, Found::Eligible(eligible)) => self.eligible_before = Some(*eligible),
            (_, Found::NotRunning) if self.signalled.is_some() => {
                self.nomad = Membership::Left;
                self.away.get_or_insert(Away::BySignal);
            }
            (_, Found::NotRunning) => {
                self.away.get_or_insert(Away::NoNomad);
            }
            (_, Found::Running) => {
                self.away.take_if(|away| *away == Away::NoNomad);
            }
            (Action::TakeOut, _) => self.out = Out::Yes,
            (Action::Drain { deadline, .. }, _) => {
                self.out = Out::Yes;
                self.drain = Some(Draining {
                    deadline: *deadline,
                    left: None,
                    complete_since: None,
                });
            }
            (Action::LookAtDrain, Found::Drain { complete, left }) => self.look(*complete, *left, now),
            (Action::LookAtDrain, Found::NotDraining) => self.drain = None,
            (Action::GiveUpDrain, _) => {
                let left = self.drain.as_ref().and_then(|drain| drain.left);
                self.away = Some(Away::Deadline(left));
            }
            (Action::Signal, _) => {
                self.signalled = Some(now);
                // It makes the node ineligible, and it was so before for all that could be learned.
                self.out = Out::Yes;
                self.eligible_before.get_or_insert(true);
            }
            (Action::Maintenance { on }, _) => self.maintenance = *on,
            (Action::LeaveNomad | Action::Stay { consul: false }, Found::Stays(reason)) => {
                self.nomad = Membership::Stays(reason.clone());
            }
            (Action::LeaveNomad, Found::MayLeave) => self.cleared = true,
            (Action::LeaveNomad, _) => self.nomad = Membership::Left,
            (Action::LeaveConsul | Action::Stay { consul: true }, Found::Stays(reason)) => {
                self.consul = Membership::Stays(reason.clone());
            }
            (Action::LeaveConsul, _) => self.consul = Membership::Left,
            (Action::FindHook { arrival } | Action::Heartbeat { arrival }, Found::Hook(hook)) => {
                *self.hook(*arrival) = Some(hook.clone());
            }
            (Action::Heartbeat { arrival }, _) => {
                if let Some(Hook::Open(open)) = self.hook(*arrival) {
                    open.last_beat = Some(now);
                    open.beats += 1;
                }
            }
            (Action::Complete { arrival, result }, _) => {
                *self.hook(*arrival) = Some(Hook::Completed(*result));
            }
            (Action::Prove, _) => {
                self.proven = true;
                self.hopeless = None;
            }
            (Action::CancelDrain { eligible }, _) => {
                self.drain = None;
                self.away = None;
                if *eligible {
                    self.eligible_before = None;
                    self.out = Out::No;
                }
            }
            (Action::BringBack, _) => {
                self.eligible_before = None;
                self.out = Out::No;
                self.drain = None;
                self.away = None;
            }
            (Action::Join, _) => {
                self.nomad = Membership::Member;
                self.consul = Membership::Member;
                self.signalled = None;
                self.cleared = false;
                self.away.take_if(|away| *away == Away::NoNomad);
            }
            (Action::Arrived, _) => {
                self.proven = false;
                self.arrival = None;
            }
            (Action::GiveUpProof, Found::Stays(reason)) => self.hopeless = Some(reason.clone()),
            _ => {}
        }
    }

    fn look(&mut self, complete: bool, left: Option<u32>, now: Timestamp) {
        let Some(drain) = &mut self.drain else { return };
        drain.left = left;
        if !complete {
            return;
        }
        let since = *drain.complete_since.get_or_insert(now);
        let settled = match left {
            Some(left) => left == 0,
            // Nomad calls a drain complete when system jobs were told to stop, and does not wait for them. Without
            // the right to see them they get the time that a task has to end by default, and as much again.
            None => now.since(since) >= BLIND_SETTLE,
        };
        if settled {
            self.away = Some(Away::Complete);
        }
    }

    fn refused(&mut self, step: &Step, reason: &str) {
        let reason = reason.to_owned();
        match &step.action {
            // Who may not look may not give back either; the attempt costs nothing.
            Action::LookAtNode => self.eligible_before = Some(true),
            Action::TakeOut => self.out = Out::Refused(reason),
            Action::LeaveNomad => self.nomad = Membership::Stays(reason),
            Action::LeaveConsul => self.consul = Membership::Stays(reason),
            Action::FindHook { arrival } | Action::Complete { arrival, .. } => {
                *self.hook(*arrival) = Some(Hook::None(reason));
            }
            Action::Prove => self.hopeless = Some(reason),
            // The same signal would have let a server leave.
            Action::Signal if self.cleared => self.nomad = Membership::Stays(reason),
            // Nothing else can be done about it: the step after it goes on.
            Action::Signal => self.away = Some(Away::Deadline(None)),
            Action::Maintenance { on } => self.maintenance = *on,
            _ => {}
        }
    }

    /// The hook of the way in, or of the way out.
    pub(super) fn hook(&mut self, arrival: bool) -> &mut Option<Hook> {
        if arrival {
            &mut self.arrival
        } else {
            &mut self.departure
        }
    }
}
