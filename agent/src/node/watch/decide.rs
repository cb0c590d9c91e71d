//! Owns the decision what to do next: from wish, progress and time to one step, or to a time to look again.
//! Touches nothing: the same input gives the same step.

use std::time::Duration;

use super::action::{Action, Retries, Step};
use super::cause::Wish;
use super::hook::ActionResult;
use super::notice::Posture;
use super::progress::{Away, Hook, Membership, Out, Progress};
use super::spec::WatchSpec;
use super::time::Timestamp;

/// How long after a drain's deadline tasks may still take to end: Nomad's default `kill_timeout` is 5 s.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long system jobs get to end where nobody may see them.
pub(crate) const BLIND_SETTLE: Duration = Duration::from_secs(10);
/// How long a server that was told to leave may take.
const SERVER_LEAVES: Duration = Duration::from_secs(30);
/// How long Nomad's API may refuse to answer before its node drains itself by a signal instead.
const API_PATIENCE: Duration = Duration::from_secs(20);

/// What comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// A step to take now.
    pub step: Option<Step>,
    /// When to ask again, if no step is to be taken; none if only news can change anything.
    pub wake: Option<Timestamp>,
    /// Whether everything that is asked for has been reached.
    pub settled: bool,
}

/// How far one part of the decision came.
enum Part {
    /// This part is as it should be.
    Reached,
    /// It is on its way; parts after it must wait.
    Busy,
    Do(Action),
}

use Part::{Busy, Do, Reached};

struct Decision<'a> {
    spec: &'a WatchSpec,
    wish: &'a Wish,
    progress: &'a Progress,
    retries: &'a Retries,
    now: Timestamp,
    /// How far out the node must be, readiness included.
    posture: Posture,
    wake: Option<Timestamp>,
}

/// Decides.
pub fn next(spec: &WatchSpec, wish: &Wish, progress: &Progress, retries: &Retries, now: Timestamp) -> Next {
    let unproven = wish.arriving.is_some() && spec.hold_until_ready && !progress.proven;
    let mut decision = Decision {
        spec,
        wish,
        progress,
        retries,
        now,
        posture: if unproven {
            wish.posture.max(Posture::Ineligible)
        } else {
            wish.posture
        },
        wake: wish.next,
    };
    let parts = [
        Decision::hooks,
        Decision::back,
        Decision::out,
        Decision::jobs,
        Decision::membership,
        Decision::farewell,
        Decision::readiness,
        Decision::rest,
    ];
    let mut settled = true;
    for part in parts {
        match part(&mut decision) {
            Reached => {}
            Busy => {
                settled = false;
                break;
            }
            Do(action) => {
                let deadline = decision.deadline(&action);
                let step = Step {
                    deadline,
                    reason: decision.reason(&action),
                    action,
                };
                return Next {
                    step: Some(step),
                    wake: None,
                    settled: false,
                };
            }
        }
    }
    Next {
        step: None,
        wake: decision.wake,
        settled,
    }
}

