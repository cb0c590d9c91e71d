//! Owns the way between our words and EC2's: specifications become requests, answers become facts.
//! Touches nothing.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, HttpTokensState, Image, ImageState as Ec2ImageState,
    Instance, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceMetadataTagsState,
    InstanceStateName, ResourceType, Snapshot, SnapshotState as Ec2SnapshotState, Subnet as Ec2Subnet, Tag,
    TagSpecification, Volume, VolumeState as Ec2VolumeState, VolumeType,
};

use super::errors::{other, present};
use crate::cloud::{
    CloudError, ImageFacts, ImageId, ImageSpec, ImageState, InstanceFacts, InstanceId, InstanceState,
    LaunchSpec, SnapshotFacts, SnapshotId, SnapshotState, Subnet, VolumeFacts, VolumeId, VolumeState,
};

/// Hops that an answer of the metadata service may take: 2 reaches a container on the builder.
const HOP_LIMIT: i32 = 2;

pub(super) fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

pub(super) fn ec2_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

pub(super) fn tags_for(resource: ResourceType, tags: &BTreeMap<String, String>) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(ec2_tags(tags)))
        .build()
}

pub(super) fn tag_map(tags: &[Tag]) -> BTreeMap<String, String> {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    tags.iter()
        .map(|tag| (text(tag.key()), text(tag.value())))
        .collect()
}

/// Metadata options of an instance, every choice made: the defaults depend on image and account.
pub(super) fn metadata_options(spec: &LaunchSpec) -> InstanceMetadataOptionsRequest {
    let tokens = if spec.token_required {
        HttpTokensState::Required
    } else {
        HttpTokensState::Optional
    };
    let tags = if spec.instance_tags {
        InstanceMetadataTagsState::Enabled
    } else {
        InstanceMetadataTagsState::Disabled
    };
    InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(tokens)
        .http_put_response_hop_limit(HOP_LIMIT)
        .instance_metadata_tags(tags)
        .build()
}

/// Disks of an instance; each goes with it.
pub(super) fn launch_devices(
    operation: &'static str,
    spec: &LaunchSpec,
) -> Result<Vec<BlockDeviceMapping>, CloudError> {
    let device =
        |name: &str, disk: EbsBlockDevice| BlockDeviceMapping::builder().device_name(name).ebs(disk).build();
    let disk = || {
        EbsBlockDevice::builder()
            .volume_type(VolumeType::Gp3)
            .delete_on_termination(true)
    };
    let mut devices = Vec::new();
    if let Some(root) = &spec.root_volume {
        let size = i32::try_from(root.size_gib).map_err(|_| {
            other(
                operation,
                format!("root volume of {} GiB is too large", root.size_gib),
            )
        })?;
        devices.push(device(&root.device, disk().volume_size(size).build()));
    }
    for volume in &spec.volumes {
        devices.push(device(
            &volume.device,
            disk().snapshot_id(&volume.snapshot.0).build(),
        ));
    }
    Ok(devices)
}

/// Devices that an image leaves out. EC2 takes the empty text for 'no such device'.
pub(super) fn left_out(spec: &ImageSpec) -> Vec<BlockDeviceMapping> {
    let without = |device: &String| {
        BlockDeviceMapping::builder()
            .device_name(device)
            .no_device("")
            .build()
    };
    spec.without_devices.iter().map(without).collect()
}

