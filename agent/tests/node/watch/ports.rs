//! Owns the world's side of each port: what it answers, and what an effect does to it.
//! Touches the world in memory.

use std::time::Duration;

use cos_agent::node::drain::{ApiError, Consul, DrainView, NodeView, Nomad, Peer, Raft, Services};
use cos_agent::node::reconcile::Reconciled;
use cos_agent::node::watch::{
    ActionResult, CallError, Clock, Event, Gate, GroupInstance, LifecycleActions, LifecycleHook, Machine,
    NoticeSource, Shutdown, Stop, Tell, Timestamp, Transition, Upkeep, Verdict,
};

use super::world::{Api, Drain, Inner, START, World};

pub(super) struct Hands {
    pub(super) world: World,
    pub(super) end: u64,
    /// How often in a row nobody waited.
    pub(super) row: u32,
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(START + self.world.inner.borrow().time)
    }

    fn ticks(&self) -> Duration {
        Duration::from_millis(self.world.inner.borrow().time)
    }

    fn wait(&mut self, pause: Duration) -> Option<Stop> {
        self.row = if pause.is_zero() { self.row + 1 } else { 0 };
        assert!(self.row < 40, "the loop turns without end");
        let mut inner = self.world.inner.borrow_mut();
        let pause = u64::try_from(pause.as_millis()).unwrap();
        let until = inner.time.saturating_add(pause).min(self.end);
        inner.advance(until);
        let over = inner.time >= self.end;
        (std::mem::take(&mut inner.stop) || over).then_some(Stop)
    }
}

impl NoticeSource for World {
    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let mut inner = self.inner.borrow_mut();
        *inner.asked.entry(path.to_owned()).or_default() += 1;
        if inner.metadata_fails {
            // A service that does not answer costs time.
            inner.time += 2000;
            return Err("the connection is refused".to_owned());
        }
        Ok(inner.documents.get(path).map(|text| text.clone().into_bytes()))
    }
}

impl Upkeep for World {
    fn begin(&mut self, dry_run: bool) -> Result<(), String> {
        let mut inner = self.inner.borrow_mut();
        let second = inner.second();
        inner.compared.push((second, dry_run));
        Ok(())
    }

    fn ended(&mut self) -> Option<Result<Reconciled, String>> {
        let inner = self.inner.borrow();
        let (began, _) = *inner.compared.last().unwrap();
        let (found, takes) = inner.drift.clone();
        (inner.second() >= began + takes).then_some(found)
    }
}

impl Tell for World {
    fn tell(&mut self, now: Timestamp, event: &Event) {
        let mut inner = self.inner.borrow_mut();
        let second = inner.second();
        assert_eq!(now, Timestamp::from_millis(START + inner.time));
        assert!(serde_json::to_string(event).unwrap().starts_with("{\"event\":"));
        inner.said.push(format!("{second:>4} {event}"));
    }
}

impl World {
    fn nomad<T>(&self, name: String, right: bool, act: impl FnOnce(&mut Inner) -> T) -> Result<T, ApiError> {
        let (runs, api) = self.read(|inner| (inner.nomad_runs, inner.api));
        let failed = || Err(ApiError::Failed("500".to_owned()));
        match api {
            _ if !runs => Err(ApiError::Absent("nobody listens".to_owned())),
            Api::Fails => failed(),
            Api::Denies => Err(ApiError::Denied("403".to_owned())),
            Api::Own if !right => Err(ApiError::Denied("403".to_owned())),
            Api::Own | Api::Well => self.effect(name, |inner| Ok(act(inner)), failed),
        }
    }
}

