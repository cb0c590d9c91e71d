//! Owns the rules of snapshots and volumes: blocks, states, attachment.
//! Touches the world that it is a part of.

use std::collections::BTreeMap;

use super::{Answer, Attachment, Life, Snapshot, Volume, World, not_found, refused};
use crate::cloud::{
    CloudErrorKind, InstanceId, Resource, SnapshotFacts, SnapshotId, SnapshotSpec, SnapshotState,
    VolumeFacts, VolumeId, VolumeSpec, VolumeState,
};

impl World {
    pub(in crate::cloud::fake) fn start_snapshot(&mut self, spec: &SnapshotSpec) -> Answer<SnapshotId> {
        const OPERATION: &str = "ebs:StartSnapshot";
        let request = format!("{spec:?}");
        if let Some(id) = self.replay(OPERATION, &spec.token, &request)? {
            return Ok(SnapshotId(id));
        }
        let id = SnapshotId(self.id("snap"));
        let number = self.number();
        self.snapshots.insert(
            id.clone(),
            Snapshot {
                state: SnapshotState::Pending,
                wait: self.patience,
                open: true,
                size_gib: spec.size_gib,
                blocks: BTreeMap::new(),
                tags: spec.tags.clone(),
                number,
            },
        );
        self.remember(OPERATION, &spec.token, request, &id.0);
        Ok(id)
    }

    pub(in crate::cloud::fake) fn put_block(
        &mut self,
        id: &SnapshotId,
        index: u32,
        data: Vec<u8>,
    ) -> Answer<()> {
        const OPERATION: &str = "ebs:PutSnapshotBlock";
        let Some(snapshot) = self.snapshots.get_mut(id) else {
            return Err(not_found(OPERATION, &Resource::Snapshot(id.clone())));
        };
        let invalid =
            |message: String| refused(OPERATION, CloudErrorKind::Other, "ValidationException", message);
        if !snapshot.open {
            return Err(invalid(format!("snapshot {id} is not pending")));
        }
        if data.len() != 512 * 1024 {
            return Err(invalid(format!(
                "block {index} has {} bytes, not 524288",
                data.len()
            )));
        }
        if u64::from(index) >= u64::from(snapshot.size_gib) * 2048 {
            return Err(invalid(format!("block {index} is past the end of snapshot {id}")));
        }
        snapshot.blocks.insert(index, data);
        Ok(())
    }

