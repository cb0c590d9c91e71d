//! Owns the life of an instance: pending, running, stopping, stopped, shutting-down, terminated.
//! Touches machines; each instance does one thing at a time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::sync::{Mutex as Turn, Semaphore};

use super::{Executor, Refusal, at_least, notices};
use crate::api::wire::{Launch, LaunchVolume};
use crate::machines::{Disk, Kind, MachineSpec, MachineState, Machines, Metadata};

/// How long a machine may take to shut down before it is ended by force.
///
/// EC2 waits some minutes. A machine under emulation takes 10 to 40 s, a container 1 to 20 s.
pub(super) fn patience(kind: Kind) -> Duration {
    match kind {
        Kind::VirtualMachine => Duration::from_mins(2),
        Kind::Container => Duration::from_mins(3),
    }
}

/// Commands that an SSM agent runs at once (DefaultCommandWorkersLimit in amazon-ssm-agent).
const COMMAND_WORKERS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) phase: Phase,
    since: Instant,
    reason: Option<(&'static str, String)>,
    pub(super) kind: Kind,
    address: Ipv4Addr,
    root_device: String,
    pub(super) disks: Vec<Disk>,
    pub(super) metadata: Metadata,
    terminate_on_shutdown: bool,
    pub(super) online: bool,
    /// One act at a time: start, stop, reboot, snapshot with reboot, terminate.
    pub(super) turn: Arc<Turn<()>>,
    pub(super) workers: Arc<Semaphore>,
}

impl Instance {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
        if phase != Phase::Running {
            self.online = false;
        }
    }

    pub(super) fn observed(&self) -> Value {
        json!({
            "state": self.phase.name(),
            "online": self.online,
            "reason": self.reason.as_ref().map(|(code, message)| json!({"code": code, "message": message})),
            "kind": match self.kind { Kind::VirtualMachine => "vm", Kind::Container => "container" },
        })
    }

    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        (self.phase != Phase::Terminated).then_some(self.address)
    }

    fn spec(&self, id: &str) -> anyhow::Result<MachineSpec> {
        let (root, volumes): (Vec<_>, Vec<_>) = self
            .disks
            .iter()
            .cloned()
            .partition(|disk| disk.device == self.root_device);
        let root = root
            .into_iter()
            .next()
            .with_context(|| format!("{id} has no volume at {}", self.root_device))?;
        Ok(MachineSpec {
            id: id.to_owned(),
            kind: self.kind,
            address: self.address,
            root,
            volumes,
            metadata: self.metadata.clone(),
        })
    }
}

pub(super) fn unknown(id: &str) -> Refusal {
    Refusal::new(
        "InvalidInstanceID.NotFound",
        format!("The instance ID '{id}' does not exist"),
    )
}

impl<M: Machines> Executor<M> {
    pub(super) fn launch(self: &Arc<Self>, launch: Launch) -> Result<Value, Refusal> {
        let user_data = launch.user_data.map(|text| BASE64.decode(text)).transpose();
        let user_data =
            user_data.map_err(|error| Refusal::new("InvalidUserData.Malformed", error.to_string()))?;
        let id = launch.id.clone();
        let kind = self.choice.kind(&launch.tags);
        let disk = |it: &LaunchVolume| Disk {
            volume: it.volume.clone(),
            device: it.device.clone(),
            path: self.store.path(&it.volume),
        };
        let instance = Instance {
            phase: Phase::Pending,
            since: Instant::now(),
            reason: None,
            kind,
            address: launch.address,
            root_device: launch.root_device,
            disks: launch.volumes.iter().map(disk).collect(),
            metadata: Metadata {
                image: launch.image,
                account: launch.account,
                region: launch.region,
                zone: launch.zone,
                instance_type: launch.instance_type,
                architecture: launch.architecture,
                user_data,
                tags: launch.tags,
                instance_tags: launch.instance_tags,
                token_required: launch.token_required,
                role: launch.role,
                notices: BTreeMap::new(),
            },
            terminate_on_shutdown: launch.terminate_on_shutdown,
            online: false,
            turn: Arc::default(),
            workers: Arc::new(Semaphore::new(COMMAND_WORKERS)),
        };
        self.state().instances.insert(id.clone(), instance);
        let executor = Arc::clone(self);
        tokio::spawn(async move { executor.bring_up(&id, launch.volumes).await });
        Ok(json!({"kind": match kind { Kind::VirtualMachine => "vm", Kind::Container => "container" }}))
    }

