//! Owns the state of the fake cloud and the rules that EC2 sets on it: states, attachment, names, tokens.
//! Touches nothing; every rule answers with the error code that EC2 would give.

use std::collections::BTreeMap;

use crate::cloud::{
    CloudError, CloudErrorKind, ImageFacts, ImageId, ImageSpec, ImageState, InstanceFacts, InstanceId,
    InstanceState, LaunchSpec, Resource, SnapshotFacts, SnapshotId, SnapshotSpec, SnapshotState, Subnet,
    Tagged, VolumeFacts, VolumeId, VolumeSpec, VolumeState,
};

type Tags = BTreeMap<String, String>;
type Answer<T> = Result<T, CloudError>;

/// Account that owns what the fake makes.
pub(super) const ACCOUNT: &str = "111122223333";

/// Largest user data that EC2 takes, in bytes before base64.
const USER_DATA_LIMIT: usize = 16 * 1024;

/// One answer "no", as EC2 writes it.
pub(crate) fn refused(
    operation: &'static str,
    kind: CloudErrorKind,
    code: &str,
    message: impl Into<String>,
) -> CloudError {
    CloudError {
        operation,
        kind,
        code: Some(code.to_owned()),
        message: message.into(),
        request_id: None,
    }
}

fn not_found(operation: &'static str, resource: &Resource) -> CloudError {
    let code = match resource {
        Resource::Instance(_) => "InvalidInstanceID.NotFound",
        Resource::Volume(_) => "InvalidVolume.NotFound",
        Resource::Snapshot(_) => "InvalidSnapshot.NotFound",
        Resource::Image(_) => "InvalidAMIID.NotFound",
    };
    refused(
        operation,
        CloudErrorKind::NotFound,
        code,
        format!("the {resource} does not exist"),
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub(super) device: String,
    pub(super) volume: VolumeId,
    pub(super) delete_on_termination: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) spec: LaunchSpec,
    pub(super) life: Life,
    /// Describes that still answer "no such instance".
    pub(super) hidden: u32,
    /// Describes left before the next state.
    pub(super) wait: u32,
    pub(super) zone: String,
    pub(super) attachments: Vec<Attachment>,
    pub(super) root_device: String,
    pub(super) tags: Tags,
    /// Times that the agent was asked for, for `FakeRemote`.
    pub(super) online_asked: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) state: VolumeState,
    pub(super) wait: u32,
    pub(super) zone: String,
    pub(super) size_gib: u32,
    pub(super) attached_to: Option<InstanceId>,
    pub(super) tags: Tags,
}

#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) state: SnapshotState,
    pub(super) wait: u32,
    /// Blocks may still be put; it stays pending however often it is looked at.
    pub(super) open: bool,
    pub(super) size_gib: u32,
    pub(super) blocks: BTreeMap<u32, Vec<u8>>,
    pub(super) tags: Tags,
    pub(super) number: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) facts: ImageFacts,
    pub(super) wait: u32,
    /// Its snapshots; `facts` shows them only once the image is available, as EC2 does.
    pub(super) snapshots: Vec<SnapshotId>,
    /// It never becomes available.
    pub(super) doomed: bool,
}

#[derive(Debug, Default)]
pub(super) struct World {
    numbers: u64,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) subnets: Vec<Subnet>,
    /// Zones by instance type; a type that is not here is offered in each subnet's zone.
    pub(super) offerings: BTreeMap<String, Vec<String>>,
    pub(super) full_zones: Vec<String>,
    pub(super) launch_denied: bool,
    pub(super) images_fail: bool,
    pub(super) hide_new_instances: u32,
    /// Describes that each transitional state lasts.
    pub(super) patience: u32,
    pub(super) console: String,
    pub(super) images: BTreeMap<ImageId, Image>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    pub(super) volumes: BTreeMap<VolumeId, Volume>,
    pub(super) snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// What each operation and token asked for, and the id it gave.
    tokens: BTreeMap<(&'static str, String), (String, String)>,
}