    pub(in crate::cloud::fake) fn complete_snapshot(
        &mut self,
        id: &SnapshotId,
        changed_blocks: u32,
    ) -> Answer<()> {
        const OPERATION: &str = "ebs:CompleteSnapshot";
        let Some(snapshot) = self.snapshots.get_mut(id) else {
            return Err(not_found(OPERATION, &Resource::Snapshot(id.clone())));
        };
        if snapshot.blocks.len() != changed_blocks as usize {
            let message = format!("{changed_blocks} blocks said, {} put", snapshot.blocks.len());
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "ValidationException",
                message,
            ));
        }
        snapshot.open = false;
        Ok(())
    }

    pub(in crate::cloud::fake) fn snapshot(&mut self, id: &SnapshotId) -> Option<SnapshotFacts> {
        let snapshot = self.snapshots.get_mut(id)?;
        let facts = SnapshotFacts {
            id: id.clone(),
            state: snapshot.state,
            tags: snapshot.tags.clone(),
        };
        if snapshot.state == SnapshotState::Pending && !snapshot.open {
            if snapshot.wait > 0 {
                snapshot.wait -= 1;
            } else {
                snapshot.state = SnapshotState::Completed;
            }
        }
        Some(facts)
    }

    pub(in crate::cloud::fake) fn snapshots_tagged(&self, key: &str, value: &str) -> Vec<SnapshotFacts> {
        let fits = |snapshot: &Snapshot| {
            snapshot.state == SnapshotState::Completed
                && snapshot.tags.get(key).is_some_and(|found| found == value)
        };
        let mut found: Vec<_> = self
            .snapshots
            .iter()
            .filter(|(_, snapshot)| fits(snapshot))
            .collect();
        found.sort_by_key(|(_, snapshot)| std::cmp::Reverse(snapshot.number));
        found
            .into_iter()
            .map(|(id, snapshot)| SnapshotFacts {
                id: id.clone(),
                state: snapshot.state,
                tags: snapshot.tags.clone(),
            })
            .collect()
    }

    pub(in crate::cloud::fake) fn create_volume(&mut self, spec: &VolumeSpec) -> Answer<VolumeId> {
        const OPERATION: &str = "ec2:CreateVolume";
        let request = format!("{spec:?}");
        if let Some(id) = self.replay(OPERATION, &spec.token, &request)? {
            return Ok(VolumeId(id));
        }
        let size_gib = match self.snapshots.get(&spec.snapshot) {
            None => return Err(not_found(OPERATION, &Resource::Snapshot(spec.snapshot.clone()))),
            Some(snapshot) if snapshot.state != SnapshotState::Completed => {
                let message = format!("the snapshot {} is pending", spec.snapshot);
                return Err(refused(
                    OPERATION,
                    CloudErrorKind::InUse,
                    "IncorrectState",
                    message,
                ));
            }
            Some(snapshot) => snapshot.size_gib,
        };
        if !self.zones().contains(&spec.zone) {
            let message = format!("the zone {} does not exist", spec.zone);
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "InvalidZone.NotFound",
                message,
            ));
        }
        let id = VolumeId(self.id("vol"));
        self.volumes.insert(
            id.clone(),
            Volume {
                state: VolumeState::Creating,
                wait: self.patience,
                zone: spec.zone.clone(),
                size_gib,
                attached_to: None,
                tags: spec.tags.clone(),
            },
        );
        self.remember(OPERATION, &spec.token, request, &id.0);
        Ok(id)
    }

    pub(in crate::cloud::fake) fn volume(&mut self, id: &VolumeId) -> Option<VolumeFacts> {
        let volume = self.volumes.get_mut(id)?;
        let facts = VolumeFacts {
            id: id.clone(),
            state: volume.state,
        };
        if volume.state == VolumeState::Creating {
            if volume.wait > 0 {
                volume.wait -= 1;
            } else {
                volume.state = VolumeState::Available;
            }
        }
        if let Some(instance) = volume.attached_to.clone()
            && self
                .instances
                .get(&instance)
                .is_some_and(|instance| instance.life == Life::ShuttingDown)
        {
            self.age(&instance);
        }
        Some(facts)
    }

    pub(in crate::cloud::fake) fn attach(
        &mut self,
        id: &VolumeId,
        to: &InstanceId,
        device: &str,
    ) -> Answer<()> {
        const OPERATION: &str = "ec2:AttachVolume";
        let Some(volume) = self.volumes.get_mut(id) else {
            return Err(not_found(OPERATION, &Resource::Volume(id.clone())));
        };
        let Some(instance) = self.instances.get_mut(to) else {
            return Err(not_found(OPERATION, &Resource::Instance(to.clone())));
        };
        if volume.attached_to.as_ref() == Some(to)
            && instance
                .attachments
                .iter()
                .any(|held| held.volume == *id && held.device == device)
        {
            // The real implementation takes "attached there already" for done, so that a retry after a lost reply
            // is no failure.
            return Ok(());
        }
        let busy =
            |code: &str, message: String| Err(refused(OPERATION, CloudErrorKind::InUse, code, message));
        if volume.state != VolumeState::Available {
            return match volume.state {
                VolumeState::InUse => busy("VolumeInUse", format!("{id} is already attached")),
                _ => busy("IncorrectState", format!("volume {id} is not available")),
            };
        }
        if !matches!(instance.life, Life::Running | Life::Stopped) {
            return busy(
                "IncorrectState",
                format!("instance {to} is neither running nor stopped"),
            );
        }
        if volume.zone != instance.zone {
            let message = format!("volume {id} is not in the zone of instance {to}");
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "InvalidVolume.ZoneMismatch",
                message,
            ));
        }
        if instance.attachments.iter().any(|held| held.device == device) {
            let message = format!("device {device} of instance {to} is in use");
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "InvalidParameterValue",
                message,
            ));
        }
        volume.state = VolumeState::InUse;
        volume.attached_to = Some(to.clone());
        let attachment = Attachment {
            device: device.to_owned(),
            volume: id.clone(),
            delete_on_termination: false,
        };
        instance.attachments.push(attachment);
        Ok(())
    }

    pub(in crate::cloud::fake) fn delete_on_termination(&mut self, volume: &VolumeId, instance: &InstanceId) {
        let held = self
            .instances
            .get_mut(instance)
            .map(|instance| instance.attachments.iter_mut());
        for attachment in held.into_iter().flatten().filter(|held| held.volume == *volume) {
            attachment.delete_on_termination = true;
        }
    }
}
