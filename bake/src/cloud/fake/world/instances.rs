//! Owns the rules of instances: what a launch may ask for, and the states that a machine goes through.
//! Touches the world that it is a part of.

use super::{Answer, Attachment, Instance, Life, USER_DATA_LIMIT, Volume, World, not_found, refused};
use crate::cloud::{
    CloudErrorKind, ImageState, InstanceFacts, InstanceId, InstanceState, LaunchSpec, Resource,
    SnapshotState, VolumeId, VolumeState,
};

impl World {
    /// What EC2 refuses before it launches, and the zone that the launch goes to.
    pub(in crate::cloud::fake) fn launchable(&self, spec: &LaunchSpec) -> Answer<String> {
        const OPERATION: &str = "ec2:RunInstances";
        let other =
            |code: &str, message: String| Err(refused(OPERATION, CloudErrorKind::Other, code, message));
        if self.launch_denied {
            let message = "You are not authorized to perform this operation.";
            return Err(refused(
                OPERATION,
                CloudErrorKind::Denied,
                "UnauthorizedOperation",
                message,
            ));
        }
        if spec.user_data.len() > USER_DATA_LIMIT {
            return other(
                "InvalidParameterValue",
                "user data is larger than 16 KiB".to_owned(),
            );
        }
        if spec.token.len() > 64 || !spec.token.is_ascii() {
            return other(
                "InvalidParameterValue",
                format!("the client token {:?} is malformed", spec.token),
            );
        }
        let Some(image) = self.images.get(&spec.image) else {
            return Err(not_found(OPERATION, &Resource::Image(spec.image.clone())));
        };
        if image.facts.state != ImageState::Available {
            return other(
                "InvalidAMIID.Unavailable",
                format!("the image {} is not available", spec.image),
            );
        }
        if let Some(root) = &spec.root_volume
            && root.device == image.facts.root_device
            && root.size_gib < image.facts.root_size_gib
        {
            let message = format!("volume of {} GiB is smaller than the snapshot", root.size_gib);
            return other("InvalidBlockDeviceMapping", message);
        }
        for volume in &spec.volumes {
            match self.snapshots.get(&volume.snapshot) {
                None => return Err(not_found(OPERATION, &Resource::Snapshot(volume.snapshot.clone()))),
                Some(snapshot) if snapshot.state != SnapshotState::Completed => {
                    let message = format!("the snapshot {} is pending", volume.snapshot);
                    return Err(refused(
                        OPERATION,
                        CloudErrorKind::InUse,
                        "IncorrectState",
                        message,
                    ));
                }
                Some(_) => {}
            }
        }
        let subnet = match &spec.subnet {
            Some(id) => self.subnets.iter().find(|subnet| subnet.id == *id),
            None => self.subnets.iter().find(|subnet| subnet.default_for_zone),
        };
        match (subnet, &spec.subnet) {
            (Some(subnet), _) => Ok(subnet.zone.clone()),
            (None, Some(id)) => {
                let message = format!("the subnet {id} does not exist");
                Err(refused(
                    OPERATION,
                    CloudErrorKind::NotFound,
                    "InvalidSubnetID.NotFound",
                    message,
                ))
            }
            (None, None) => other("VPCIdNotSpecified", "no default VPC for this user".to_owned()),
        }
    }

    pub(in crate::cloud::fake) fn launch(&mut self, spec: &LaunchSpec) -> Answer<InstanceId> {
        const OPERATION: &str = "ec2:RunInstances";
        let request = format!("{spec:?}");
        if let Some(id) = self.replay(OPERATION, &spec.token, &request)? {
            return Ok(InstanceId(id));
        }
        let zone = self.launchable(spec)?;
        let offered = self
            .offerings
            .get(&spec.instance_type)
            .is_none_or(|zones| zones.contains(&zone));
        if !offered {
            let message = format!("{} is not offered in {zone}", spec.instance_type);
            return Err(refused(
                OPERATION,
                CloudErrorKind::Capacity,
                "Unsupported",
                message,
            ));
        }
        if self.full_zones.contains(&zone) {
            let message = format!("no capacity for {} in {zone}", spec.instance_type);
            return Err(refused(
                OPERATION,
                CloudErrorKind::Capacity,
                "InsufficientInstanceCapacity",
                message,
            ));
        }
        let (image_device, image_size) = match self.images.get(&spec.image) {
            Some(image) => (image.facts.root_device.clone(), image.facts.root_size_gib),
            None => return Err(not_found(OPERATION, &Resource::Image(spec.image.clone()))),
        };
        let id = InstanceId(self.id("i"));
        let root_size = spec.root_volume.as_ref().map_or(image_size, |root| root.size_gib);
        let mut disks = vec![(image_device.clone(), root_size)];
        for volume in &spec.volumes {
            let size = self
                .snapshots
                .get(&volume.snapshot)
                .map_or(0, |snapshot| snapshot.size_gib);
            disks.push((volume.device.clone(), size));
        }
        let mut attachments = Vec::new();
        for (device, size_gib) in disks {
            let volume = VolumeId(self.id("vol"));
            self.volumes.insert(
                volume.clone(),
                Volume {
                    state: VolumeState::InUse,
                    wait: 0,
                    zone: zone.clone(),
                    size_gib,
                    attached_to: Some(id.clone()),
                    tags: spec.tags.clone(),
                },
            );
            attachments.push(Attachment {
                device,
                volume,
                delete_on_termination: true,
            });
        }
        let instance = Instance {
            spec: spec.clone(),
            life: Life::Pending,
            hidden: self.hide_new_instances,
            wait: self.patience,
            zone,
            attachments,
            root_device: image_device,
            tags: spec.tags.clone(),
            online_asked: 0,
        };
        self.instances.insert(id.clone(), instance);
        self.remember(OPERATION, &spec.token, request, &id.0);
        Ok(id)
    }