impl Nomad for World {
    fn node(&self) -> Result<NodeView, ApiError> {
        let inner = self.inner.borrow();
        match inner.api {
            _ if !inner.nomad_runs => return Err(ApiError::Absent("nobody listens".to_owned())),
            Api::Fails => return Err(ApiError::Failed("500".to_owned())),
            Api::Denies => return Err(ApiError::Denied("403".to_owned())),
            Api::Own | Api::Well => {}
        }
        let drain = match &inner.drain {
            None => DrainView::None,
            Some(Drain { complete: None, .. }) => DrainView::Running,
            Some(_) => DrainView::Complete,
        };
        Ok(NodeView {
            eligible: inner.eligible,
            drain,
        })
    }

    fn allocations(&self, ignore_system_jobs: bool) -> Result<Option<u32>, ApiError> {
        let inner = self.inner.borrow();
        if inner.api == Api::Own {
            return Ok(None);
        }
        let left = inner
            .jobs
            .iter()
            .filter(|job| job.ended.is_none() && !(ignore_system_jobs && job.system));
        Ok(Some(u32::try_from(left.count()).unwrap()))
    }

    fn take_out(&self) -> Result<(), ApiError> {
        self.nomad("take out".to_owned(), false, |inner| inner.eligible = false)
    }

    fn drain(&self, deadline: Duration, ignore_system: bool, _reason: &str) -> Result<(), ApiError> {
        let seconds = deadline.as_secs();
        let left = u64::try_from(deadline.as_millis()).unwrap();
        self.nomad(format!("drain {seconds}"), true, |inner| {
            let since = match &inner.drain {
                Some(drain) if drain.complete.is_none() => drain.since,
                _ => inner.time,
            };
            inner.eligible = false;
            inner.drain = Some(Drain {
                since,
                deadline: inner.time + left,
                ignore_system,
                complete: None,
            });
        })
    }

    fn end_drain(&self, eligible: bool) -> Result<(), ApiError> {
        let name = if eligible { "bring back" } else { "end drain" };
        self.nomad(name.to_owned(), true, |inner| {
            inner.drain = None;
            inner.eligible |= eligible;
        })
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        self.read(|inner| {
            inner
                .raft
                .clone()
                .ok_or(ApiError::Failed("no servers".to_owned()))
        })
    }

    fn leaves_on_signal(&self) -> Result<Option<bool>, ApiError> {
        Ok(Some(true))
    }
}

/// Consul's side of the world: both products have a method `raft`.
pub(super) struct ConsulSide<'a>(pub(super) &'a World);

impl Consul for ConsulSide<'_> {
    fn leave(&self) -> Result<(), ApiError> {
        if !self.0.read(|inner| inner.consul_runs) {
            return Err(ApiError::Absent("nobody listens".to_owned()));
        }
        self.0.effect(
            "consul leaves".to_owned(),
            |inner| {
                inner.check_quorum();
                inner.consul_runs = false;
                Ok(())
            },
            || Err(ApiError::Failed("500".to_owned())),
        )
    }

    fn maintenance(&self, on: bool, _reason: &str) -> Result<(), ApiError> {
        self.0.effect(
            format!("maintenance {on}"),
            |inner| {
                inner.consul_maintenance = on;
                Ok(())
            },
            || Err(ApiError::Failed("500".to_owned())),
        )
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        Nomad::raft(self.0)
    }
}

impl Inner {
    /// A server that leaves must be allowed to by the model, not by what the watcher thinks.
    pub(super) fn check_quorum(&self) {
        if let Some(raft) = &self.raft {
            let rest: Vec<&Peer> = raft
                .peers
                .iter()
                .filter(|peer| peer.voter && Some(&peer.id) != raft.own.as_ref())
                .collect();
            let healthy = rest.iter().filter(|peer| peer.healthy).count();
            assert!(
                healthy > rest.len() / 2,
                "a server left and took the quorum along"
            );
        }
    }
}

impl Services for World {
    fn runs(&self, service: &str) -> Result<bool, String> {
        Ok(self.read(|inner| {
            if service == "nomad" {
                inner.nomad_runs
            } else {
                inner.consul_runs
            }
        }))
    }

