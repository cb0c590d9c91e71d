//! Owns how what a user says of disks becomes a request to the room that mounts them.
//! Touches nothing.

use super::node_config::{DiskConfig, EfsConfig, InstanceStoreConfig, NodeConfig};
use super::values::{self, MountOptions};
use crate::node::disks::{DiskSource, DiskSpec, EfsSpec, EfsTarget, FileSystem, Format, Request, RootAccess};
use crate::node::sources::InstanceFacts;

/// Everything that the configuration says about disks.
pub(super) fn request(config: &NodeConfig, facts: &InstanceFacts) -> Request {
    let disks = config.disks.iter().filter_map(disk);
    let own = config.instance_store.iter().map(instance_store);
    Request {
        disks: disks.chain(own).collect(),
        efs: config.efs.iter().map(|efs| elastic(efs, facts)).collect(),
        whole: true,
    }
}

/// None for a disk without a name, which `rules` refuses.
fn disk(config: &DiskConfig) -> Option<DiskSpec> {
    let volume = config
        .volume
        .as_ref()
        .map(|volume| DiskSource::Volume(volume.to_string()));
    let device = config
        .device
        .as_ref()
        .map(|device| DiskSource::Device(device.to_string()));
    Some(DiskSpec {
        file_system: file_system(config.file_system),
        // Never is what a user gets who says nothing: a disk may hold what nobody thought of.
        format: match config.format {
            Some(values::Format::IfBlank) => Format::IfBlank,
            Some(values::Format::Never) | None => Format::Never,
        },
        options: options(config.options.as_ref()),
        grow: config.grow.unwrap_or(true),
        root: RootAccess {
            owner: config.owner.as_ref().map(ToString::to_string),
            ..RootAccess::default()
        },
        ..DiskSpec::new(volume.or(device)?, config.mount.as_str())
    })
}

/// Its content goes with the instance, so that it is always blank at first and may always be formatted.
fn instance_store(config: &InstanceStoreConfig) -> DiskSpec {
    DiskSpec {
        file_system: file_system(config.file_system),
        format: Format::IfBlank,
        ..DiskSpec::new(DiskSource::InstanceStore { raid0: true }, config.mount.as_str())
    }
}

fn elastic(config: &EfsConfig, facts: &InstanceFacts) -> EfsSpec {
    EfsSpec {
        target: EfsTarget::Id {
            id: config.file_system.to_string(),
            region: facts.region.clone(),
            domain: facts.domain.clone(),
        },
        access_point: config.access_point.as_ref().map(ToString::to_string),
        mount_point: config.mount.to_string(),
        tls: config.tls.unwrap_or(true),
        iam: config.iam.unwrap_or(false),
        options: options(config.options.as_ref()),
    }
}

fn file_system(given: Option<values::FileSystem>) -> FileSystem {
    match given {
        Some(values::FileSystem::Ext4) => FileSystem::Ext4,
        Some(values::FileSystem::Xfs) | None => FileSystem::Xfs,
    }
}

fn options(given: Option<&MountOptions>) -> Vec<String> {
    let options = given.map(MountOptions::as_str).unwrap_or_default();
    let words = options.split(',').filter(|option| !option.is_empty());
    words.map(str::to_owned).collect()
}