    pub(in crate::cloud::fake) fn instance(&mut self, id: &InstanceId) -> Option<InstanceFacts> {
        let instance = self.instances.get_mut(id)?;
        if instance.hidden > 0 {
            instance.hidden -= 1;
            return None;
        }
        let facts = InstanceFacts {
            id: id.clone(),
            state: match instance.life {
                Life::Pending => InstanceState::Pending,
                Life::Running => InstanceState::Running,
                Life::Stopping => InstanceState::Stopping,
                Life::Stopped => InstanceState::Stopped,
                Life::ShuttingDown | Life::Terminated => InstanceState::Terminated,
            },
            reason: None,
            zone: instance.zone.clone(),
            volumes: instance
                .attachments
                .iter()
                .map(|attachment| (attachment.device.clone(), attachment.volume.clone()))
                .collect(),
            tags: instance.tags.clone(),
        };
        self.age(id);
        Some(facts)
    }

    /// Lets a transitional state of an instance last one look less.
    pub(super) fn age(&mut self, id: &InstanceId) {
        let patience = self.patience;
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        let next = match instance.life {
            Life::Pending => Life::Running,
            Life::Stopping => Life::Stopped,
            Life::ShuttingDown => Life::Terminated,
            Life::Running | Life::Stopped | Life::Terminated => return,
        };
        if instance.wait > 0 {
            instance.wait -= 1;
            return;
        }
        instance.life = next;
        instance.wait = patience;
        if next == Life::Terminated {
            for attachment in std::mem::take(&mut instance.attachments) {
                if attachment.delete_on_termination {
                    self.volumes.remove(&attachment.volume);
                } else if let Some(volume) = self.volumes.get_mut(&attachment.volume) {
                    volume.attached_to = None;
                    volume.state = VolumeState::Available;
                }
            }
        }
    }

    pub(in crate::cloud::fake) fn stop(&mut self, id: &InstanceId) -> Answer<()> {
        const OPERATION: &str = "ec2:StopInstances";
        let patience = self.patience;
        let Some(instance) = self.instances.get_mut(id) else {
            return Err(not_found(OPERATION, &Resource::Instance(id.clone())));
        };
        match instance.life {
            Life::Running => {
                instance.life = Life::Stopping;
                instance.wait = patience;
                Ok(())
            }
            Life::Stopping | Life::Stopped => Ok(()),
            Life::Pending | Life::ShuttingDown | Life::Terminated => {
                let message = format!("instance {id} is not in a state from which it can be stopped");
                Err(refused(
                    OPERATION,
                    CloudErrorKind::InUse,
                    "IncorrectInstanceState",
                    message,
                ))
            }
        }
    }

    pub(super) fn terminate(&mut self, id: &InstanceId) {
        let patience = self.patience;
        if let Some(instance) = self.instances.get_mut(id)
            && !matches!(instance.life, Life::ShuttingDown | Life::Terminated)
        {
            instance.life = Life::ShuttingDown;
            instance.wait = patience;
        }
    }

    /// What `shutdown` inside the machine does.
    pub(in crate::cloud::fake) fn shut_down_inside(&mut self, id: &InstanceId) {
        match self.instances.get_mut(id) {
            Some(instance) if instance.spec.terminate_on_shutdown => self.terminate(id),
            Some(instance) => instance.life = Life::Stopping,
            None => {}
        }
    }
}
