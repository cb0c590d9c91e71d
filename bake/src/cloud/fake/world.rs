//! Owns the state of the fake cloud and what holds for all kinds of resources: ids, tokens, tags, their end.
//! Touches nothing; every rule answers with the error code that EC2 would give.

mod disks;
mod images;
mod instances;

use std::collections::BTreeMap;

use crate::cloud::{
    CloudError, CloudErrorKind, ImageFacts, ImageId, InstanceId, LaunchSpec, Resource, SnapshotId,
    SnapshotState, Subnet, Tagged, VolumeId, VolumeState,
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
