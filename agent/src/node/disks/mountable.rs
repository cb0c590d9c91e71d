//! Owns whether what seems to be the right file system may be mounted: the right superblock alone is not enough.
//! Touches nothing.

use super::evidence::{Blkid, Evidence, Exclusive};
use super::inventory::BlockDevice;
use super::observe::Observed;
use super::probe::{Class, FoundFileSystem, Signature};
use super::spec::DiskSpec;

/// Everything that speaks against mounting what seems to be the right file system.
pub(super) fn against_mounting(
    spec: &DiskSpec,
    device: &BlockDevice,
    evidence: &Evidence,
    found: &FoundFileSystem,
    made_of: &[String],
    observed: &Observed,
) -> Vec<String> {
    let mut against = Vec::new();
    let mut object = |yes: bool, reason: String| {
        if yes {
            against.push(reason);
        }
    };
    object(
        !device.mounts.is_empty(),
        format!("it is mounted at {}", device.mounts.join(", ")),
    );
    object(
        !device.holders.is_empty(),
        format!("{} is made of it", device.holders.join(", ")),
    );
    object(
        device.slaves != made_of,
        format!("it is made of {}", device.slaves.join(", ")),
    );
    object(
        !device.partitions.is_empty(),
        format!(
            "it has partitions ({}): name one of them",
            device.partitions.join(", ")
        ),
    );
    object(device.swap, "it is swapped on".to_owned());
    let unexplained =
        evidence.exclusive == Exclusive::Busy && device.mounts.is_empty() && device.holders.is_empty();
    object(unexplained && !device.swap, "somebody has claimed it".to_owned());
    if let Some(why) = &evidence.unreadable {
        object(true, format!("it cannot be read: {why}"));
    }
    object(
        found.unfinished,
        "mkfs.xfs, or another tool for all of it, did not come to its end on it".to_owned(),
    );
    object(
        found.size > device.size,
        format!(
            "its {} has {} bytes, and the disk only {}",
            found.name, found.size, device.size
        ),
    );
    for Signature { kind, offset, .. } in evidence
        .signatures
        .iter()
        .filter(|signature| contradicts(signature, found))
    {
        object(
            true,
            format!("it also has a signature of {kind} at byte {offset}"),
        );
    }
    match &evidence.blkid {
        Blkid::Ambivalent => object(true, "blkid finds several things on it".to_owned()),
        Blkid::Nothing => object(true, format!("blkid finds no {} on it", found.name)),
        Blkid::Found(_) if evidence.blkid.kind() != Some(found.name) => {
            object(
                true,
                format!(
                    "blkid takes it for {}",
                    evidence.blkid.kind().unwrap_or("something else")
                ),
            );
        }
        Blkid::Found(_) | Blkid::Absent | Blkid::Failed(_) => {}
    }
    if let Some(label) = &spec.label {
        object(
            *label != found.label,
            format!("its label is {:?}, and {label:?} is configured", found.label),
        );
    }
    let others: Vec<&str> = observed
        .uuids
        .iter()
        .filter(|(name, uuid)| *uuid == found.uuid && *name != device.name)
        .map(|(name, _)| name.as_str())
        .collect();
    object(
        !others.is_empty(),
        format!(
            "{} has the same UUID, so that a mount by UUID may take either",
            others.join(", ")
        ),
    );
    against
}

/// Whether a signature is more than another sign of the same file system. The second copy of a partition table may
/// be left from before: the file system came later, and was made on the whole disk.
fn contradicts(signature: &Signature, found: &FoundFileSystem) -> bool {
    match signature.class {
        Class::FileSystem => {
            let same =
                signature.kind == found.name || (signature.kind == "ext" && found.name.starts_with("ext"));
            !same
        }
        Class::PartitionTable => !signature.backup,
        Class::Member | Class::Swap => true,
    }
}
