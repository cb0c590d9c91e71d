//! Owns volumes and snapshots over time: copies in the background, progress, blocks put through EBS direct APIs.
//! Touches the disk store, and machines where a volume is attached to one that runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::instances::{Phase, eprint_line, patience};
use super::{Executor, Refusal};
use crate::api::store::GIB;
use crate::api::timeline::Timeline;
use crate::api::wire::SnapshotOf;
use crate::machines::{Disk, MachineState, Machines};

/// How far the work on a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    Busy,
    Done,
    Failed(String),
}

/// A volume that was made by CreateVolume.
#[derive(Debug)]
pub(super) struct Volume {
    since: Instant,
    work: Work,
}

impl Volume {
    pub(super) fn observed(&self, timeline: Timeline) -> Value {
        json!(match &self.work {
            Work::Failed(_) => "error",
            Work::Done if self.since.elapsed() >= timeline.creating => "available",
            _ => "creating",
        })
    }
}

/// A snapshot, from the moment it was asked for.
#[derive(Debug)]
pub(super) struct Snapshot {
    since: Instant,
    work: Work,
    minimum: Duration,
    upload: Option<Upload>,
}

/// Blocks that were put so far.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// Size of the volume in GiB.
    pub gib: u64,
    /// SHA-256 of each block by its index.
    pub blocks: BTreeMap<u64, [u8; 32]>,
    /// Whether no more blocks are taken.
    pub sealed: bool,
}

impl Snapshot {
    fn new(minimum: Duration) -> Self {
        Self {
            since: Instant::now(),
            work: Work::Busy,
            minimum,
            upload: None,
        }
    }

    pub(super) fn observed(&self) -> Value {
        if let Some(upload) = &self.upload
            && !upload.sealed
        {
            return json!({"state": "pending", "progress": 0});
        }
        let passed = self.since.elapsed();
        match &self.work {
            Work::Failed(message) => json!({"state": "error", "progress": 0, "message": message}),
            Work::Done if passed >= self.minimum => json!({"state": "completed", "progress": 100}),
            _ => {
                // The work itself is short here, so the clock is the better measure of progress.
                let share = passed.as_secs_f64() / self.minimum.as_secs_f64().max(1.0);
                let percent = [0, 10, 25, 40, 55, 70, 85, 99];
                let step = percent
                    .iter()
                    .rev()
                    .find(|step| f64::from(**step) <= share * 100.0);
                json!({"state": "pending", "progress": step.copied().unwrap_or(0)})
            }
        }
    }
}

