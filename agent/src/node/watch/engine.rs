//! Owns the watcher's loop: hear, decide, do, remember, wait.
//! Touches the ports and the journal.

use std::time::Duration;

use super::action::{Action, Retries, Step};
use super::cause::{self, Wish};
use super::clock::Stop;
use super::decide::{self, Next};
use super::effects::{self, Context, Ports};
use super::event::Event;
use super::hear::spread;
use super::journal::{Journal, State};
use super::notice::{Posture, Shutdown};
use super::progress::{Found, Hook, Outcome};
use super::say::{Left, Told};
use super::source::Schedule;
use super::spec::WatchSpec;
use super::time::Timestamp;
use super::upkeep::Diary;
use crate::host::FileError;

/// What a shutdown may cost beyond its drain.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(30);
/// Steps in a row after which the loop takes a breath: there is no such row, and a defect shall not burn the machine.
const BREATHLESS: u32 = 64;

/// When the loop ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// When the node is what is asked of it, or at this time.
    Settled(Timestamp),
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The node is what is asked of it.
    Settled,
    /// Time was over before.
    Late,
}

/// The watcher.
pub struct Engine<'a> {
    pub(super) spec: &'a WatchSpec,
    pub(super) ports: Ports<'a>,
    pub(super) journal: Journal<'a>,
    pub(super) state: State,
    retries: Retries,
    pub(super) schedule: Schedule,
    pub(super) told: Told,
    pub(super) diary: Diary,
    /// When the request was made that was fulfilled last: it may outlive its end where files cannot be removed.
    pub(super) fulfilled: Option<Timestamp>,
    /// Whether the mark of a node that is not ready could not be removed.
    pub(super) arrived: bool,
    /// When a shutdown must have ended.
    stop_by: Option<Timestamp>,
    resumed: bool,
    /// Whether nothing may be written: what would be done is only told.
    pub(super) dry: bool,
}

impl<'a> Engine<'a> {
    /// A watcher that goes on from the journal.
    pub fn new(spec: &'a WatchSpec, ports: Ports<'a>, journal: Journal<'a>) -> Result<Self, FileError> {
        let (state, fault) = journal.load()?;
        let ticks = ports.clock.ticks();
        let schedule = Schedule::new(spec.intervals, ticks);
        let boot = state.boot.clone();
        let resumed = state.progress != super::progress::Progress::default();
        let mut engine = Self {
            spec,
            ports,
            journal,
            state,
            retries: Retries::default(),
            schedule,
            told: Told::default(),
            diary: Diary::new(ticks + spread(&boot, spec.intervals.drift)),
            fulfilled: None,
            arrived: false,
            stop_by: None,
            resumed,
            dry: false,
        };
        if let Some(text) = fault {
            engine.tell(&Event::Warning { text });
        }
        Ok(engine)
    }

    /// Asks no source: what is remembered stays true.
    pub fn ask_nobody(&mut self) {
        self.schedule.silence();
    }

    /// What is known, and how far the node has come.
    pub fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    pub(super) fn tell(&mut self, event: &Event) {
        let now = self.now();
        self.ports.tell.tell(now, event);
    }

    /// Watches until told to stop, or until settled.
    pub fn run(&mut self, until: Until) -> Ended {
        self.tell(&Event::Started {
            resumed: self.resumed,
        });
        self.hear();
        self.ports.notify.ready();
        let mut row = 0;
        loop {
            self.ports.notify.alive();
            if self
                .ports
                .clock
                .wait(Duration::ZERO)
                .is_some_and(|Stop| self.stop())
            {
                return self.end(Ended::Stopped);
            }
            self.hear();
            let wish = self.wish();
            self.keep_up(&wish);
            let next = self.decide(&wish);
            row += 1;
            if let Some(step) = next.step.filter(|_| row < BREATHLESS) {
                self.take(&step, &wish);
                continue;
            }
            row = 0;
            self.say_settled(&wish, next.settled);
            let now = self.now();
            match until {
                _ if self.stop_by.is_some_and(|by| next.settled || now >= by) => {
                    return self.end(Ended::Stopped);
                }
                Until::Settled(_) if next.settled => return self.end(Ended::Settled),
                Until::Settled(by) if now >= by => return self.end(Ended::Late),
                _ => {}
            }
            let ticks = self.ports.clock.ticks();
            let mut pause = self.schedule.pause(ticks).min(self.diary.pause(ticks));
            let limits = [
                next.wake,
                self.stop_by,
                if let Until::Settled(by) = until {
                    Some(by)
                } else {
                    None
                },
            ];
            for limit in limits.into_iter().flatten() {
                pause = pause.min(limit.since(now));
            }
            // Never without a breath: a deadline that has just passed must not turn the loop into a busy one.
            let pause = pause.max(Duration::from_millis(50));
            if self.ports.clock.wait(pause).is_some_and(|Stop| self.stop()) {
                return self.end(Ended::Stopped);
            }
        }
    }

    /// Asks every source once and tells what would be done now, without doing it.
    pub fn preview(&mut self) -> Next {
        self.dry = true;
        self.hear();
        let wish = self.wish();
        let next = decide::next(self.spec, &wish, &self.state.progress, &self.retries, self.now());
        self.say_wish(&wish);
        if let Some(step) = &next.step {
            let step = step.clone();
            self.tell(&Event::Action { step });
        } else {
            self.say_settled(&wish, next.settled);
        }
        next
    }

    fn end(&mut self, ended: Ended) -> Ended {
        self.ports.notify.stopping();
        self.tell(&Event::Stopped);
        ended
    }

