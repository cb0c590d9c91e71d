//! Owns the search for what is there by filters: all four kinds by a tag, for a sweep; and the caller's snapshots.
//! Touches AWS, reading only.

use aws_sdk_ec2::types::{Filter, ImageState, Snapshot, VolumeState};

use super::client::AwsCloud;
use super::convert::{filter, tag_map};
use super::errors::present;
use crate::cloud::{CloudError, ImageId, InstanceId, Resource, SnapshotId, Tagged, VolumeId};

fn tag_filter(key: &str, value: Option<&str>) -> Filter {
    match value {
        Some(value) => filter(&format!("tag:{key}"), value),
        None => filter("tag-key", key),
    }
}

impl AwsCloud {
    pub(super) async fn find_tagged(
        &self,
        key: &str,
        value: Option<&str>,
    ) -> Result<Vec<Tagged>, CloudError> {
        let wanted = tag_filter(key, value);
        let (instances, volumes, snapshots, images) = futures::try_join!(
            self.tagged_instances(&wanted),
            self.tagged_volumes(&wanted),
            self.tagged_snapshots(&wanted),
            self.tagged_images(&wanted),
        )?;
        Ok(instances
            .into_iter()
            .chain(volumes)
            .chain(snapshots)
            .chain(images)
            .collect())
    }

    async fn tagged_instances(&self, wanted: &Filter) -> Result<Vec<Tagged>, CloudError> {
        const OPERATION: &str = "ec2:DescribeInstances";
        let alive = ["pending", "running", "stopping", "stopped"]
            .map(str::to_owned)
            .to_vec();
        let alive = Filter::builder()
            .name("instance-state-name")
            .set_values(Some(alive))
            .build();
        let reservations = self
            .send(OPERATION, |clients| {
                let call = clients
                    .ec2
                    .describe_instances()
                    .filters(wanted.clone())
                    .filters(alive.clone());
                call.into_paginator().items().send().try_collect()
            })
            .await?;
        let instances = reservations
            .into_iter()
            .flat_map(|found| found.instances.unwrap_or_default());
        let convert = |found: aws_sdk_ec2::types::Instance| {
            let id = InstanceId(present(OPERATION, "InstanceId", found.instance_id)?);
            Ok(Tagged {
                resource: Resource::Instance(id),
                tags: tag_map(&found.tags.unwrap_or_default()),
            })
        };
        instances.map(convert).collect()
    }

    async fn tagged_volumes(&self, wanted: &Filter) -> Result<Vec<Tagged>, CloudError> {
        const OPERATION: &str = "ec2:DescribeVolumes";
        let volumes = self
            .send(OPERATION, |clients| {
                let call = clients.ec2.describe_volumes().filters(wanted.clone());
                call.into_paginator().items().send().try_collect()
            })
            .await?;
        let gone =
            |state: Option<&VolumeState>| matches!(state, Some(VolumeState::Deleting | VolumeState::Deleted));
        let convert = |found: aws_sdk_ec2::types::Volume| {
            let id = VolumeId(present(OPERATION, "VolumeId", found.volume_id)?);
            Ok(Tagged {
                resource: Resource::Volume(id),
                tags: tag_map(&found.tags.unwrap_or_default()),
            })
        };
        volumes
            .into_iter()
            .filter(|found| !gone(found.state()))
            .map(convert)
            .collect()
    }

    async fn tagged_snapshots(&self, wanted: &Filter) -> Result<Vec<Tagged>, CloudError> {
        const OPERATION: &str = "ec2:DescribeSnapshots";
        let snapshots = self.own_snapshots(vec![wanted.clone()]).await?;
        let convert = |found: Snapshot| {
            let id = SnapshotId(present(OPERATION, "SnapshotId", found.snapshot_id)?);
            Ok(Tagged {
                resource: Resource::Snapshot(id),
                tags: tag_map(&found.tags.unwrap_or_default()),
            })
        };
        snapshots.into_iter().map(convert).collect()
    }

    async fn tagged_images(&self, wanted: &Filter) -> Result<Vec<Tagged>, CloudError> {
        const OPERATION: &str = "ec2:DescribeImages";
        let images = self
            .send(OPERATION, |clients| {
                let call = clients
                    .ec2
                    .describe_images()
                    .owners("self")
                    .include_deprecated(true)
                    .include_disabled(true)
                    .filters(wanted.clone());
                call.into_paginator().items().send().try_collect()
            })
            .await?;
        let convert = |found: aws_sdk_ec2::types::Image| {
            let id = ImageId(present(OPERATION, "ImageId", found.image_id)?);
            Ok(Tagged {
                resource: Resource::Image(id),
                tags: tag_map(&found.tags.unwrap_or_default()),
            })
        };
        images
            .into_iter()
            .filter(|found| found.state() != Some(&ImageState::Deregistered))
            .map(convert)
            .collect()
    }

    /// All snapshots of the caller's own that pass the filters.
    pub(super) async fn own_snapshots(&self, filters: Vec<Filter>) -> Result<Vec<Snapshot>, CloudError> {
        self.send("ec2:DescribeSnapshots", |clients| {
            let call = clients.ec2.describe_snapshots().owner_ids("self");
            let call = call.set_filters(Some(filters.clone()));
            call.into_paginator().items().send().try_collect()
        })
        .await
    }
}
