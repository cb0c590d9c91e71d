//! Owns the values that cross the port `Cloud`: ids, specifications, facts and the one error.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<$name> for Resource {
            fn from(id: $name) -> Self {
                Self::$kind(id)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }
    };
}

id!(
    /// `ami-…`
    ImageId,
    Image
);
id!(
    /// `i-…`
    InstanceId,
    Instance
);
id!(
    /// `snap-…`
    SnapshotId,
    Snapshot
);
id!(
    /// `vol-…`
    VolumeId,
    Volume
);

/// Something that a bake made and that costs money until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum Resource {
    /// An instance.
    Instance(InstanceId),
    /// A volume.
    Volume(VolumeId),
    /// A snapshot.
    Snapshot(SnapshotId),
    /// An image; deleting it deletes its snapshots too.
    Image(ImageId),
}

impl Resource {
    /// The id as AWS writes it.
    pub fn id(&self) -> &str {
        match self {
            Self::Instance(id) => &id.0,
            Self::Volume(id) => &id.0,
            Self::Snapshot(id) => &id.0,
            Self::Image(id) => &id.0,
        }
    }

    /// The kind in the words of messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Instance(_) => "instance",
            Self::Volume(_) => "volume",
            Self::Snapshot(_) => "snapshot",
            Self::Image(_) => "image",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), self.id())
    }
}

/// A resource found by its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// What it is.
    pub resource: Resource,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
}

/// An instance to launch, with no choice left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaunchSpec {
    /// Image to boot.
    pub image: ImageId,
    /// Instance type.
    pub instance_type: String,
    /// Subnet; none launches into the default network.
    pub subnet: Option<String>,
    /// Name of an instance profile, for the SSM agent; none relies on Default Host Management Configuration.
    pub profile: Option<String>,
    /// Security groups by id; none takes the network's default group. No inbound rule is needed.
    pub security_groups: Vec<String>,
    /// Raw user data, at most 16 KiB.
    pub user_data: String,
    /// Root device name and size in GiB; none keeps what the image says.
    pub root_volume: Option<RootVolume>,
    /// Further volumes made from snapshots at launch, deleted with the instance.
    pub volumes: Vec<LaunchVolume>,
    /// Whether the metadata service shows tags.
    pub instance_tags: bool,
    /// Whether the metadata service demands session tokens (IMDSv2).
    pub token_required: bool,
    /// Whether a shutdown from inside terminates the instance (else it stops).
    pub terminate_on_shutdown: bool,
    /// Tags of the instance and its volumes.
    pub tags: BTreeMap<String, String>,
    /// Idempotency token, at most 64 ASCII characters.
    pub token: String,
}

/// Root volume of an instance to launch: gp3, deleted with the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootVolume {
    /// Device name as the image has it, such as `/dev/xvda`.
    pub device: String,
    /// Size in GiB.
    pub size_gib: u32,
}

/// A volume made from a snapshot at launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaunchVolume {
    /// Device name, such as `/dev/sdf`.
    pub device: String,
    /// Snapshot that it is made from.
    pub snapshot: SnapshotId,
}

/// A snapshot to start, whose blocks come through the EBS direct APIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Size of the volume in GiB.
    pub size_gib: u32,
    /// Description.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Idempotency token.
    pub token: String,
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Snapshot that it is made from.
    pub snapshot: SnapshotId,
    /// Availability zone.
    pub zone: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Idempotency token.
    pub token: String,
}

/// An image to make of a stopped instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// The instance.
    pub instance: InstanceId,
    /// Name, unique in region and account.
    pub name: String,
    /// Description, at most 255 characters.
    pub description: String,
    /// Devices that are no part of the image.
    pub without_devices: Vec<String>,
    /// Tags of the image and its snapshots.
    pub tags: BTreeMap<String, String>,
}

/// What EC2 says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageFacts {
    /// Id.
    pub id: ImageId,
    /// Name.
    pub name: String,
    /// Description, empty if there is none.
    pub description: String,
    /// State.
    pub state: ImageState,
    /// Why it failed, if EC2 says so.
    pub reason: Option<String>,
    /// Account that owns it.
    pub owner: String,
    /// Name of that account where EC2 knows it, such as `amazon`.
    pub owner_alias: Option<String>,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// When it was made, as EC2 writes it (ISO 8601).
    pub created: String,
    /// Device name of the root volume.
    pub root_device: String,
    /// Size of the root volume in GiB.
    pub root_size_gib: u32,
    /// Snapshots behind its volumes.
    pub snapshots: Vec<SnapshotId>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// State of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageState {
    /// It is being made.
    Pending,
    /// It can be launched.
    Available,
    /// It will never be available.
    Failed,
}

/// What EC2 says of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Id.
    pub id: InstanceId,
    /// State.
    pub state: InstanceState,
    /// Why it is in that state, if EC2 says so.
    pub reason: Option<String>,
    /// Availability zone.
    pub zone: String,
    /// Device name and volume of each attached volume.
    pub volumes: Vec<(String, VolumeId)>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl InstanceFacts {
    /// The volume at a device, by the name that it was attached under.
    pub fn volume_at(&self, device: &str) -> Option<&VolumeId> {
        self.volumes
            .iter()
            .find(|(name, _)| name == device)
            .map(|(_, volume)| volume)
    }
}

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// Not running yet.
    Pending,
    /// Running.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Stopped; its disks are at rest.
    Stopped,
    /// On its way to terminated, or gone.
    Terminated,
}

/// What EC2 says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Id.
    pub id: SnapshotId,
    /// State.
    pub state: SnapshotState,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// State of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// It is being made.
    Pending,
    /// Volumes can be made from it.
    Completed,
    /// It will never be completed.
    Failed,
}

/// What EC2 says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Id.
    pub id: VolumeId,
    /// State.
    pub state: VolumeState,
}

/// State of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// It is being made.
    Creating,
    /// It can be attached.
    Available,
    /// It is attached, or being attached.
    InUse,
    /// It will never be available, or is being deleted.
    Failed,
}

/// A subnet that a machine can be launched into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// Id, `subnet-…`.
    pub id: String,
    /// Availability zone.
    pub zone: String,
    /// Whether it is its zone's default subnet.
    pub default_for_zone: bool,
}

/// A call to AWS was refused or failed, after the retries that make sense.
#[derive(Debug, Clone, Error)]
#[error("{operation}: {message}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct CloudError {
    /// Operation in AWS's words, such as `ec2:RunInstances`.
    pub operation: &'static str,
    /// What kind of failure it is; hints and exit codes go by it.
    pub kind: CloudErrorKind,
    /// AWS's error code, such as `UnauthorizedOperation`.
    pub code: Option<String>,
    /// AWS's message, or what the transport said.
    pub message: String,
    /// AWS's request id, for support cases.
    pub request_id: Option<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudErrorKind {
    /// A setting of the user's is missing or wrong: region, profile, certificates.
    Configuration,
    /// No credentials were found.
    NoCredentials,
    /// The credentials have expired or are not valid.
    BadCredentials,
    /// The endpoint could not be reached.
    Unreachable,
    /// The caller may not do this.
    Denied,
    /// Too many requests, still after retries.
    Throttled,
    /// No such resource.
    NotFound,
    /// The name is taken.
    Duplicate,
    /// The resource is in use by another.
    InUse,
    /// The zone has no capacity for the instance type.
    Capacity,
    /// Anything else.
    Other,
}