    /// A signal came: whether to end at once.
    fn stop(&mut self) -> bool {
        if self.stop_by.is_some() {
            return true;
        }
        let shutdown = self.ports.machine.shutdown();
        let what = match shutdown {
            None => "the service",
            Some(Shutdown::PowerOff) => "the machine shuts down",
            Some(Shutdown::Reboot) => "the machine reboots",
        };
        self.tell(&Event::Stopping { what });
        let Some(shutdown) = shutdown else { return true };
        self.state.notices.shutdown = Some(shutdown);
        self.stop_by = Some(self.now().plus(self.spec.shutdown_drain + SHUTDOWN_MARGIN));
        false
    }

    fn wish(&mut self) -> Wish {
        let now = self.now();
        let wish = cause::wish(&self.state.notices, &self.state.seen, self.spec, now);
        self.say_wish(&wish);
        wish
    }

    fn decide(&mut self, wish: &Wish) -> Next {
        decide::next(self.spec, wish, &self.state.progress, &self.retries, self.now())
    }

    pub(super) fn store(&mut self) {
        if self.dry {
            return;
        }
        if let Err(error) = self.journal.store(&self.state) {
            let reason =
                std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
            // A node that must go goes, remembered or not.
            self.trouble("the watcher's journal", Some(format!("{error}{reason}")));
        } else {
            self.trouble("the watcher's journal", None);
        }
    }
}

/// Doing.
impl Engine<'_> {
    /// Takes a step: writes down what must not be done twice, does it, writes down how it ended.
    fn take(&mut self, step: &Step, wish: &Wish) {
        if !step.action.is_look() && !self.told.failures.contains_key(step.action.name()) {
            self.tell(&Event::Action { step: step.clone() });
        }
        let before = self.state.progress.clone();
        let intended = self.state.progress.intend(step, self.now());
        if intended {
            self.store();
        }
        self.ports.notify.alive();
        let outcome = self.carry_out(step, wish);
        let now = self.now();
        match &outcome {
            Outcome::Done(found) => self.done(step, found, now),
            Outcome::NotNow(reason) | Outcome::Never(reason) => {
                let never = matches!(outcome, Outcome::Never(_)) && step.action != Action::Prove;
                if intended {
                    self.state.progress.relent(step);
                }
                self.failed(step, reason, never, now);
            }
        }
        if !(intended && matches!(outcome, Outcome::Done(Found::Nothing))) {
            self.state.progress.apply(step, &outcome, now);
        }
        self.settle_markers(step, &outcome);
        if self.state.progress != before {
            self.store();
        }
    }

    fn carry_out(&self, step: &Step, wish: &Wish) -> Outcome {
        if let Action::Heartbeat { arrival } | Action::Complete { arrival, .. } = step.action {
            let progress = &self.state.progress;
            let hook = if arrival {
                &progress.arrival
            } else {
                &progress.departure
            };
            let Some(Hook::Open(open)) = hook else {
                return Outcome::Done(Found::Nothing);
            };
            return effects::speak(step, open, self.ports.lifecycle);
        }
        let asked_before = match step.action {
            Action::Stay { consul: true } => &Action::LeaveConsul,
            Action::Stay { consul: false } => &Action::LeaveNomad,
            _ => &Action::Prove,
        };
        let context = Context {
            spec: self.spec,
            wish,
            last_reason: self.retries.reason(asked_before),
        };
        effects::carry_out(step, &self.ports, &context)
    }

    fn done(&mut self, step: &Step, found: &Found, now: Timestamp) {
        self.told.failures.remove(step.action.name());
        match found {
            // Looked at, and not the end yet: it is looked at again.
            Found::Drain { left, .. } => {
                self.retries.not_now(&step.action, "it goes on", now);
                if self.told.draining != Some(Left(*left)) {
                    self.told.draining = Some(Left(*left));
                    self.tell(&Event::Draining { left: *left });
                }
            }
            Found::Running | Found::NotRunning if step.action == Action::LookAtUnit => {
                self.retries.not_now(&step.action, "it goes on", now);
            }
            _ => self.retries.done(&step.action),
        }
        if matches!(step.action, Action::Drain { .. }) {
            self.told.draining = None;
        }
    }

    fn failed(&mut self, step: &Step, reason: &str, never: bool, now: Timestamp) {
        let again = if never {
            self.retries.never(&step.action, reason, now);
            None
        } else {
            Some(self.retries.not_now(&step.action, reason, now))
        };
        let what = step.action.name();
        // The same failure again and again is one line, not one each time, though it counts its tries.
        let gist: String = reason.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        if self.told.failures.insert(what, gist.clone()) != Some(gist) || never {
            self.tell(&Event::Failed {
                what,
                reason: reason.to_owned(),
                again,
            });
        }
    }

    /// What is kept in files of its own.
    fn settle_markers(&mut self, step: &Step, outcome: &Outcome) {
        if matches!(outcome, Outcome::NotNow(_)) {
            return;
        }
        let restore = self
            .state
            .notices
            .request
            .as_ref()
            .is_some_and(|request| request.posture == Posture::Serving);
        let written = match step.action {
            Action::Arrived => {
                let removed = self.journal.set_arriving(false);
                self.arrived = removed.is_err();
                removed
            }
            Action::BringBack | Action::Forget | Action::CancelDrain { eligible: true } if restore => {
                let request = self.state.notices.request.take();
                self.fulfilled = request.map(|request| request.since);
                self.journal.withdraw()
            }
            _ => Ok(()),
        };
        if let Err(error) = written {
            self.tell(&Event::Warning {
                text: error.to_string(),
            });
        }
        if matches!(step.action, Action::Forget | Action::Arrived) {
            self.retries.clear();
            self.told.failures.clear();
        }
        if step.action == Action::Forget {
            self.state.progress = super::progress::Progress::default();
        }
    }
}