    /// Fills fresh volumes, starts the machine, and makes the instance `running`.
    async fn bring_up(self: Arc<Self>, id: &str, fresh: Vec<LaunchVolume>) {
        let Some(turn) = self.turn(id) else { return };
        let _turn = turn.lock().await;
        if let Err(error) = self.try_bring_up(id, fresh).await {
            let message = format!("Server.InternalError: {error:#}");
            eprint_line(&format!("instance {id} did not start: {error:#}"));
            let _ = self.machines.forget(id).await;
            self.change(id, |it| {
                it.reason = Some(("Server.InternalError", message));
                it.enter(Phase::Terminated);
            });
        }
    }

    async fn try_bring_up(&self, id: &str, fresh: Vec<LaunchVolume>) -> anyhow::Result<()> {
        let volumes: Vec<String> = self.read(id, |it| it.disks.iter().map(|d| d.volume.clone()).collect())?;
        self.blocking(move |store| {
            for volume in &fresh {
                match &volume.snapshot {
                    Some(snapshot) => store.copy(snapshot, &volume.volume, volume.gib)?,
                    None => store.create(&volume.volume, volume.gib)?,
                }
            }
            volumes.iter().try_for_each(|volume| store.own(volume))
        })
        .await?;
        let (phase, since) = self.read(id, |it| (it.phase, it.since))?;
        // It was told to stop or end while its disks were copied; that act has the next turn.
        if phase != Phase::Pending {
            return Ok(());
        }
        let spec = self.read(id, |it| it.spec(id))??;
        {
            let gate = self.gate.read().await;
            ensure!(*gate, "the sandbox is ending");
            self.machines.start(spec).await?;
        }
        // What was told while the machine was on its way.
        self.tell_notices(id).await?;
        at_least(since, self.timeline.pending).await;
        self.change(id, |it| {
            if it.phase == Phase::Pending {
                it.enter(Phase::Running);
            }
        });
        Ok(())
    }