impl Decision<'_> {
    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// The action now, or later if it has just failed. What was refused for good is not offered again.
    fn offer(&mut self, action: Action) -> Part {
        if self.retries.refused(&action) {
            return Reached;
        }
        match self.retries.held_until(&action, self.now) {
            None => Do(action),
            Some(next) => {
                self.wake_at(next);
                Busy
            }
        }
    }

    /// As [`Self::offer`], where nothing comes after it.
    fn offer_or_wait(&mut self, action: Action) -> Part {
        match self.offer(action) {
            Reached => Busy,
            other => other,
        }
    }

    fn deadline(&self, action: &Action) -> Option<Timestamp> {
        match action {
            Action::Drain { deadline, .. } => Some(*deadline),
            Action::LeaveNomad | Action::LeaveConsul => Some(self.patience()),
            Action::FindHook { arrival }
            | Action::Heartbeat { arrival }
            | Action::Complete { arrival, .. } => match self.hook(*arrival) {
                Some(Hook::Open(open)) => Some(open.limit()),
                _ => None,
            },
            Action::Prove => self.ready_by(),
            Action::LookAtDrain | Action::Signal | Action::LookAtUnit => self.wish.deadline,
            _ => None,
        }
    }

    fn reason(&self, action: &Action) -> String {
        let not_ready = || {
            let hopeless = self.progress.hopeless.as_deref();
            hopeless.map_or_else(|| "not ready yet".to_owned(), |why| format!("not ready: {why}"))
        };
        match action {
            Action::Complete {
                arrival: true,
                result: ActionResult::Continue,
            } => "the node is ready".to_owned(),
            Action::Arrived if self.progress.proven => "the node is ready".to_owned(),
            Action::Complete { arrival: true, .. } => not_ready(),
            Action::BringBack | Action::CancelDrain { .. } | Action::Join | Action::Forget
                if self.wish.reasons.is_empty() =>
            {
                if self.progress.proven {
                    "the node is ready".to_owned()
                } else if self.wish.restore {
                    "an operator asked".to_owned()
                } else {
                    "nothing asks for it any more".to_owned()
                }
            }
            _ if self.wish.reasons.is_empty() => not_ready(),
            _ => self.wish.reason(),
        }
    }

    fn hook(&self, arrival: bool) -> Option<&Hook> {
        if arrival {
            self.progress.arrival.as_ref()
        } else {
            self.progress.departure.as_ref()
        }
    }

    /// Which hook matters: that of the way out before that of the way in.
    fn direction(&self) -> Option<bool> {
        if self.wish.hook {
            return Some(false);
        }
        (self.wish.arriving.is_some() && self.wish.posture < Posture::Gone).then_some(true)
    }

    /// Heartbeats come before all else: they are what time is made of. Nothing waits for a hook to be found, and
    /// looking for it, which takes seconds where AWS cannot be reached, comes after the drain has begun.
    fn hooks(&mut self) -> Part {
        let Some(arrival) = self.direction() else {
            return Reached;
        };
        let action = match self.hook(arrival) {
            None if self.posture >= Posture::Drained && self.is_untouched() => return Reached,
            None => Action::FindHook { arrival },
            Some(Hook::Open(open)) => match open.next_beat() {
                Some(next) if next <= self.now => Action::Heartbeat { arrival },
                Some(next) => {
                    self.wake_at(next);
                    return Reached;
                }
                None => return Reached,
            },
            Some(_) => return Reached,
        };
        match self.offer(action) {
            Do(action) => Do(action),
            _ => Reached,
        }
    }

    /// Whether nobody has tried yet to have the jobs moved away.
    fn is_untouched(&self) -> bool {
        let drain = Action::Drain {
            deadline: self.now,
            ignore_system_jobs: false,
        };
        let tried = [Action::LookAtNode, drain];
        self.nomad_runs_jobs()
            && self.progress.drain.is_none()
            && self.progress.away.is_none()
            && self.progress.signalled.is_none()
            && tried.iter().all(|action| self.retries.reason(action).is_none())
    }

    /// Undoes what nothing asks for any more, in the reverse order of its doing.
    fn back(&mut self) -> Part {
        let progress = self.progress;
        let member = progress.nomad == Membership::Member;
        if progress.signalled.is_some() && member && self.posture < Posture::Drained {
            // A signal cannot be called back: Nomad ends, and is started again.
            return self.offer_or_wait(Action::LookAtUnit);
        }
        if progress.has_parted() && self.posture < Posture::Gone && !self.wish.going_down {
            return self.offer(Action::Join);
        }
        if self.posture >= Posture::Drained {
            return Reached;
        }
        if progress.maintenance
            && let Do(action) = self.offer(Action::Maintenance { on: false })
        {
            return Do(action);
        }
        let serving = self.posture == Posture::Serving;
        if progress.drain.is_some() {
            let eligible = serving && progress.eligible_before == Some(true);
            return self.offer(Action::CancelDrain { eligible });
        }
        let taken = progress.eligible_before == Some(true) && progress.out != Out::No;
        if serving && self.spec.nomad_client && (taken || self.wish.restore) {
            return self.offer(Action::BringBack);
        }
        Reached
    }

    fn nomad_runs_jobs(&self) -> bool {
        self.spec.nomad_client && self.progress.nomad == Membership::Member
    }

    /// Takes no more work.
    fn out(&mut self) -> Part {
        if self.posture == Posture::Serving || !self.nomad_runs_jobs() || self.progress.away.is_some() {
            return Reached;
        }
        if self.progress.eligible_before.is_none() && !self.is_silent(&Action::LookAtNode) {
            return self.offer(Action::LookAtNode);
        }
        if self.posture == Posture::Ineligible && self.progress.out == Out::No {
            return self.offer(Action::TakeOut);
        }
        Reached
    }

    /// Whether Nomad's API has been silent for as long as the deadline lets us wait for it.
    fn is_silent(&self, action: &Action) -> bool {
        let left = self
            .wish
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.since(self.now));
        self.posture >= Posture::Drained
            && self.retries.reason(action).is_some()
            && self.retries.failing_for(action, self.now) >= API_PATIENCE.min(left / 4)
    }

    /// Has the work done elsewhere.
    fn jobs(&mut self) -> Part {
        let progress = self.progress;
        if self.posture < Posture::Drained {
            return Reached;
        }
        if self.spec.consul_maintenance
            && !progress.maintenance
            && let Do(action) = self.offer(Action::Maintenance { on: true })
        {
            return Do(action);
        }
        if !self.nomad_runs_jobs() {
            return Reached;
        }
        match &progress.away {
            // Whoever starts Nomad behind our back starts with a node that may take jobs.
            Some(Away::NoNomad) if self.posture == Posture::Drained => {
                return match self.offer(Action::LookAtUnit) {
                    Do(action) => Do(action),
                    _ => Reached,
                };
            }
            Some(_) => return Reached,
            None => {}
        }
        let deadline = self.wish.deadline.unwrap_or(self.now);
        if progress.signalled.is_some() {
            return self.until(deadline, Action::LookAtUnit);
        }
        // A later deadline gives the jobs no more time: it was promised to somebody. An earlier one counts.
        let slack = Duration::from_secs(1);
        match progress.drain.as_ref().map(|drain| drain.deadline) {
            Some(asked) if asked <= deadline.plus(slack) => self.until(asked, Action::LookAtDrain),
            _ => self.drain(deadline),
        }
    }

    /// Looks on until the deadline and the time that tasks take to end after it.
    fn until(&mut self, deadline: Timestamp, look: Action) -> Part {
        let last = deadline.plus(GRACE);
        if self.now >= last {
            return Do(Action::GiveUpDrain);
        }
        self.wake_at(last);
        self.offer_or_wait(look)
    }

    /// Asks for a drain by the API, or by a signal where the API will not have it.
    fn drain(&mut self, deadline: Timestamp) -> Part {
        let drain = Action::Drain {
            deadline,
            ignore_system_jobs: self.wish.ignore_system_jobs,
        };
        let lost = self.retries.refused(&drain)
            || self.is_silent(&drain)
            || self.is_silent(&Action::LookAtNode) && self.progress.eligible_before.is_none();
        if !lost {
            return self.offer(drain);
        }
        // A signal would take a server beside the client along, whatever becomes of the quorum.
        if self.spec.drain_by_signal && self.spec.nomad_server.is_none() {
            return self.offer(Action::Signal);
        }
        self.until(deadline, drain)
    }

    /// Leaves Nomad, then Consul, through which Nomad's services are known.
    fn membership(&mut self) -> Part {
        if self.posture < Posture::Gone {
            return Reached;
        }
        if self.spec.has_nomad() && self.progress.nomad == Membership::Member {
            let told = self.progress.signalled;
            return match told.map(|told| told.plus(SERVER_LEAVES)) {
                Some(last) if self.now < last => {
                    self.wake_at(last);
                    self.offer_or_wait(Action::LookAtUnit)
                }
                // By now a server that had heard it would have ended: it was never told.
                Some(_) if self.progress.cleared && self.now >= self.patience() => {
                    Do(Action::Stay { consul: false })
                }
                _ if self.progress.cleared => self.offer_or_wait(Action::Signal),
                _ => self.leave(false),
            };
        }
        if self.progress.consul == Membership::Member {
            return self.leave(true);
        }
        Reached
    }

    fn leave(&mut self, consul: bool) -> Part {
        let action = if consul {
            Action::LeaveConsul
        } else {
            Action::LeaveNomad
        };
        let patience = self.patience();
        if self.now >= patience && self.retries.reason(&action).is_some() {
            return Do(Action::Stay { consul });
        }
        self.wake_at(patience.max(self.now.plus(Duration::from_secs(1))));
        self.offer_or_wait(action)
    }

    /// Until when a server waits for its moment: as long as the notice and the hook allow.
    fn patience(&self) -> Timestamp {
        let patience = self.wish.patience.unwrap_or(self.now);
        match &self.progress.departure {
            Some(Hook::Open(open)) => patience.min(open.limit()),
            _ => patience,
        }
    }

    /// Lets the hook of the way out go on.
    fn farewell(&mut self) -> Part {
        if !self.wish.hook {
            return Reached;
        }
        match &self.progress.departure {
            Some(Hook::Open(_)) => self.offer(Action::Complete {
                arrival: false,
                result: ActionResult::Continue,
            }),
            Some(_) => Reached,
            None => self.offer(Action::FindHook { arrival: false }),
        }
    }

    fn ready_by(&self) -> Option<Timestamp> {
        let deadline = self.wish.arriving?.plus(self.spec.ready_deadline);
        match &self.progress.arrival {
            Some(Hook::Open(open)) => Some(deadline.min(open.limit())),
            _ => Some(deadline),
        }
    }

    /// Proves that the node can work, and tells the hook of the way in.
    fn readiness(&mut self) -> Part {
        let expected = self.wish.posture < Posture::Gone && !self.wish.going_down;
        let Some(by) = self.ready_by().filter(|_| expected) else {
            return Reached;
        };
        let open = matches!(self.progress.arrival, Some(Hook::Open(_)));
        if !self.progress.proven {
            if self.progress.hopeless.is_none()
                && self.now >= by
                && self.retries.reason(&Action::Prove).is_some()
            {
                return Do(Action::GiveUpProof);
            }
            if self.progress.hopeless.is_some() && open {
                return self.offer(Action::Complete {
                    arrival: true,
                    result: ActionResult::Abandon,
                });
            }
            if by > self.now {
                self.wake_at(by);
            }
            return self.offer_or_wait(Action::Prove);
        }
        match &self.progress.arrival {
            Some(Hook::Open(_)) => self.offer(Action::Complete {
                arrival: true,
                result: ActionResult::Continue,
            }),
            Some(_) => Do(Action::Arrived),
            // Auto Scaling does not tell: the hook's own default result decides.
            None if self.now >= by => Do(Action::Arrived),
            None => match self.offer(Action::FindHook { arrival: true }) {
                Reached => Do(Action::Arrived),
                other => other,
            },
        }
    }

    /// When the node serves again, its story is over.
    fn rest(&mut self) -> Part {
        let serving = self.posture == Posture::Serving && self.wish.arriving.is_none();
        if serving && (*self.progress != Progress::default() || self.wish.restore) {
            return Do(Action::Forget);
        }
        Reached
    }
}
