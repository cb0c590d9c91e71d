//! Owns a world in memory for the watcher: time that only passes when it waits, a metadata service, a Nomad that
//! drains, a Consul, an Auto Scaling group with hooks that run out. Touches one temporary folder, for the journal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use cos_agent::host::Files;
use cos_agent::node::drain::{Peer, Raft};
use cos_agent::node::reconcile::Reconciled;
use cos_agent::node::watch::{
    ActionResult, Ended, Engine, Journal, LifecycleHook, Notify, Ports, Shutdown, Timestamp, Transition,
    Until, WatchSpec,
};

use super::ports::{ConsulSide, Hands};

/// 2026-01-01T00:00:00Z.
pub(crate) const START: u64 = 1_767_225_600_000;

pub(crate) const SPOT: &str = "meta-data/spot/instance-action";
pub(crate) const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
pub(crate) const SCHEDULED: &str = "meta-data/events/maintenance/scheduled";
pub(crate) const TARGET: &str = "meta-data/autoscaling/target-lifecycle-state";

/// How Nomad's and Consul's APIs answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Well,
    Denies,
    /// May drain and read, not make ineligible, not list: the node's own identity.
    Own,
    Fails,
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Seconds that it takes to move away.
    pub(crate) takes: u64,
    pub(crate) system: bool,
    pub(crate) ended: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(super) since: u64,
    pub(crate) deadline: u64,
    pub(super) ignore_system: bool,
    pub(super) complete: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct HookWait {
    pub(crate) name: String,
    pub(crate) transition: Transition,
    pub(super) heard: u64,
}

/// Something that happens at some second.
pub(crate) type Happening = (u64, Box<dyn Fn(&mut Inner)>);

pub(crate) struct Inner {
    /// Milliseconds since the beginning.
    pub(crate) time: u64,
    happenings: Vec<Happening>,
    pub(crate) documents: BTreeMap<&'static str, String>,
    pub(crate) metadata_fails: bool,
    pub(crate) asked: BTreeMap<String, u32>,
    pub(crate) api: Api,
    pub(crate) nomad_runs: bool,
    pub(crate) consul_runs: bool,
    pub(crate) consul_maintenance: bool,
    pub(crate) eligible: bool,
    pub(crate) drain: Option<Drain>,
    pub(crate) jobs: Vec<Job>,
    /// When Nomad was told to drain itself.
    pub(crate) signalled: Option<u64>,
    pub(crate) raft: Option<Raft>,
    pub(crate) in_group: bool,
    pub(crate) state: String,
    pub(crate) hooks: Vec<LifecycleHook>,
    pub(crate) waits: Option<HookWait>,
    pub(crate) completed: Vec<(String, ActionResult)>,
    pub(crate) expired: bool,
    pub(crate) ready_at: Option<u64>,
    pub(crate) hopeless: bool,
    pub(crate) shutdown: Option<Shutdown>,
    pub(super) stop: bool,
    /// Each effect, with the second in which it happened.
    pub(crate) log: Vec<String>,
    effects: u32,
    /// Kill the watcher at this effect, before or after it.
    pub(crate) kill: Option<(u32, bool)>,
    /// Let this effect fail this often.
    pub(crate) fail: Option<(u32, u32)>,
    pub(crate) said: Vec<String>,
    /// Seconds in which somebody began to compare the node with its configuration, and whether only to tell.
    pub(crate) compared: Vec<(u64, bool)>,
    /// What that finds, and how many seconds it takes.
    pub(crate) drift: (Result<Reconciled, String>, u64),
}

/// The watcher was killed.
struct Killed;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) inner: Rc<RefCell<Inner>>,
    pub(crate) files: Files,
    _folder: Rc<tempfile::TempDir>,
}

pub(crate) fn second(seconds: u64) -> String {
    Timestamp::from_millis(START + seconds * 1000).to_string()
}

pub(crate) fn hook(name: &str, transition: Transition, seconds: u64) -> LifecycleHook {
    LifecycleHook {
        name: name.to_owned(),
        transition,
        heartbeat_timeout: Duration::from_secs(seconds),
    }
}

impl Inner {
    pub(super) fn second(&self) -> u64 {
        self.time / 1000
    }

