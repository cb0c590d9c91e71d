//! Owns what instances, disks and commands do over time; the plug-in's acts come in here.
//! Touches machines through the port `Machines` and bytes through `DiskStore`.

mod commands;
mod disks;
mod instances;
mod notices;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::store::DiskStore;
use super::timeline::Timeline;
use super::wire::Act;
use crate::machines::{Kind, Machines};

use commands::Command;
pub use disks::Upload;
use disks::{Snapshot, Volume};
use instances::Instance;

/// How often machines are looked at.
const WATCH: Duration = Duration::from_millis(300);

/// Why an act was not done, with the error code that AWS uses.
#[derive(Debug, Clone, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// AWS's error code.
    pub code: String,
    /// One sentence with ids.
    pub message: String,
}

impl Refusal {
    /// A refusal with AWS's code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// The sandbox itself failed; the code is AWS's own for that.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalError", message)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::internal(format!("{error:#}"))
    }
}

/// Which machines instances are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MachineChoice {
    /// A virtual machine for a bake (launch tag `cos:bake-id`), a container for the rest.
    Auto,
    /// Virtual machines only.
    Vm,
    /// Containers only.
    Container,
}

impl MachineChoice {
    fn kind(self, tags: &BTreeMap<String, String>) -> Kind {
        match self {
            Self::Vm => Kind::VirtualMachine,
            Self::Auto if tags.contains_key("cos:bake-id") => Kind::VirtualMachine,
            Self::Container | Self::Auto => Kind::Container,
        }
    }
}

/// The instances, disks and commands of one sandbox.
#[derive(Debug)]
pub struct Executor<M> {
    machines: Arc<M>,
    store: DiskStore,
    timeline: Timeline,
    choice: MachineChoice,
    state: Mutex<State>,
    /// Whether machines may still be started; held for reading while one is.
    gate: RwLock<bool>,
}

#[derive(Debug, Default)]
struct State {
    instances: BTreeMap<String, Instance>,
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    commands: BTreeMap<(String, String), Command>,
}

impl<M: Machines> Executor<M> {
    /// Starts with nothing but the disks of the base images, and begins to watch machines.
    pub fn start(machines: Arc<M>, store: DiskStore, timeline: Timeline, choice: MachineChoice) -> Arc<Self> {
        let executor = Arc::new(Self {
            machines,
            store,
            timeline,
            choice,
            state: Mutex::default(),
            gate: RwLock::new(true),
        });
        let watched = Arc::downgrade(&executor);
        tokio::spawn(async move {
            while let Some(executor) = watched.upgrade() {
                executor.look_at_machines().await;
                drop(executor);
                tokio::time::sleep(WATCH).await;
            }
        });
        executor
    }

    /// The disks.
    pub fn store(&self) -> &DiskStore {
        &self.store
    }

    /// The machines.
    pub fn machines(&self) -> &Arc<M> {
        &self.machines
    }

    /// Waits for machines that are being started, and starts none from now on.
    pub async fn close(&self) {
        *self.gate.write().await = false;
    }

    /// Private address of an instance that has a machine.
    pub fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.read(id, Instance::address).ok().flatten()
    }

    /// Does one act of the plug-in.
    pub async fn act(self: &Arc<Self>, act: Act) -> Result<Value, Refusal> {
        match act {
            Act::Observe => Ok(self.observe()),
            Act::Launch(launch) => self.launch(*launch),
            Act::Start { id } => self.start_again(&id),
            Act::Stop { id, force } => self.stop(&id, force),
            Act::Reboot { id } => self.reboot(&id),
            Act::Terminate { id, now } => self.terminate(&id, now),
            Act::Tags { id, tags } => self.set_tags(&id, tags).await,
            Act::Role { id, role } => {
                self.set_role(&id, role);
                Ok(Value::Null)
            }
            Act::Notice { id, path, document } => {
                self.set_notice(&id, &path, document).await?;
                Ok(Value::Null)
            }
            Act::Console { id } => {
                let bytes = self.machines.console(&id).await?;
                Ok(json!(BASE64.encode(bytes)))
            }
            Act::VolumeCreate { id, snapshot, gib } => {
                self.create_volume(&id, snapshot, gib);
                Ok(Value::Null)
            }
            Act::VolumeGrow { id, gib } => self.blocking(move |store| store.grow(&id, gib)).await,
            Act::VolumeDelete { id } => self.delete_volume(&id).await,
            Act::VolumeAttach { id, instance, device } => self.attach(&id, &instance, &device).await,
            Act::VolumeDetach { id, instance } => self.detach(&id, &instance).await,
            Act::SnapshotCreate { snapshots, reboot } => self.create_snapshots(snapshots, reboot).await,
            Act::SnapshotCopy { id, source } => self.copy_snapshot(&id, &source).await,
            Act::SnapshotDelete { id } => self.delete_snapshot(&id).await,
            Act::UploadStart { id, gib } => self.start_upload(&id, gib).await,
            Act::UploadComplete {
                id,
                changed,
                checksum,
            } => self.complete_upload(&id, changed, checksum.as_deref()),
            Act::CommandSend {
                command,
                instance,
                script,
                delivery,
                execution,
            } => self.send_command(command, instance, script, delivery, execution),
            Act::CommandGet { command, instance } => self.command_report(&command, &instance),
            Act::CommandCancel { command, instance } => {
                self.cancel_command(&command, &instance);
                Ok(Value::Null)
            }
        }
    }

    /// The states that the plug-in writes into moto's models.
    pub fn observe(&self) -> Value {
        let state = self.state();
        let instances: BTreeMap<_, _> = state
            .instances
            .iter()
            .map(|(id, it)| (id, it.observed()))
            .collect();
        let volumes: BTreeMap<_, _> = state
            .volumes
            .iter()
            .map(|(id, it)| (id, it.observed(self.timeline)))
            .collect();
        let snapshots: BTreeMap<_, _> = state
            .snapshots
            .iter()
            .map(|(id, it)| (id, it.observed()))
            .collect();
        json!({"instances": instances, "volumes": volumes, "snapshots": snapshots})
    }

    /// Commands that have not ended yet, as `command@instance`.
    pub fn open_commands(&self) -> Vec<String> {
        let state = self.state();
        let open = state.commands.iter().filter(|(_, command)| command.is_open());
        open.map(|((command, instance), _)| format!("{command}@{instance}"))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left whole values behind: each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work on files off the asynchronous threads.
    async fn blocking<T, F>(&self, work: F) -> Result<Value, Refusal>
    where
        T: Serialize + Send + 'static,
        F: FnOnce(&DiskStore) -> anyhow::Result<T> + Send + 'static,
    {
        let store = self.store.clone();
        let joined = tokio::task::spawn_blocking(move || work(&store)).await;
        let value = joined.map_err(|error| Refusal::internal(error.to_string()))??;
        serde_json::to_value(value).map_err(|error| Refusal::internal(error.to_string()))
    }
}

/// Waits until at least `minimum` has passed since `since`.
async fn at_least(since: Instant, minimum: Duration) {
    tokio::time::sleep(minimum.saturating_sub(since.elapsed())).await;
}
