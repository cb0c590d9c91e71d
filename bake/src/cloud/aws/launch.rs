//! Owns what makes a machine of EC2: its launch, and the volumes that are attached to it.
//! Touches AWS.

use std::time::Duration;

use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, IamInstanceProfileSpecification,
    InstanceBlockDeviceMappingSpecification, ResourceType, ShutdownBehavior,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::client::{AwsCloud, pause};
use super::convert;
use super::errors::present;
use crate::cloud::{Cloud, CloudError, CloudErrorKind, InstanceId, LaunchSpec, VolumeId};

impl AwsCloud {
    pub(super) async fn run_instances(
        &self,
        spec: &LaunchSpec,
        dry_run: bool,
    ) -> Result<InstanceId, CloudError> {
        const OPERATION: &str = "ec2:RunInstances";
        let devices = convert::launch_devices(OPERATION, spec)?;
        let profile = spec
            .profile
            .as_ref()
            .map(|name| IamInstanceProfileSpecification::builder().name(name).build());
        let shutdown = if spec.terminate_on_shutdown {
            ShutdownBehavior::Terminate
        } else {
            ShutdownBehavior::Stop
        };
        let user_data = Some(BASE64.encode(&spec.user_data)).filter(|encoded| !encoded.is_empty());
        let answer = self
            .send(OPERATION, |clients| {
                clients
                    .ec2
                    .run_instances()
                    .min_count(1)
                    .max_count(1)
                    .image_id(&spec.image.0)
                    .instance_type(spec.instance_type.as_str().into())
                    .set_subnet_id(spec.subnet.clone())
                    .set_security_group_ids(
                        Some(spec.security_groups.clone()).filter(|groups| !groups.is_empty()),
                    )
                    .set_iam_instance_profile(profile.clone())
                    .set_user_data(user_data.clone())
                    .set_block_device_mappings(Some(devices.clone()).filter(|devices| !devices.is_empty()))
                    .metadata_options(convert::metadata_options(spec))
                    .instance_initiated_shutdown_behavior(shutdown.clone())
                    .tag_specifications(convert::tags_for(ResourceType::Instance, &spec.tags))
                    .tag_specifications(convert::tags_for(ResourceType::Volume, &spec.tags))
                    .tag_specifications(convert::tags_for(ResourceType::NetworkInterface, &spec.tags))
                    .set_client_token((!dry_run).then(|| spec.token.clone()))
                    .set_dry_run(dry_run.then_some(true))
                    .send()
            })
            .await?;
        let instance = answer.instances.unwrap_or_default().into_iter().next();
        let id = instance.and_then(|instance| instance.instance_id);
        let id = InstanceId(present(OPERATION, "Instances[0].InstanceId", id)?);
        self.made(&id.0);
        Ok(id)
    }

    pub(super) async fn attach_volume(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device: &str,
    ) -> Result<(), CloudError> {
        let attached = self
            .settled(&volume.0, || {
                self.send("ec2:AttachVolume", |clients| {
                    let call = clients.ec2.attach_volume().volume_id(&volume.0);
                    call.instance_id(&instance.0).device(device).send()
                })
            })
            .await;
        match attached {
            Ok(_) => {}
            // A retry after a lost answer finds its own work.
            Err(error) if error.kind == CloudErrorKind::InUse => {
                let facts = self.instance(instance).await?;
                if facts.is_none_or(|facts| facts.volume_at(device) != Some(volume)) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        self.delete_with_instance(volume, instance, device).await
    }

    /// Right after AttachVolume, EC2 may not know the device yet.
    async fn delete_with_instance(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device: &str,
    ) -> Result<(), CloudError> {
        const ATTEMPTS: u32 = 8;
        let disk = EbsInstanceBlockDeviceSpecification::builder()
            .volume_id(&volume.0)
            .delete_on_termination(true)
            .build();
        let mapping = InstanceBlockDeviceMappingSpecification::builder()
            .device_name(device)
            .ebs(disk)
            .build();
        let mut attempt = 0;
        loop {
            let set = self.send("ec2:ModifyInstanceAttribute", |clients| {
                let call = clients.ec2.modify_instance_attribute().instance_id(&instance.0);
                call.block_device_mappings(mapping.clone()).send()
            });
            match set.await {
                Ok(_) => return Ok(()),
                Err(error)
                    if attempt < ATTEMPTS
                        && error.code.as_deref() == Some("InvalidInstanceAttributeValue") =>
                {
                    pause(attempt, Duration::from_secs(4)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
