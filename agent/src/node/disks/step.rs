//! Owns the steps by which disks become mounted file systems: each has one effect, so that a run can die only
//! between steps.
//! Touches nothing.

use std::fmt;

use serde::Serialize;

use super::inventory::BlockDevice;
use super::spec::FileSystem;
use super::units::MountEntry;
use super::uuid::Uuid;

/// A device, and how to be sure that it is still the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRef {
    /// Kernel's name.
    pub name: String,
    /// Device number.
    pub number: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Volume id or serial number, where it has one.
    pub identity: Option<String>,
    /// The kernel's number of this attachment, where it counts.
    pub sequence: Option<u64>,
    /// Devices that it is made of.
    pub slaves: Vec<String>,
}

impl DeviceRef {
    /// This device as it is now.
    pub fn of(device: &BlockDevice) -> Self {
        Self {
            name: device.name.clone(),
            number: device.number,
            size: device.size,
            identity: device.stable_identity(),
            sequence: device.sequence,
            slaves: device.slaves.clone(),
        }
    }

    /// Path of its node.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Make a RAID 0 of blank disks.
    CreateArray {
        /// The disks.
        members: Vec<DeviceRef>,
    },
    /// Start a RAID 0 that is on these disks.
    AssembleArray {
        /// The disks.
        members: Vec<DeviceRef>,
        /// UUID of the array.
        array: Uuid,
    },
    /// Make a file system on a disk that is blank at that moment.
    Format {
        /// The disk.
        device: DeviceRef,
        /// What is made.
        file_system: FileSystem,
        /// UUID that it gets.
        uuid: Uuid,
        /// Label that it gets.
        label: Option<String>,
    },
    /// Write a file that says what is mounted at boot.
    Write {
        /// Path.
        path: String,
        /// Content.
        #[serde(skip)]
        content: String,
    },
    /// Remove such a file.
    Remove {
        /// Path.
        path: String,
    },
    /// Let systemd read its units anew.
    ReloadDefinitions,
    /// Make a unit start at boot.
    Enable {
        /// Unit.
        unit: String,
    },
    /// Keep a unit from starting at boot.
    Disable {
        /// Unit.
        unit: String,
    },
    /// Make the directory of a mount point.
    MakeFolder {
        /// Path.
        path: String,
    },
    /// Mount.
    Mount {
        /// What, where, how.
        entry: MountEntry,
        /// The disk that it is now; none for a network file system.
        device: Option<DeviceRef>,
    },
    /// Grow a mounted file system to the size of its disk.
    Grow {
        /// The disk.
        device: DeviceRef,
        /// What is grown.
        file_system: FileSystem,
        /// Where it is mounted.
        mount_point: String,
    },
    /// Set owner, group and mode of the mounted root.
    SetAccess {
        /// Where it is mounted.
        mount_point: String,
        /// User by number.
        user: Option<u32>,
        /// Group by number.
        group: Option<u32>,
        /// Permission bits.
        mode: Option<u32>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |members: &[DeviceRef]| {
            let paths: Vec<String> = members.iter().map(DeviceRef::path).collect();
            paths.join(", ")
        };
        match self {
            Self::CreateArray { members } => write!(formatter, "make a RAID 0 of {}", names(members)),
            Self::AssembleArray { members, array } => {
                write!(formatter, "start the RAID 0 {array} of {}", names(members))
            }
            Self::Format {
                device,
                file_system,
                uuid,
                label,
            } => {
                write!(formatter, "make {file_system} on {} (UUID {uuid}", device.path())?;
                if let Some(label) = label {
                    write!(formatter, ", label {label}")?;
                }
                formatter.write_str(")")
            }
            Self::Write { path, .. } => write!(formatter, "write {path}"),
            Self::Remove { path } => write!(formatter, "remove {path}"),
            Self::ReloadDefinitions => formatter.write_str("reload the service manager's definitions"),
            Self::Enable { unit } => write!(formatter, "enable {unit}"),
            Self::Disable { unit } => write!(formatter, "disable {unit}"),
            Self::MakeFolder { path } => write!(formatter, "make the folder {path}"),
            Self::Mount { entry, device } => {
                write!(formatter, "mount {}", entry.source())?;
                if let Some(device) = device {
                    write!(formatter, " ({})", device.path())?;
                }
                write!(formatter, " at {}", entry.point)
            }
            Self::Grow {
                device,
                file_system,
                mount_point,
            } => write!(
                formatter,
                "grow the {file_system} at {mount_point} to the {} MiB of {}",
                device.size >> 20,
                device.path()
            ),
            Self::SetAccess {
                mount_point,
                user,
                group,
                mode,
            } => {
                write!(formatter, "set of {mount_point}:")?;
                if let Some(user) = user {
                    write!(formatter, " owner {user}")?;
                }
                if let Some(group) = group {
                    write!(formatter, " group {group}")?;
                }
                mode.map_or(Ok(()), |mode| write!(formatter, " mode {mode:04o}"))
            }
        }
    }
}

/// A step and the mount point that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Mount point; none for a step that several share.
    pub mount_point: Option<String>,
    /// The step.
    #[serde(flatten)]
    pub step: Step,
}

impl Planned {
    /// A step for one mount point.
    pub(super) fn of(mount_point: &str, step: Step) -> Self {
        Self {
            mount_point: Some(mount_point.to_owned()),
            step,
        }
    }

    /// A step for all of them.
    pub(super) fn shared(step: Step) -> Self {
        Self {
            mount_point: None,
            step,
        }
    }
}