    fn stop(&self, service: &str) -> Result<(), String> {
        let service = service.to_owned();
        self.effect(
            format!("stop {service}"),
            |inner| {
                // The stop job of a shutdown waits for this service, so that this would never come back.
                assert!(inner.shutdown.is_none(), "a unit is stopped during a shutdown");
                if service == "nomad" {
                    inner.set_nomad(false);
                } else {
                    inner.consul_runs = false;
                }
                Ok(())
            },
            || Err("it failed".to_owned()),
        )
    }

    fn start(&self, service: &str) -> Result<(), String> {
        let service = service.to_owned();
        self.effect(
            format!("start {service}"),
            |inner| {
                if service == "nomad" {
                    inner.nomad_runs = true;
                } else {
                    inner.consul_runs = true;
                }
                Ok(())
            },
            || Err("it failed".to_owned()),
        )
    }

    fn terminate(&self, service: &str) -> Result<(), String> {
        assert_eq!(service, "nomad");
        self.effect(
            "signal nomad".to_owned(),
            |inner| {
                assert!(
                    inner.signalled.is_none(),
                    "a second signal ends Nomad at once, whatever it is at"
                );
                inner.check_quorum();
                inner.eligible = false;
                inner.signalled = Some(inner.time);
                Ok(())
            },
            || Err("it failed".to_owned()),
        )
    }
}

impl LifecycleActions for World {
    fn instance(&self) -> Result<Option<GroupInstance>, CallError> {
        let mut inner = self.inner.borrow_mut();
        *inner
            .asked
            .entry("DescribeAutoScalingInstances".to_owned())
            .or_default() += 1;
        if inner.metadata_fails {
            return Err(CallError::Passing("unreachable".to_owned()));
        }
        Ok(inner.in_group.then(|| GroupInstance {
            group: "g".to_owned(),
            state: inner.state.clone(),
        }))
    }

    fn hooks(&self, group: &str) -> Result<Vec<LifecycleHook>, CallError> {
        assert_eq!(group, "g");
        Ok(self.read(|inner| inner.hooks.clone()))
    }

    fn complete(&self, _group: &str, hook: &str, result: ActionResult) -> Result<(), CallError> {
        let hook = hook.to_owned();
        self.effect(
            format!("complete {hook} {result:?}"),
            |inner| match inner.waits.take_if(|wait| wait.name == hook) {
                Some(wait) => {
                    inner.completed.push((hook.clone(), result));
                    let state = if wait.transition == Transition::Launching {
                        "InService"
                    } else {
                        "Terminating:Proceed"
                    };
                    state.clone_into(&mut inner.state);
                    Ok(())
                }
                None => Err(CallError::NoAction("No active Lifecycle Action found".to_owned())),
            },
            || Err(CallError::Passing("throttled".to_owned())),
        )
    }

    fn heartbeat(&self, _group: &str, hook: &str) -> Result<(), CallError> {
        let hook = hook.to_owned();
        self.effect(
            format!("heartbeat {hook}"),
            |inner| {
                let time = inner.time;
                match inner.waits.as_mut().filter(|wait| wait.name == hook) {
                    Some(wait) => {
                        wait.heard = time;
                        Ok(())
                    }
                    None => Err(CallError::NoAction("No active Lifecycle Action found".to_owned())),
                }
            },
            || Err(CallError::Passing("throttled".to_owned())),
        )
    }
}

impl Gate for World {
    fn prove(&self) -> Verdict {
        let inner = self.inner.borrow();
        if inner.hopeless {
            return Verdict::Hopeless("the disk is not there".to_owned());
        }
        match inner.ready_at {
            Some(at) if inner.time >= at * 1000 && inner.nomad_runs => Verdict::Ready,
            _ => Verdict::NotYet("consul-leader: none".to_owned()),
        }
    }
}

impl Machine for World {
    fn shutdown(&self) -> Option<Shutdown> {
        self.read(|inner| inner.shutdown)
    }
}