impl World {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{:017x}", self.number())
    }

    /// The id that a token gave already, or an error if it was given for something else.
    fn replay(&self, operation: &'static str, token: &str, request: &str) -> Answer<Option<String>> {
        match self.tokens.get(&(operation, token.to_owned())) {
            None => Ok(None),
            Some((asked, id)) if asked == request => Ok(Some(id.clone())),
            Some(_) => Err(refused(
                operation,
                CloudErrorKind::Other,
                "IdempotentParameterMismatch",
                format!("the token {token} was used with other parameters"),
            )),
        }
    }

    fn remember(&mut self, operation: &'static str, token: &str, request: String, id: &str) {
        self.tokens
            .insert((operation, token.to_owned()), (request, id.to_owned()));
    }

    pub(super) fn zones(&self) -> Vec<String> {
        let mut zones: Vec<String> = self.subnets.iter().map(|subnet| subnet.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        zones
    }

    // Images.

    pub(super) fn image(&mut self, id: &ImageId) -> Option<ImageFacts> {
        let image = self.images.get_mut(id)?;
        let shown = image.facts.clone();
        if image.facts.state == ImageState::Pending {
            if image.wait > 0 {
                image.wait -= 1;
            } else if image.doomed {
                image.facts.state = ImageState::Failed;
                image.facts.reason = Some("Client.InternalError: the snapshot failed".to_owned());
            } else {
                image.facts.state = ImageState::Available;
                image.facts.snapshots.clone_from(&image.snapshots);
                for id in image.snapshots.clone() {
                    if let Some(snapshot) = self.snapshots.get_mut(&id) {
                        snapshot.state = SnapshotState::Completed;
                    }
                }
            }
        }
        Some(shown)
    }

    pub(super) fn image_named(&mut self, name: &str) -> Option<ImageFacts> {
        let id = self
            .images
            .iter()
            .find(|(_, image)| image.facts.owner == ACCOUNT && image.facts.name == name)
            .map(|(id, _)| id.clone())?;
        self.image(&id)
    }

    pub(super) fn create_image(&mut self, spec: &ImageSpec) -> Answer<ImageId> {
        const OPERATION: &str = "ec2:CreateImage";
        let known = |character: char| character.is_ascii_alphanumeric() || "()[] ./-'@_".contains(character);
        if !(3..=128).contains(&spec.name.len()) || !spec.name.chars().all(known) {
            let message = format!("the image name {:?} is malformed", spec.name);
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "InvalidAMIName.Malformed",
                message,
            ));
        }
        if spec.description.len() > 255 {
            let message = "the description is longer than 255 characters";
            return Err(refused(
                OPERATION,
                CloudErrorKind::Other,
                "InvalidParameterValue",
                message,
            ));
        }
        let taken = self
            .images
            .values()
            .any(|image| image.facts.owner == ACCOUNT && image.facts.name == spec.name);
        if taken {
            let message = format!("the image name {} is in use", spec.name);
            return Err(refused(
                OPERATION,
                CloudErrorKind::Duplicate,
                "InvalidAMIName.Duplicate",
                message,
            ));
        }
        let Some(instance) = self.instances.get(&spec.instance).cloned() else {
            return Err(not_found(OPERATION, &Resource::Instance(spec.instance.clone())));
        };
        if instance.life != Life::Stopped {
            let message = format!("instance {} is not stopped", spec.instance);
            return Err(refused(
                OPERATION,
                CloudErrorKind::InUse,
                "IncorrectInstanceState",
                message,
            ));
        }
        let id = ImageId(self.id("ami"));
        let mut snapshots = Vec::new();
        let mut root_size_gib = 0;
        for attachment in &instance.attachments {
            if spec.without_devices.contains(&attachment.device) {
                continue;
            }
            let size_gib = self
                .volumes
                .get(&attachment.volume)
                .map_or(0, |volume| volume.size_gib);
            if attachment.device == instance.root_device {
                root_size_gib = size_gib;
            }
            let snapshot = SnapshotId(self.id("snap"));
            let number = self.number();
            self.snapshots.insert(
                snapshot.clone(),
                Snapshot {
                    state: SnapshotState::Pending,
                    wait: self.patience,
                    open: true,
                    size_gib,
                    blocks: BTreeMap::new(),
                    tags: spec.tags.clone(),
                    number,
                },
            );
            snapshots.push(snapshot);
        }
        let base = self.images.get(&instance.spec.image);
        let facts = ImageFacts {
            id: id.clone(),
            name: spec.name.clone(),
            description: spec.description.clone(),
            state: ImageState::Pending,
            reason: None,
            owner: ACCOUNT.to_owned(),
            owner_alias: None,
            architecture: base.map_or_else(|| "x86_64".to_owned(), |base| base.facts.architecture.clone()),
            created: "2026-11-23T08:00:00.000Z".to_owned(),
            root_device: instance.root_device.clone(),
            root_size_gib,
            snapshots: Vec::new(),
            tags: spec.tags.clone(),
        };
        let image = Image {
            facts,
            wait: self.patience,
            snapshots,
            doomed: self.images_fail,
        };
        self.images.insert(id.clone(), image);
        Ok(id)
    }

    // Instances.

    /// What EC2 refuses before it launches, and the zone that the launch goes to.
    pub(super) fn launchable(&self, spec: &LaunchSpec) -> Answer<String> {
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

    pub(super) fn launch(&mut self, spec: &LaunchSpec) -> Answer<InstanceId> {
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

    pub(super) fn instance(&mut self, id: &InstanceId) -> Option<InstanceFacts> {
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
            private_address: Some("10.0.0.10".to_owned()),
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
    fn age(&mut self, id: &InstanceId) {
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

    pub(super) fn stop(&mut self, id: &InstanceId) -> Answer<()> {
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

    fn terminate(&mut self, id: &InstanceId) {
        let patience = self.patience;
        if let Some(instance) = self.instances.get_mut(id)
            && !matches!(instance.life, Life::ShuttingDown | Life::Terminated)
        {
            instance.life = Life::ShuttingDown;
            instance.wait = patience;
        }
    }

    /// What `shutdown` inside the machine does.
    pub(super) fn shut_down_inside(&mut self, id: &InstanceId) {
        match self.instances.get_mut(id) {
            Some(instance) if instance.spec.terminate_on_shutdown => self.terminate(id),
            Some(instance) => instance.life = Life::Stopping,
            None => {}
        }
    }

    // Snapshots.

    pub(super) fn start_snapshot(&mut self, spec: &SnapshotSpec) -> Answer<SnapshotId> {
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

    pub(super) fn put_block(&mut self, id: &SnapshotId, index: u32, data: Vec<u8>) -> Answer<()> {
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

    pub(super) fn complete_snapshot(&mut self, id: &SnapshotId, changed_blocks: u32) -> Answer<()> {
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

    pub(super) fn snapshot(&mut self, id: &SnapshotId) -> Option<SnapshotFacts> {
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

    pub(super) fn snapshots_tagged(&self, key: &str, value: &str) -> Vec<SnapshotFacts> {
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

    // Volumes.

    pub(super) fn create_volume(&mut self, spec: &VolumeSpec) -> Answer<VolumeId> {
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

    pub(super) fn volume(&mut self, id: &VolumeId) -> Option<VolumeFacts> {
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

    pub(super) fn attach(&mut self, id: &VolumeId, to: &InstanceId, device: &str) -> Answer<()> {
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

    pub(super) fn delete_on_termination(&mut self, volume: &VolumeId, instance: &InstanceId) {
        let held = self
            .instances
            .get_mut(instance)
            .map(|instance| instance.attachments.iter_mut());
        for attachment in held.into_iter().flatten().filter(|held| held.volume == *volume) {
            attachment.delete_on_termination = true;
        }
    }

    // All kinds.

    pub(super) fn tags_of(&mut self, resource: &Resource) -> Answer<&mut Tags> {
        let tags = match resource {
            Resource::Instance(id) => self.instances.get_mut(id).map(|found| &mut found.tags),
            Resource::Volume(id) => self.volumes.get_mut(id).map(|found| &mut found.tags),
            Resource::Snapshot(id) => self.snapshots.get_mut(id).map(|found| &mut found.tags),
            Resource::Image(id) => self.images.get_mut(id).map(|found| &mut found.facts.tags),
        };
        tags.ok_or_else(|| not_found("ec2:CreateTags", resource))
    }

    pub(super) fn delete(&mut self, resource: &Resource) -> Answer<()> {
        match resource {
            Resource::Instance(id) => self.terminate(id),
            Resource::Volume(id) => {
                let holder = self.volumes.get(id).and_then(|volume| volume.attached_to.clone());
                if let Some(holder) = holder {
                    // A refused try takes time too: whoever tries again gets there.
                    if self
                        .instances
                        .get(&holder)
                        .is_some_and(|found| found.life == Life::ShuttingDown)
                    {
                        self.age(&holder);
                    }
                    let message = format!("volume {id} is attached to {holder}");
                    return Err(refused(
                        "ec2:DeleteVolume",
                        CloudErrorKind::InUse,
                        "VolumeInUse",
                        message,
                    ));
                }
                self.volumes.remove(id);
            }
            Resource::Snapshot(id) => {
                let user = self.images.iter().find(|(_, image)| image.snapshots.contains(id));
                if let Some((image, _)) = user {
                    let message = format!("the snapshot {id} is in use by {image}");
                    let code = "InvalidSnapshot.InUse";
                    return Err(refused(
                        "ec2:DeleteSnapshot",
                        CloudErrorKind::InUse,
                        code,
                        message,
                    ));
                }
                self.snapshots.remove(id);
            }
            Resource::Image(id) => {
                match self.images.get(id) {
                    Some(image) if image.facts.owner != ACCOUNT => {
                        let message = format!("not authorized for image {id}");
                        return Err(refused(
                            "ec2:DeregisterImage",
                            CloudErrorKind::Denied,
                            "AuthFailure",
                            message,
                        ));
                    }
                    _ => {}
                }
                for snapshot in self
                    .images
                    .remove(id)
                    .map(|image| image.snapshots)
                    .unwrap_or_default()
                {
                    self.snapshots.remove(&snapshot);
                }
            }
        }
        Ok(())
    }

    /// Everything of the account that costs money now, with its tags.
    pub(super) fn live(&self) -> Vec<Tagged> {
        let gone = |instance: &Instance| matches!(instance.life, Life::ShuttingDown | Life::Terminated);
        let instances = self.instances.iter().filter(|(_, instance)| !gone(instance));
        let instances = instances.map(|(id, found)| (Resource::Instance(id.clone()), found.tags.clone()));
        let volumes = self
            .volumes
            .iter()
            .map(|(id, found)| (Resource::Volume(id.clone()), found.tags.clone()));
        let snapshots = self
            .snapshots
            .iter()
            .map(|(id, found)| (Resource::Snapshot(id.clone()), found.tags.clone()));
        let images = self
            .images
            .iter()
            .filter(|(_, image)| image.facts.owner == ACCOUNT);
        let images = images.map(|(id, found)| (Resource::Image(id.clone()), found.facts.tags.clone()));
        let all = instances.chain(volumes).chain(snapshots).chain(images);
        all.map(|(resource, tags)| Tagged { resource, tags }).collect()
    }

    /// Whether an instance is on its way out, with everything that goes with it.
    pub(super) fn goes_by_itself(&self, resource: &Resource) -> bool {
        let Resource::Volume(id) = resource else {
            return false;
        };
        self.instances.values().any(|instance| {
            instance.life == Life::ShuttingDown
                && instance
                    .attachments
                    .iter()
                    .any(|held| held.volume == *id && held.delete_on_termination)
        })
    }
}