    pub(crate) fn wait_at(&mut self, state: &str, transition: Transition) {
        state.clone_into(&mut self.state);
        let name = self
            .hooks
            .iter()
            .find(|hook| hook.transition == transition)
            .unwrap()
            .name
            .clone();
        self.waits = Some(HookWait {
            name,
            transition,
            heard: self.time,
        });
    }

    /// Nomad is started, or is no more: with it goes what it was told.
    pub(crate) fn set_nomad(&mut self, runs: bool) {
        self.nomad_runs = runs;
        self.signalled = None;
    }

    pub(crate) fn drop_happenings(&mut self) {
        self.happenings.clear();
    }

    fn terminate_signal(&mut self) {
        self.stop = true;
    }

    /// What passes by itself.
    pub(super) fn pass(&mut self) {
        let time = self.time;
        if let Some(wait) = &self.waits {
            let timeout = self
                .hooks
                .iter()
                .find(|hook| hook.name == wait.name)
                .unwrap()
                .heartbeat_timeout;
            if time > wait.heard + u64::try_from(timeout.as_millis()).unwrap() {
                self.expired = true;
                self.waits = None;
            }
        }
        if let Some(since) = self.signalled.filter(|_| self.nomad_runs) {
            self.move_jobs(since, since + 300_000, false);
            if self.jobs.iter().all(|job| job.ended.is_some()) {
                self.nomad_runs = false;
                self.signalled = None;
            }
        }
        let Some(mut drain) = self.drain.clone() else {
            return;
        };
        if !self.nomad_runs {
            return;
        }
        self.move_jobs(drain.since, drain.deadline, drain.ignore_system);
        let moved = self
            .jobs
            .iter()
            .filter(|job| !job.system)
            .all(|job| job.ended.is_some());
        if drain.complete.is_none() && (moved || time >= drain.deadline) {
            drain.complete = Some(time);
        }
        if let Some(complete) = drain.complete.filter(|_| !drain.ignore_system) {
            for job in self
                .jobs
                .iter_mut()
                .filter(|job| job.system && job.ended.is_none())
            {
                if time >= complete + 3000 {
                    job.ended = Some(time);
                }
            }
        }
        self.drain = Some(drain);
    }

    fn move_jobs(&mut self, since: u64, deadline: u64, ignore_system: bool) {
        let time = self.time;
        for job in &mut self.jobs {
            if job.ended.is_some() || (job.system && (ignore_system || time < deadline)) {
                continue;
            }
            if time >= (since + job.takes * 1000).min(deadline + 5000) {
                job.ended = Some(time);
            }
        }
    }

    pub(super) fn advance(&mut self, until: u64) {
        while self.time < until && !self.stop {
            let next = self
                .happenings
                .iter()
                .map(|(at, _)| at * 1000)
                .filter(|at| *at > self.time)
                .min();
            let lively = self.drain.is_some() || self.signalled.is_some() || self.waits.is_some();
            let step = if lively {
                (self.time / 500 + 1) * 500
            } else {
                u64::MAX
            };
            self.time = until.min(next.unwrap_or(u64::MAX)).min(step.max(self.time + 1));
            let due: Vec<usize> = (0..self.happenings.len())
                .filter(|i| self.happenings[*i].0 * 1000 <= self.time)
                .collect();
            for index in due.into_iter().rev() {
                let (_, act) = self.happenings.remove(index);
                act(self);
            }
            self.pass();
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let files = Files::new(folder.path());
        files
            .write_atomic("/proc/sys/kernel/random/boot_id", b"boot-1\n", 0o444)
            .unwrap();
        let inner = Inner {
            time: 0,
            happenings: Vec::new(),
            documents: BTreeMap::new(),
            metadata_fails: false,
            asked: BTreeMap::new(),
            api: Api::Well,
            nomad_runs: true,
            consul_runs: true,
            consul_maintenance: false,
            eligible: true,
            drain: None,
            jobs: Vec::new(),
            signalled: None,
            raft: None,
            in_group: true,
            state: "InService".to_owned(),
            hooks: Vec::new(),
            waits: None,
            completed: Vec::new(),
            expired: false,
            ready_at: Some(0),
            hopeless: false,
            shutdown: None,
            stop: false,
            log: Vec::new(),
            effects: 0,
            kill: None,
            fail: None,
            said: Vec::new(),
            compared: Vec::new(),
            drift: (Ok(Reconciled::default()), 0),
        };
        Self {
            inner: Rc::new(RefCell::new(inner)),
            files,
            _folder: Rc::new(folder),
        }
    }

    pub(crate) fn change(&self, act: impl FnOnce(&mut Inner)) {
        act(&mut self.inner.borrow_mut());
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.borrow())
    }