impl<M: Machines> Executor<M> {
    pub(super) fn create_volume(self: &Arc<Self>, id: &str, snapshot: Option<String>, gib: u64) {
        self.state().volumes.insert(
            id.to_owned(),
            Volume {
                since: Instant::now(),
                work: Work::Busy,
            },
        );
        let (executor, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            let name = id.clone();
            let made = executor.blocking(move |store| match snapshot {
                Some(snapshot) => store.copy(&snapshot, &name, gib),
                None => store.create(&name, gib),
            });
            let work = finished(&id, made.await);
            let mut state = executor.state();
            match state.volumes.get_mut(&id) {
                Some(volume) => volume.work = work,
                // Deleted while it was made.
                None => drop(executor.store.remove(&id)),
            }
        });
    }

    pub(super) async fn delete_volume(&self, id: &str) -> Result<Value, Refusal> {
        self.state().volumes.remove(id);
        for instance in self.state().instances.values_mut() {
            instance.disks.retain(|disk| disk.volume != id);
        }
        let id = id.to_owned();
        self.blocking(move |store| store.remove(&id)).await
    }

    pub(super) async fn attach(&self, id: &str, instance: &str, device: &str) -> Result<Value, Refusal> {
        let ready = self
            .state()
            .volumes
            .get(id)
            .is_none_or(|volume| volume.work == Work::Done);
        if !ready {
            return Err(Refusal::new(
                "IncorrectState",
                format!("Volume '{id}' is not 'available'."),
            ));
        }
        let turn = self
            .turn(instance)
            .ok_or_else(|| Refusal::internal(format!("{instance} is unknown")))?;
        let _turn = turn.lock().await;
        let phase = self.read(instance, |it| it.phase)?;
        if !matches!(phase, Phase::Running | Phase::Stopped) {
            return Err(Refusal::new(
                "IncorrectState",
                format!("Instance '{instance}' is not 'running'."),
            ));
        }
        let volume = id.to_owned();
        self.blocking(move |store| store.own(&volume)).await?;
        let disk = Disk {
            volume: id.to_owned(),
            device: device.to_owned(),
            path: self.store.path(id),
        };
        if phase == Phase::Running {
            self.machines.attach(instance, disk.clone()).await?;
        }
        self.change(instance, |it| it.disks.push(disk));
        Ok(Value::Null)
    }

    pub(super) async fn detach(&self, id: &str, instance: &str) -> Result<Value, Refusal> {
        let Some(turn) = self.turn(instance) else {
            return Ok(Value::Null);
        };
        let _turn = turn.lock().await;
        if self.read(instance, |it| it.phase)? == Phase::Running {
            self.machines.detach(instance, id).await?;
        }
        self.change(instance, |it| it.disks.retain(|disk| disk.volume != id));
        Ok(Value::Null)
    }

    /// Makes snapshots of volumes.
    ///
    /// Of a volume at rest it is exact, and taken before this returns. Of a volume that a machine writes to,
    /// the copy is fuzzy: the port to machines cannot freeze a disk, so blocks written while the copy runs may
    /// be old or new. EC2 is exact there; whoever bakes stops the instance first.
    pub(super) async fn create_snapshots(
        self: &Arc<Self>,
        wanted: Vec<SnapshotOf>,
        reboot: Option<String>,
    ) -> Result<Value, Refusal> {
        for it in &wanted {
            self.state()
                .snapshots
                .insert(it.id.clone(), Snapshot::new(self.timeline.snapshot));
        }
        if let Some(instance) = reboot {
            let executor = Arc::clone(self);
            tokio::spawn(async move { executor.snapshot_with_reboot(&instance, wanted).await });
            return Ok(Value::Null);
        }
        for it in wanted {
            if self.is_written(&it.volume).await {
                let executor = Arc::clone(self);
                tokio::spawn(async move { executor.take(it, false).await });
            } else {
                self.take(it, true).await;
            }
        }
        Ok(Value::Null)
    }

    async fn snapshot_with_reboot(self: &Arc<Self>, instance: &str, wanted: Vec<SnapshotOf>) {
        let Some(turn) = self.turn(instance) else { return };
        let _turn = turn.lock().await;
        let Ok(patience) = self.read(instance, |it| patience(it.kind)) else {
            return;
        };
        let stopped = self.machines.stop(instance, patience).await;
        for it in wanted {
            match &stopped {
                Ok(()) => self.take(it, true).await,
                Err(error) => self.settle(
                    &it.id,
                    Work::Failed(format!("{instance} did not stop: {error:#}")),
                ),
            }
        }
        // The volumes share their bytes with the snapshots now; the machine is about to write to them.
        let disks = self.read(instance, |it| it.disks.clone()).unwrap_or_default();
        let owned = self
            .blocking(move |store| disks.iter().try_for_each(|disk| store.own(&disk.volume)))
            .await;
        if let Err(error) = owned {
            eprint_line(&format!(
                "instance {instance} cannot start again after its image: {error}"
            ));
            return;
        }
        let gate = self.gate.read().await;
        if *gate && let Err(error) = self.machines.reboot(instance).await {
            eprint_line(&format!(
                "instance {instance} did not start again after its image: {error:#}"
            ));
        }
    }

    /// Whether a machine may write to a volume now.
    async fn is_written(&self, volume: &str) -> bool {
        let holder = {
            let state = self.state();
            let mut instances = state.instances.iter();
            instances
                .find(|(_, it)| it.disks.iter().any(|disk| disk.volume == volume))
                .map(|(id, _)| id.clone())
        };
        let Some(holder) = holder else { return false };
        matches!(
            self.machines.state(&holder).await,
            Some(MachineState::Starting | MachineState::Online)
        )
    }

    async fn take(&self, it: SnapshotOf, at_rest: bool) {
        let (id, volume) = (it.id.clone(), it.volume);
        let made = self.blocking(move |store| {
            if at_rest {
                store.share(&volume, &id)
            } else {
                store.copy(&volume, &id, 0)
            }
        });
        let work = finished(&it.id, made.await);
        self.settle(&it.id, work);
    }

    fn settle(&self, id: &str, work: Work) {
        match self.state().snapshots.get_mut(id) {
            Some(snapshot) => snapshot.work = work,
            // Deleted while it was made.
            None => drop(self.store.remove(id)),
        }
    }

    pub(super) async fn copy_snapshot(&self, id: &str, source: &str) -> Result<Value, Refusal> {
        self.state()
            .snapshots
            .insert(id.to_owned(), Snapshot::new(self.timeline.snapshot));
        let (target, source) = (id.to_owned(), source.to_owned());
        let made = self.blocking(move |store| store.share(&source, &target)).await;
        self.settle(id, finished(id, made));
        Ok(Value::Null)
    }

    pub(super) async fn delete_snapshot(&self, id: &str) -> Result<Value, Refusal> {
        self.state().snapshots.remove(id);
        let id = id.to_owned();
        self.blocking(move |store| store.remove(&id)).await
    }

    pub(super) async fn start_upload(&self, id: &str, gib: u64) -> Result<Value, Refusal> {
        let mut snapshot = Snapshot::new(self.timeline.sealing);
        snapshot.upload = Some(Upload {
            gib,
            ..Upload::default()
        });
        self.state().snapshots.insert(id.to_owned(), snapshot);
        let id = id.to_owned();
        self.blocking(move |store| store.create(&id, gib)).await
    }

    pub(super) fn complete_upload(
        &self,
        id: &str,
        changed: u64,
        checksum: Option<&str>,
    ) -> Result<Value, Refusal> {
        let mut state = self.state();
        let snapshot = state.snapshots.get_mut(id).ok_or_else(|| no_upload(id))?;
        let upload = snapshot
            .upload
            .as_mut()
            .filter(|it| !it.sealed)
            .ok_or_else(|| no_upload(id))?;
        let put = upload.blocks.len() as u64;
        if put != changed {
            let message = format!("ChangedBlocksCount is {changed}, but {put} blocks of {id} were put");
            return Err(Refusal::new("ValidationException", message));
        }
        if let Some(expected) = checksum {
            // LINEAR: the digest over the blocks' digests in the order of their indices.
            let linear = upload.blocks.values().fold(Sha256::new(), Sha256::chain_update);
            let found = BASE64.encode(linear.finalize());
            if found != expected {
                let message = format!("Checksum {expected} is not the LINEAR checksum {found} of {id}");
                return Err(Refusal::new("ValidationException", message));
            }
        }
        upload.sealed = true;
        snapshot.since = Instant::now();
        snapshot.work = Work::Done;
        Ok(Value::Null)
    }

    /// What blocks may be put to a snapshot; an error if none may.
    pub(crate) fn upload(&self, id: &str) -> Result<u64, Refusal> {
        let state = self.state();
        let upload = state
            .snapshots
            .get(id)
            .and_then(|it| it.upload.as_ref())
            .filter(|it| !it.sealed);
        upload.map(|it| it.gib * GIB).ok_or_else(|| no_upload(id))
    }

    /// Notes a block whose bytes are in the file.
    pub(crate) fn note_block(&self, id: &str, index: u64, digest: [u8; 32]) {
        if let Some(upload) = self
            .state()
            .snapshots
            .get_mut(id)
            .and_then(|it| it.upload.as_mut())
        {
            upload.blocks.insert(index, digest);
        }
    }
}

fn finished(id: &str, made: Result<Value, Refusal>) -> Work {
    match made {
        Ok(_) => Work::Done,
        Err(error) => {
            eprint_line(&format!("disk {id} failed: {}", error.message));
            Work::Failed(error.message)
        }
    }
}

fn no_upload(id: &str) -> Refusal {
    Refusal::new(
        "ResourceNotFoundException",
        format!("The snapshot '{id}' does not exist or takes no blocks."),
    )
}
