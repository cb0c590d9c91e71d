//! Owns taking in what sources, markers and operators say, and keeping when each was first heard.
//! Touches the ports, asking only, and the journal.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::engine::Engine;
use super::event::Event;
use super::notice::{self, Target};
use super::source::Source;

/// How long Auto Scaling's API is left alone when it does not know the instance.
const NO_GROUP: Duration = Duration::from_hours(6);

/// Some part of an interval: nodes that were launched together must not ask together, so the machine's own boot
/// spreads them.
pub(super) fn spread(boot: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    boot.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 1024).unwrap_or(0);
    interval / 1024 * share
}

impl Engine<'_> {
    /// Asks every source that is due, and looks at the markers; remembers what is new.
    pub(super) fn hear(&mut self) {
        let before = (self.state.notices.clone(), self.state.seen.clone());
        while let Some(source) = self.schedule.take(self.ports.clock.ticks()) {
            let answer = match source.path() {
                Some(path) => self.ports.source.read(path),
                None => self.ask_group().map(|()| None),
            };
            let silent = answer.is_err() && source != Source::Group;
            let heard = answer.and_then(|document| self.take_in(source, document));
            self.trouble(&source.to_string(), heard.err());
            if silent {
                self.schedule.postpone(self.ports.clock.ticks());
                break;
            }
        }
        match self.journal.request() {
            Ok(request) => {
                let fulfilled = self.fulfilled;
                self.state.notices.request = request.filter(|request| Some(request.since) != fulfilled);
                self.trouble("the operator's request", None);
            }
            Err(problem) => self.trouble("the operator's request", Some(problem)),
        }
        self.state.notices.arriving = self.journal.is_arriving().unwrap_or(self.state.notices.arriving);
        self.name_causes();
        if before != (self.state.notices.clone(), self.state.seen.clone()) {
            self.store();
        }
    }

    fn take_in(&mut self, source: Source, document: Option<Vec<u8>>) -> Result<(), String> {
        let document = document.as_deref();
        let notices = &mut self.state.notices;
        match source {
            Source::Spot => notices.spot = document.map(notice::read_spot).transpose()?,
            Source::Rebalance => notices.rebalance = document.map(notice::read_rebalance).transpose()?,
            Source::Scheduled => {
                notices.scheduled = document
                    .map(notice::read_scheduled)
                    .transpose()?
                    .unwrap_or_default();
            }
            Source::Target => match document {
                Some(document) => {
                    let target = notice::read_target(document)?;
                    self.schedule.ask_group(None);
                    self.aim(target);
                }
                // Just launched, in no group, or migrated to another host: what was told before stays true.
                None => self.begin_asking_group(),
            },
            Source::Group => {}
        }
        Ok(())
    }

    /// Takes in a target, and with it a return into service, for which the node must prove itself anew.
    fn aim(&mut self, target: Target) {
        let before = self.state.notices.target.replace(target.clone());
        let away = before.is_some_and(|before| before != Target::InService && before != Target::Terminated);
        if away && target == Target::InService && !self.dry {
            self.arrived = false;
            if let Err(error) = self.journal.set_arriving(true) {
                self.tell(&Event::Warning {
                    text: error.to_string(),
                });
            }
        }
    }

    fn begin_asking_group(&mut self) {
        if self.ports.lifecycle.is_none() || self.schedule.asks_group() {
            return;
        }
        let first = spread(&self.state.boot, self.spec.intervals.group);
        self.schedule.ask_group(Some(self.ports.clock.ticks() + first));
    }

    fn ask_group(&mut self) -> Result<(), String> {
        let Some(lifecycle) = self.ports.lifecycle else {
            return Ok(());
        };
        let Some(instance) = lifecycle.instance().map_err(|error| error.to_string())? else {
            self.schedule.ask_group(Some(self.ports.clock.ticks() + NO_GROUP));
            return Ok(());
        };
        if let Some(target) = Target::of_lifecycle_state(&instance.state) {
            self.aim(target);
        }
        Ok(())
    }

    /// Keeps when each cause was first seen, and tells of those that come and go.
    fn name_causes(&mut self) {
        let now = self.now();
        let names: Vec<String> = self
            .state
            .notices
            .causes()
            .iter()
            .map(ToString::to_string)
            .collect();
        let gone: Vec<String> = self
            .state
            .seen
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for cause in gone {
            self.state.seen.remove(&cause);
            self.tell(&Event::Over { cause });
        }
        for cause in names {
            if !self.state.seen.contains_key(&cause) {
                self.state.seen.insert(cause.clone(), now);
                self.tell(&Event::Notice { cause });
            }
        }
    }
}
