//! Owns the real `Cloud`: the only folder that speaks to EC2, EBS and Parameter Store through the AWS SDK.
//! Touches AWS.

mod client;
mod convert;
mod ebs;
mod end;
mod errors;
mod find;
mod launch;
#[cfg(test)]
pub(crate) mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{LocationType, ResourceType, Tag, VolumeType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use client::AwsCloud;
pub(crate) use client::pause;
pub(crate) use errors::{other, present, transient};

use super::{
    Cloud, CloudError, CloudErrorKind, ImageFacts, ImageId, ImageSpec, InstanceFacts, InstanceId, LaunchSpec,
    Resource, SnapshotFacts, SnapshotId, SnapshotSpec, Subnet, Tagged, VolumeFacts, VolumeId, VolumeSpec,
};

impl Cloud for AwsCloud {
    async fn account(&self) -> Result<String, CloudError> {
        const OPERATION: &str = "sts:GetCallerIdentity";
        let caller = self
            .send(OPERATION, |clients| clients.sts.get_caller_identity().send())
            .await?;
        present(OPERATION, "Account", caller.account)
    }

    async fn parameter(&self, name: &str) -> Result<Option<String>, CloudError> {
        const OPERATION: &str = "ssm:GetParameter";
        let answer = self
            .send(OPERATION, |clients| clients.ssm.get_parameter().name(name).send())
            .await;
        let Some(answer) = found(answer)? else {
            return Ok(None);
        };
        let parameter = present(OPERATION, "Parameter", answer.parameter)?;
        present(OPERATION, "Parameter.Value", parameter.value).map(Some)
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageFacts>, CloudError> {
        const OPERATION: &str = "ec2:DescribeImages";
        let answer = self
            .send(OPERATION, |clients| {
                clients
                    .ec2
                    .describe_images()
                    .image_ids(&id.0)
                    .include_deprecated(true)
                    .send()
            })
            .await;
        let images = found(answer)?
            .and_then(|answer| answer.images)
            .unwrap_or_default();
        match images.into_iter().next() {
            Some(image) => convert::image(OPERATION, image),
            None => Ok(None),
        }
    }

    async fn image_named(&self, name: &str) -> Result<Option<ImageFacts>, CloudError> {
        const OPERATION: &str = "ec2:DescribeImages";
        let answer = self
            .send(OPERATION, |clients| {
                let call = clients
                    .ec2
                    .describe_images()
                    .owners("self")
                    .include_deprecated(true);
                call.include_disabled(true)
                    .filters(convert::filter("name", name))
                    .send()
            })
            .await?;
        for image in answer.images.unwrap_or_default() {
            // A filter takes `*` and `?` for patterns; a name may hold neither, but a caller may pass anything.
            if image.name() == Some(name)
                && let Some(facts) = convert::image(OPERATION, image)?
            {
                return Ok(Some(facts));
            }
        }
        Ok(None)
    }

    async fn subnets(&self) -> Result<Vec<Subnet>, CloudError> {
        const OPERATION: &str = "ec2:DescribeSubnets";
        let subnets = self
            .send(OPERATION, |clients| {
                let call = clients
                    .ec2
                    .describe_subnets()
                    .filters(convert::filter("state", "available"));
                call.into_paginator().items().send().try_collect()
            })
            .await?;
        let subnets = subnets
            .into_iter()
            .map(|subnet| convert::subnet(OPERATION, subnet));
        let mut subnets: Vec<Subnet> = subnets.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        subnets.sort_by(|one, other| (&one.zone, &one.id).cmp(&(&other.zone, &other.id)));
        Ok(subnets)
    }

    async fn zones_offering(&self, instance_type: &str) -> Result<Vec<String>, CloudError> {
        const OPERATION: &str = "ec2:DescribeInstanceTypeOfferings";
        let offerings = self
            .send(OPERATION, |clients| {
                let call = clients
                    .ec2
                    .describe_instance_type_offerings()
                    .location_type(LocationType::AvailabilityZone)
                    .filters(convert::filter("instance-type", instance_type));
                call.into_paginator().items().send().try_collect()
            })
            .await?;
        let mut zones: Vec<String> = offerings
            .into_iter()
            .filter_map(|offering| offering.location)
            .collect();
        zones.sort();
        Ok(zones)
    }

    async fn may_launch(&self, spec: &LaunchSpec) -> Result<(), CloudError> {
        match self.run_instances(spec, true).await {
            Err(error) if error.code.as_deref() == Some("DryRunOperation") => Ok(()),
            Err(error) => Err(error),
            Ok(id) => {
                // AWS never launches here; an emulator that ignores DryRun must not leave a machine behind.
                self.delete(&Resource::Instance(id.clone())).await?;
                Err(other(
                    "ec2:RunInstances",
                    format!("the dry run launched {id}; it was ended"),
                ))
            }
        }
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<InstanceId, CloudError> {
        self.run_instances(spec, false).await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<InstanceFacts>, CloudError> {
        const OPERATION: &str = "ec2:DescribeInstances";
        let answer = self
            .send(OPERATION, |clients| {
                clients.ec2.describe_instances().instance_ids(&id.0).send()
            })
            .await;
        let reservations = found(answer)?
            .and_then(|answer| answer.reservations)
            .unwrap_or_default();
        let mut instances = reservations
            .into_iter()
            .flat_map(|found| found.instances.unwrap_or_default());
        instances
            .next()
            .map(|instance| convert::instance(OPERATION, instance))
            .transpose()
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), CloudError> {
        self.settled(&id.0, || {
            self.send("ec2:StopInstances", |clients| {
                clients.ec2.stop_instances().instance_ids(&id.0).send()
            })
        })
        .await?;
        Ok(())
    }

    async fn console(&self, id: &InstanceId) -> Result<String, CloudError> {
        const OPERATION: &str = "ec2:GetConsoleOutput";
        let ask = |latest: bool| {
            self.send(OPERATION, move |clients| {
                clients
                    .ec2
                    .get_console_output()
                    .instance_id(&id.0)
                    .latest(latest)
                    .send()
            })
        };
        // Only machines of the Nitro kind can give what is on the console now.
        let answer = match ask(true).await {
            Err(error) if error.code.as_deref() == Some("UnsupportedOperation") => ask(false).await?,
            answer => answer?,
        };
        let encoded: String = answer.output.unwrap_or_default().split_whitespace().collect();
        let bytes = BASE64
            .decode(encoded)
            .map_err(|error| other(OPERATION, format!("`Output` is not base64: {error}")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn start_snapshot(&self, spec: &SnapshotSpec) -> Result<SnapshotId, CloudError> {
        self.open_snapshot(spec).await
    }

    async fn put_block(&self, id: &SnapshotId, index: u32, data: Vec<u8>) -> Result<(), CloudError> {
        self.write_block(id, index, data).await
    }

    async fn complete_snapshot(&self, id: &SnapshotId, changed_blocks: u32) -> Result<(), CloudError> {
        self.seal_snapshot(id, changed_blocks).await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotFacts>, CloudError> {
        const OPERATION: &str = "ec2:DescribeSnapshots";
        let answer = self
            .send(OPERATION, |clients| {
                clients.ec2.describe_snapshots().snapshot_ids(&id.0).send()
            })
            .await;
        let snapshots = found(answer)?
            .and_then(|answer| answer.snapshots)
            .unwrap_or_default();
        snapshots
            .into_iter()
            .next()
            .map(|snapshot| convert::snapshot(OPERATION, snapshot))
            .transpose()
    }

    async fn snapshots_tagged(&self, key: &str, value: &str) -> Result<Vec<SnapshotFacts>, CloudError> {
        let tagged = convert::filter(&format!("tag:{key}"), value);
        let completed = convert::filter("status", "completed");
        let mut snapshots = self.own_snapshots(vec![tagged, completed]).await?;
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.start_time));
        snapshots
            .into_iter()
            .map(|snapshot| convert::snapshot("ec2:DescribeSnapshots", snapshot))
            .collect()
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeId, CloudError> {
        const OPERATION: &str = "ec2:CreateVolume";
        let answer = self
            .settled(&spec.snapshot.0, || {
                self.send(OPERATION, |clients| {
                    clients
                        .ec2
                        .create_volume()
                        .snapshot_id(&spec.snapshot.0)
                        .availability_zone(&spec.zone)
                        .volume_type(VolumeType::Gp3)
                        .tag_specifications(convert::tags_for(ResourceType::Volume, &spec.tags))
                        .client_token(&spec.token)
                        .send()
                })
            })
            .await?;
        let id = VolumeId(present(OPERATION, "VolumeId", answer.volume_id)?);
        self.made(&id.0);
        Ok(id)
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeFacts>, CloudError> {
        const OPERATION: &str = "ec2:DescribeVolumes";
        let answer = self
            .send(OPERATION, |clients| {
                clients.ec2.describe_volumes().volume_ids(&id.0).send()
            })
            .await;
        let volumes = found(answer)?
            .and_then(|answer| answer.volumes)
            .unwrap_or_default();
        match volumes.into_iter().next() {
            Some(volume) => convert::volume(OPERATION, volume),
            None => Ok(None),
        }
    }

    async fn attach(&self, volume: &VolumeId, instance: &InstanceId, device: &str) -> Result<(), CloudError> {
        self.attach_volume(volume, instance, device).await
    }

    async fn create_image(&self, spec: &ImageSpec) -> Result<ImageId, CloudError> {
        const OPERATION: &str = "ec2:CreateImage";
        let left_out = convert::left_out(spec);
        // No token exists for this call: if an answer is lost, the retry finds the name taken (kind `Duplicate`), and
        // the caller looks up the image of that name.
        let answer = self
            .send(OPERATION, |clients| {
                clients
                    .ec2
                    .create_image()
                    .instance_id(&spec.instance.0)
                    .name(&spec.name)
                    .description(&spec.description)
                    // The instance is stopped: nothing to reboot, and its disks are at rest.
                    .no_reboot(true)
                    .set_block_device_mappings(Some(left_out.clone()).filter(|mappings| !mappings.is_empty()))
                    .tag_specifications(convert::tags_for(ResourceType::Image, &spec.tags))
                    .tag_specifications(convert::tags_for(ResourceType::Snapshot, &spec.tags))
                    .send()
            })
            .await?;
        let id = ImageId(present(OPERATION, "ImageId", answer.image_id)?);
        self.made(&id.0);
        Ok(id)
    }

    async fn tag(&self, resource: &Resource, tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
        let tags = convert::ec2_tags(tags);
        self.settled(resource.id(), || {
            self.send("ec2:CreateTags", |clients| {
                clients
                    .ec2
                    .create_tags()
                    .resources(resource.id())
                    .set_tags(Some(tags.clone()))
                    .send()
            })
        })
        .await?;
        Ok(())
    }

    async fn untag(&self, resource: &Resource, keys: &[&str]) -> Result<(), CloudError> {
        // A tag without a value stands for any value of that key.
        let tags: Vec<Tag> = keys.iter().map(|key| Tag::builder().key(*key).build()).collect();
        self.settled(resource.id(), || {
            self.send("ec2:DeleteTags", |clients| {
                clients
                    .ec2
                    .delete_tags()
                    .resources(resource.id())
                    .set_tags(Some(tags.clone()))
                    .send()
            })
        })
        .await?;
        Ok(())
    }

    async fn delete(&self, resource: &Resource) -> Result<(), CloudError> {
        self.end(resource).await
    }

    async fn tagged(&self, key: &str, value: Option<&str>) -> Result<Vec<Tagged>, CloudError> {
        self.find_tagged(key, value).await
    }
}

/// 'Not found' as an answer, not a failure.
fn found<T>(result: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == CloudErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
