//! Owns the port `Cloud` of the fake: each call goes through the faults into the world.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::world::World;
use super::{FakeCloud, locked};
use crate::cloud::{
    Cloud, CloudError, ImageFacts, ImageId, ImageSpec, InstanceFacts, InstanceId, LaunchSpec, Resource,
    SnapshotFacts, SnapshotId, SnapshotSpec, Subnet, Tagged, VolumeFacts, VolumeId, VolumeSpec,
};

impl FakeCloud {
    async fn world<T>(
        &self,
        operation: &'static str,
        subject: impl fmt::Display,
        effect: impl FnOnce(&mut World) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        self.call(operation, subject, || effect(&mut locked(&self.world)))
            .await
    }
}

impl Cloud for FakeCloud {
    async fn account(&self) -> Result<String, CloudError> {
        self.world("sts:GetCallerIdentity", "caller", |_| {
            Ok("123456789012".to_owned())
        })
        .await
    }

    async fn parameter(&self, name: &str) -> Result<Option<String>, CloudError> {
        self.world("ssm:GetParameter", name, |world| {
            Ok(world.parameters.get(name).cloned())
        })
        .await
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageFacts>, CloudError> {
        self.world("ec2:DescribeImages", id, |world| Ok(world.image(id)))
            .await
    }

    async fn image_named(&self, name: &str) -> Result<Option<ImageFacts>, CloudError> {
        self.world("ec2:DescribeImages", name, |world| Ok(world.image_named(name)))
            .await
    }

    async fn subnets(&self) -> Result<Vec<Subnet>, CloudError> {
        self.world("ec2:DescribeSubnets", "", |world| Ok(world.subnets.clone()))
            .await
    }

    async fn zones_offering(&self, instance_type: &str) -> Result<Vec<String>, CloudError> {
        self.world("ec2:DescribeInstanceTypeOfferings", instance_type, |world| {
            let mut zones = world
                .offerings
                .get(instance_type)
                .cloned()
                .unwrap_or_else(|| world.zones());
            zones.sort();
            Ok(zones)
        })
        .await
    }

    async fn may_launch(&self, spec: &LaunchSpec) -> Result<(), CloudError> {
        self.world("ec2:RunInstances", format!("{} (DryRun)", spec.image), |world| {
            world.launchable(spec).map(drop)
        })
        .await
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<InstanceId, CloudError> {
        self.world("ec2:RunInstances", &spec.image, |world| world.launch(spec))
            .await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<InstanceFacts>, CloudError> {
        self.world("ec2:DescribeInstances", id, |world| Ok(world.instance(id)))
            .await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), CloudError> {
        self.world("ec2:StopInstances", id, |world| world.stop(id)).await
    }

    async fn console(&self, id: &InstanceId) -> Result<String, CloudError> {
        self.world("ec2:GetConsoleOutput", id, |world| Ok(world.console.clone()))
            .await
    }

    async fn start_snapshot(&self, spec: &SnapshotSpec) -> Result<SnapshotId, CloudError> {
        self.world("ebs:StartSnapshot", &spec.description, |world| {
            world.start_snapshot(spec)
        })
        .await
    }

    async fn put_block(&self, id: &SnapshotId, index: u32, data: Vec<u8>) -> Result<(), CloudError> {
        self.world("ebs:PutSnapshotBlock", format!("{id} block {index}"), |world| {
            world.put_block(id, index, data)
        })
        .await
    }

    async fn complete_snapshot(&self, id: &SnapshotId, changed_blocks: u32) -> Result<(), CloudError> {
        self.world("ebs:CompleteSnapshot", id, |world| {
            world.complete_snapshot(id, changed_blocks)
        })
        .await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotFacts>, CloudError> {
        self.world("ec2:DescribeSnapshots", id, |world| Ok(world.snapshot(id)))
            .await
    }

    async fn snapshots_tagged(&self, key: &str, value: &str) -> Result<Vec<SnapshotFacts>, CloudError> {
        self.world("ec2:DescribeSnapshots", format!("{key}={value}"), |world| {
            Ok(world.snapshots_tagged(key, value))
        })
        .await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeId, CloudError> {
        self.world("ec2:CreateVolume", &spec.snapshot, |world| {
            world.create_volume(spec)
        })
        .await
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeFacts>, CloudError> {
        self.world("ec2:DescribeVolumes", id, |world| Ok(world.volume(id)))
            .await
    }

    async fn attach(&self, volume: &VolumeId, instance: &InstanceId, device: &str) -> Result<(), CloudError> {
        let subject = format!("{volume} to {instance}");
        self.world("ec2:AttachVolume", subject, |world| {
            world.attach(volume, instance, device)
        })
        .await?;
        // In life this is a second request: if the reply of the first is lost, it never leaves, and the volume
        // outlives its instance.
        locked(&self.world).delete_on_termination(volume, instance);
        Ok(())
    }

    async fn create_image(&self, spec: &ImageSpec) -> Result<ImageId, CloudError> {
        self.world("ec2:CreateImage", &spec.name, |world| world.create_image(spec))
            .await
    }

    async fn tag(&self, resource: &Resource, tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
        self.world("ec2:CreateTags", resource, |world| {
            world.tags_of(resource).map(|found| found.extend(tags.clone()))
        })
        .await
    }

    async fn untag(&self, resource: &Resource, keys: &[&str]) -> Result<(), CloudError> {
        self.world("ec2:DeleteTags", resource, |world| {
            world
                .tags_of(resource)
                .map(|found| found.retain(|key, _| !keys.contains(&key.as_str())))
        })
        .await
    }

    async fn delete(&self, resource: &Resource) -> Result<(), CloudError> {
        let operation = match resource {
            Resource::Instance(_) => "ec2:TerminateInstances",
            Resource::Volume(_) => "ec2:DeleteVolume",
            Resource::Snapshot(_) => "ec2:DeleteSnapshot",
            Resource::Image(_) => "ec2:DeregisterImage",
        };
        self.world(operation, resource, |world| world.delete(resource))
            .await
    }

    async fn tagged(&self, key: &str, value: Option<&str>) -> Result<Vec<Tagged>, CloudError> {
        let subject = format!("{key}={}", value.unwrap_or("*"));
        self.world("ec2:DescribeTagged", subject, |world| {
            let fits = |tagged: &Tagged| {
                tagged
                    .tags
                    .get(key)
                    .is_some_and(|found| value.is_none_or(|value| found == value))
            };
            Ok(world.live().into_iter().filter(fits).collect())
        })
        .await
    }
}