    pub(crate) fn at(&self, second: u64, act: impl Fn(&mut Inner) + 'static) {
        self.change(|inner| inner.happenings.push((second, Box::new(act))));
    }

    pub(crate) fn journal(&self) -> Journal<'_> {
        Journal::new(&self.files)
    }

    /// Runs a watcher until this second; one that is killed is started again five seconds later.
    pub(crate) fn watch(&self, spec: &WatchSpec, seconds: u64) -> Ended {
        loop {
            let watched = catch_unwind(AssertUnwindSafe(|| self.watch_once(spec, seconds)));
            match watched {
                Ok(ended) => {
                    self.change(|inner| inner.stop = false);
                    return ended;
                }
                Err(payload) if payload.is::<Killed>() => self.change(|inner| {
                    inner.kill = None;
                    let time = inner.time;
                    inner.advance(time + 5000);
                }),
                Err(payload) => resume_unwind(payload),
            }
        }
    }

    fn watch_once(&self, spec: &WatchSpec, seconds: u64) -> Ended {
        let (mut source, mut clock, mut tell) = (
            self.clone(),
            Hands {
                world: self.clone(),
                end: seconds * 1000,
                row: 0,
            },
            self.clone(),
        );
        let (notify, mut upkeep) = (Notify::default(), self.clone());
        let ports = Ports {
            source: &mut source,
            nomad: self,
            consul: &ConsulSide(self),
            services: self,
            lifecycle: Some(self),
            upkeep: Some(&mut upkeep),
            gate: self,
            machine: self,
            clock: &mut clock,
            tell: &mut tell,
            notify: &notify,
        };
        Engine::new(spec, ports, self.journal())
            .unwrap()
            .run(Until::Stopped)
    }

    /// An effect on the world; the watcher may be killed on either side of it.
    pub(super) fn effect<T>(
        &self,
        name: String,
        act: impl FnOnce(&mut Inner) -> T,
        failed: impl FnOnce() -> T,
    ) -> T {
        let mut inner = self.inner.borrow_mut();
        let number = inner.effects;
        inner.effects += 1;
        if inner.kill == Some((number, false)) {
            drop(inner);
            resume_unwind(Box::new(Killed));
        }
        if let Some((at, times)) = inner.fail.filter(|(at, times)| number >= *at && *times > 0) {
            inner.fail = Some((at, times - 1));
            return failed();
        }
        let line = format!("{:>4} {name}", inner.second());
        inner.log.push(line);
        let result = act(&mut inner);
        inner.pass();
        if inner.kill == Some((number, true)) {
            drop(inner);
            resume_unwind(Box::new(Killed));
        }
        result
    }

    pub(crate) fn effects(&self) -> u32 {
        self.inner.borrow().effects
    }

    /// The effects, without their times.
    pub(crate) fn deeds(&self) -> Vec<String> {
        self.read(|inner| inner.log.iter().map(|line| line[5..].to_owned()).collect())
    }
}

/// The machine goes down: the watcher is told to stop first.
pub(crate) fn go_down(inner: &mut Inner, how: Shutdown) {
    inner.shutdown = Some(how);
    inner.terminate_signal();
}

/// The service is stopped, the machine stays.
pub(crate) fn stop_service(inner: &mut Inner) {
    inner.terminate_signal();
}

pub(crate) fn job(takes: u64) -> Job {
    Job {
        takes,
        system: false,
        ended: None,
    }
}

pub(crate) fn system_job() -> Job {
    Job {
        takes: 0,
        system: true,
        ended: None,
    }
}

pub(crate) fn servers(health: &[bool]) -> Raft {
    Raft {
        own: Some("0".to_owned()),
        leader: health.iter().filter(|up| **up).count() > health.len() / 2,
        peers: health
            .iter()
            .enumerate()
            .map(|(id, up)| Peer {
                id: id.to_string(),
                voter: true,
                healthy: *up,
            })
            .collect(),
    }
}
