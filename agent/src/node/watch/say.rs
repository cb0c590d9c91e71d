//! Owns when the watcher says something: each thing once, when it changes.
//! Touches whoever listens, and the status line of the service.

use std::collections::BTreeMap;

use super::cause::Wish;
use super::engine::Engine;
use super::event::Event;
use super::notice::Posture;
use super::progress::{Away, Hook, Membership, Out};
use super::time::Timestamp;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) wish: Option<(Posture, Option<Timestamp>, Vec<String>)>,
    pub(super) settled: bool,
    pub(super) status: String,
    /// How many allocations are left, if it can be told; none when a drain begins.
    pub(super) draining: Option<Left>,
    pub(super) failures: BTreeMap<&'static str, String>,
    /// What cannot be read, and why.
    pub(super) troubles: BTreeMap<String, String>,
}

/// Allocations that have not ended, if that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left(pub(super) Option<u32>);

impl Engine<'_> {
    pub(super) fn say_wish(&mut self, wish: &Wish) {
        let said = (wish.posture, wish.deadline, wish.reasons.clone());
        if self.told.wish.as_ref() == Some(&said) {
            return;
        }
        let news = self.told.wish.is_some() || wish.posture > Posture::Serving;
        self.told.wish = Some(said);
        self.told.settled = false;
        if news {
            self.tell(&Event::Wish {
                posture: wish.posture,
                deadline: wish.deadline,
                reasons: wish.reasons.clone(),
            });
        }
    }

    pub(super) fn say_settled(&mut self, wish: &Wish, settled: bool) {
        let progress = &self.state.progress;
        let status = match (&progress.drain, settled) {
            (Some(drain), false) => match drain.left {
                Some(left) => format!("draining, {left} allocations left"),
                None => "draining".to_owned(),
            },
            _ if wish.arriving.is_some() => "proving readiness".to_owned(),
            (_, false) => format!("on the way to {}", wish.posture),
            (_, true) => wish.posture.to_string(),
        };
        if self.told.status != status {
            self.ports.notify.status(&status);
            self.told.status = status;
        }
        if !settled || self.told.settled {
            return;
        }
        self.told.settled = true;
        let mut notes = Vec::new();
        match &progress.away {
            Some(Away::Deadline(Some(left))) => {
                notes.push(format!("{left} allocations had not ended at the deadline"));
            }
            Some(Away::Deadline(None)) => {
                notes.push("its jobs may not have ended at the deadline".to_owned());
            }
            Some(Away::NoNomad) => notes.push("Nomad does not run".to_owned()),
            Some(Away::BySignal) if self.spec.nomad_client => notes.push("Nomad drained itself".to_owned()),
            Some(Away::BySignal | Away::Complete) | None => {}
        }
        if let Out::Refused(reason) = &progress.out {
            notes.push(format!("it still takes jobs: {reason}"));
        }
        for (product, membership) in [("Nomad", &progress.nomad), ("Consul", &progress.consul)] {
            if let Membership::Stays(reason) = membership {
                notes.push(format!("it stays a member of {product}: {reason}"));
            }
        }
        if let Some(Hook::None(reason)) = progress.departure.as_ref().filter(|_| wish.hook) {
            notes.push(format!("no lifecycle hook was completed: {reason}"));
        }
        self.tell(&Event::Reached {
            posture: wish.posture,
            notes,
        });
    }

    /// Tells of trouble when it begins, and when it ends.
    pub(super) fn trouble(&mut self, source: &str, problem: Option<String>) {
        let before = match &problem {
            Some(problem) => self.told.troubles.insert(source.to_owned(), problem.clone()),
            None => self.told.troubles.remove(source),
        };
        if before.is_some() != problem.is_some() {
            self.tell(&Event::Source {
                source: source.to_owned(),
                problem,
            });
        }
    }
}
