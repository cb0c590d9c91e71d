//! Owns the rules of images: names, states, the snapshots that come and go with them.
//! Touches the world that it is a part of.

use std::collections::BTreeMap;

use super::{ACCOUNT, Answer, Image, Life, Snapshot, World, not_found, refused};
use crate::cloud::{
    CloudErrorKind, ImageFacts, ImageId, ImageSpec, ImageState, Resource, SnapshotId, SnapshotState,
};

impl World {
    pub(in crate::cloud::fake) fn image(&mut self, id: &ImageId) -> Option<ImageFacts> {
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

    pub(in crate::cloud::fake) fn image_named(&mut self, name: &str) -> Option<ImageFacts> {
        let id = self
            .images
            .iter()
            .find(|(_, image)| image.facts.owner == ACCOUNT && image.facts.name == name)
            .map(|(id, _)| id.clone())?;
        self.image(&id)
    }

    pub(in crate::cloud::fake) fn create_image(&mut self, spec: &ImageSpec) -> Answer<ImageId> {
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
}