    pub(super) fn start_again(self: &Arc<Self>, id: &str) -> Result<Value, Refusal> {
        {
            let mut state = self.state();
            let instance = state.instances.get_mut(id).ok_or_else(|| unknown(id))?;
            match instance.phase {
                Phase::Stopped => {}
                Phase::Pending | Phase::Running => return Ok(Value::Null),
                other => return Err(wrong_state(id, other, "started")),
            }
            instance.reason = None;
            instance.metadata.notices = notices::after_a_stop(&instance.metadata.notices);
            instance.enter(Phase::Pending);
        }
        let (executor, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            // What the host held for its last run is no use to the next.
            let _ = executor.machines.forget(&id).await;
            executor.bring_up(&id, Vec::new()).await;
        });
        Ok(Value::Null)
    }

    pub(super) fn stop(self: &Arc<Self>, id: &str, force: bool) -> Result<Value, Refusal> {
        let patience = {
            let mut state = self.state();
            let instance = state.instances.get_mut(id).ok_or_else(|| unknown(id))?;
            match instance.phase {
                Phase::Pending | Phase::Running => {}
                Phase::Stopping | Phase::Stopped => return Ok(Value::Null),
                other => return Err(wrong_state(id, other, "stopped")),
            }
            instance.reason = Some(user_shutdown());
            instance.enter(Phase::Stopping);
            if force {
                Duration::ZERO
            } else {
                patience(instance.kind)
            }
        };
        let (executor, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move { executor.bring_down(&id, patience, Phase::Stopped).await });
        Ok(Value::Null)
    }

    pub(super) fn terminate(self: &Arc<Self>, id: &str, now: bool) -> Result<Value, Refusal> {
        let patience = {
            let mut state = self.state();
            let instance = state.instances.get_mut(id).ok_or_else(|| unknown(id))?;
            if matches!(instance.phase, Phase::ShuttingDown | Phase::Terminated) {
                return Ok(Value::Null);
            }
            instance.reason = Some(user_shutdown());
            instance.enter(Phase::ShuttingDown);
            if now {
                Duration::ZERO
            } else {
                patience(instance.kind)
            }
        };
        let (executor, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move { executor.bring_down(&id, patience, Phase::Terminated).await });
        Ok(Value::Null)
    }

    async fn bring_down(self: Arc<Self>, id: &str, patience: Duration, end: Phase) {
        let Some(turn) = self.turn(id) else { return };
        let _turn = turn.lock().await;
        let Ok((phase, since)) = self.read(id, |it| (it.phase, it.since)) else {
            return;
        };
        // An earlier act of the same kind, or a termination that overtook a stop, did it already.
        if phase == Phase::Terminated || (end == Phase::Stopped && phase != Phase::Stopping) {
            return;
        }
        let runs = matches!(
            self.machines.state(id).await,
            Some(MachineState::Starting | MachineState::Online)
        );
        if runs && let Err(error) = self.machines.stop(id, patience).await {
            eprint_line(&format!("instance {id} did not stop in order: {error:#}"));
        }
        let minimum = if end == Phase::Stopped {
            self.timeline.stopping
        } else {
            self.timeline.shutting_down
        };
        if end == Phase::Terminated
            && let Err(error) = self.machines.forget(id).await
        {
            eprint_line(&format!("instance {id} left something on the host: {error:#}"));
        }
        if end == Phase::Terminated {
            self.abandon_commands(id);
        }
        at_least(since, minimum).await;
        self.change(id, |it| {
            if end == Phase::Terminated || it.phase == Phase::Stopping {
                it.enter(end);
            }
        });
    }

    pub(super) fn reboot(self: &Arc<Self>, id: &str) -> Result<Value, Refusal> {
        let phase = self.state().instances.get(id).ok_or_else(|| unknown(id))?.phase;
        if phase != Phase::Running {
            return Err(wrong_state(id, phase, "rebooted"));
        }
        let (executor, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            let Some(turn) = executor.turn(&id) else { return };
            let _turn = turn.lock().await;
            let gate = executor.gate.read().await;
            if !*gate {
                return;
            }
            if let Err(error) = executor.machines.reboot(&id).await {
                eprint_line(&format!("instance {id} did not reboot: {error:#}"));
            }
        });
        Ok(Value::Null)
    }

    pub(super) async fn set_tags(&self, id: &str, tags: BTreeMap<String, String>) -> Result<Value, Refusal> {
        let known = self.change(id, |it| it.metadata.tags = tags.clone());
        if known {
            self.machines.set_tags(id, tags).await;
        }
        Ok(Value::Null)
    }

    pub(super) fn set_role(&self, id: &str, role: Option<String>) {
        self.change(id, |it| it.metadata.role = role);
    }

    /// One round of the watch: who answers, and who powered off from inside.
    pub(super) async fn look_at_machines(self: &Arc<Self>) {
        let running: Vec<String> = {
            let state = self.state();
            let running = state
                .instances
                .iter()
                .filter(|(_, it)| it.phase == Phase::Running);
            running.map(|(id, _)| id.clone()).collect()
        };
        for id in running {
            // A reboot or a snapshot with reboot is at work: what the machine shows now means nothing.
            let Some(turn) = self.turn(&id) else { continue };
            let Ok(_turn) = turn.try_lock() else { continue };
            let seen = self.machines.state(&id).await;
            let online_after = self.timeline.online;
            let mut ended = None;
            self.change(&id, |it| match seen {
                _ if it.phase != Phase::Running => {}
                Some(MachineState::Online) => {
                    // An SSM agent without a role has nobody to talk to.
                    it.online = it.metadata.role.is_some() && it.since.elapsed() >= online_after;
                }
                Some(MachineState::Starting) => it.online = false,
                Some(MachineState::Off) | None => {
                    const CODE: &str = "Client.InstanceInitiatedShutdown";
                    it.reason = Some((CODE, format!("{CODE}: Instance initiated shutdown")));
                    let end = if it.terminate_on_shutdown {
                        Phase::Terminated
                    } else {
                        Phase::Stopped
                    };
                    it.enter(if it.terminate_on_shutdown {
                        Phase::ShuttingDown
                    } else {
                        Phase::Stopping
                    });
                    ended = Some(end);
                }
            });
            if let Some(end) = ended {
                let executor = Arc::clone(self);
                tokio::spawn(async move { executor.bring_down(&id, Duration::ZERO, end).await });
            }
        }
    }

    pub(super) fn turn(&self, id: &str) -> Option<Arc<Turn<()>>> {
        self.state().instances.get(id).map(|it| Arc::clone(&it.turn))
    }

    /// Reads an instance under the lock.
    pub(super) fn read<T>(&self, id: &str, look: impl FnOnce(&Instance) -> T) -> Result<T, Refusal> {
        self.state()
            .instances
            .get(id)
            .map(look)
            .ok_or_else(|| unknown(id))
    }

    /// Changes an instance under the lock; false if there is none.
    pub(super) fn change(&self, id: &str, act: impl FnOnce(&mut Instance)) -> bool {
        self.state().instances.get_mut(id).map(act).is_some()
    }
}

fn wrong_state(id: &str, phase: Phase, act: &str) -> Refusal {
    Refusal::new(
        "IncorrectInstanceState",
        format!(
            "The instance '{id}' is not in a state from which it can be {act}: it is {}",
            phase.name()
        ),
    )
}

/// What EC2 says of a stop or an end that a user asked for.
fn user_shutdown() -> (&'static str, String) {
    const CODE: &str = "Client.UserInitiatedShutdown";
    (CODE, format!("{CODE}: User initiated shutdown"))
}

/// A line for the sandbox's own log, which is its standard error.
#[expect(
    clippy::print_stderr,
    reason = "the sandbox's log; there is no caller left to return an error to"
)]
pub(super) fn eprint_line(text: &str) {
    eprintln!("{text}");
}