/// Facts of an image; none if it is deregistered, which EC2 shows for a while.
pub(super) fn image(operation: &'static str, image: Image) -> Result<Option<ImageFacts>, CloudError> {
    let state = match present(operation, "State", image.state)? {
        Ec2ImageState::Available => ImageState::Available,
        Ec2ImageState::Pending | Ec2ImageState::Transient => ImageState::Pending,
        Ec2ImageState::Deregistered => return Ok(None),
        _ => ImageState::Failed,
    };
    let root_device = image.root_device_name.unwrap_or_default();
    let mut snapshots = Vec::new();
    let mut root_size_gib = 0;
    for mapping in image.block_device_mappings.unwrap_or_default() {
        let Some(disk) = mapping.ebs else { continue };
        if mapping.device_name.as_deref() == Some(root_device.as_str()) {
            root_size_gib = disk
                .volume_size
                .and_then(|size| u32::try_from(size).ok())
                .unwrap_or_default();
        }
        snapshots.extend(disk.snapshot_id.map(SnapshotId));
    }
    let reason = image.state_reason.and_then(|reason| reason.message);
    Ok(Some(ImageFacts {
        id: ImageId(present(operation, "ImageId", image.image_id)?),
        name: image.name.unwrap_or_default(),
        description: image.description.unwrap_or_default(),
        state,
        reason,
        owner: image.owner_id.unwrap_or_default(),
        owner_alias: image.image_owner_alias,
        architecture: present(operation, "Architecture", image.architecture)?
            .as_str()
            .to_owned(),
        created: image.creation_date.unwrap_or_default(),
        root_device,
        root_size_gib,
        snapshots,
        tags: tag_map(&image.tags.unwrap_or_default()),
    }))
}

pub(super) fn instance(operation: &'static str, instance: Instance) -> Result<InstanceFacts, CloudError> {
    let state = present(operation, "State", instance.state.and_then(|state| state.name))?;
    let state = match state {
        InstanceStateName::Pending => InstanceState::Pending,
        InstanceStateName::Running => InstanceState::Running,
        InstanceStateName::Stopping => InstanceState::Stopping,
        InstanceStateName::Stopped => InstanceState::Stopped,
        InstanceStateName::ShuttingDown | InstanceStateName::Terminated => InstanceState::Terminated,
        unknown => return Err(other(operation, format!("unknown instance state `{unknown}`"))),
    };
    let reason = instance
        .state_reason
        .and_then(|reason| reason.message)
        .or(instance.state_transition_reason)
        .filter(|reason| !reason.is_empty());
    let mut volumes = Vec::new();
    for mapping in instance.block_device_mappings.unwrap_or_default() {
        let volume = mapping.ebs.and_then(|disk| disk.volume_id);
        volumes.extend(mapping.device_name.zip(volume.map(VolumeId)));
    }
    Ok(InstanceFacts {
        id: InstanceId(present(operation, "InstanceId", instance.instance_id)?),
        state,
        reason,
        zone: present(
            operation,
            "AvailabilityZone",
            instance
                .placement
                .and_then(|placement| placement.availability_zone),
        )?,
        volumes,
        tags: tag_map(&instance.tags.unwrap_or_default()),
    })
}

pub(super) fn snapshot(operation: &'static str, snapshot: Snapshot) -> Result<SnapshotFacts, CloudError> {
    let state = match present(operation, "State", snapshot.state)? {
        Ec2SnapshotState::Pending => SnapshotState::Pending,
        Ec2SnapshotState::Completed => SnapshotState::Completed,
        _ => SnapshotState::Failed,
    };
    Ok(SnapshotFacts {
        id: SnapshotId(present(operation, "SnapshotId", snapshot.snapshot_id)?),
        state,
        tags: tag_map(&snapshot.tags.unwrap_or_default()),
    })
}

/// Facts of a volume; none if it is gone, which EC2 shows for a while.
pub(super) fn volume(operation: &'static str, volume: Volume) -> Result<Option<VolumeFacts>, CloudError> {
    let state = match present(operation, "State", volume.state)? {
        Ec2VolumeState::Creating => VolumeState::Creating,
        Ec2VolumeState::Available => VolumeState::Available,
        Ec2VolumeState::InUse => VolumeState::InUse,
        Ec2VolumeState::Deleted => return Ok(None),
        _ => VolumeState::Failed,
    };
    Ok(Some(VolumeFacts {
        id: VolumeId(present(operation, "VolumeId", volume.volume_id)?),
        state,
    }))
}

/// A subnet; none if all its addresses are taken.
pub(super) fn subnet(operation: &'static str, subnet: Ec2Subnet) -> Result<Option<Subnet>, CloudError> {
    if subnet.available_ip_address_count == Some(0) {
        return Ok(None);
    }
    Ok(Some(Subnet {
        id: present(operation, "SubnetId", subnet.subnet_id)?,
        zone: present(operation, "AvailabilityZone", subnet.availability_zone)?,
        default_for_zone: subnet.default_for_az.unwrap_or(false),
    }))
}
