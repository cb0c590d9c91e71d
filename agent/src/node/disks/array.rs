//! Owns what instance-store disks are together: a running array, one to start, one to make, or nothing safe.
//! Touches nothing.

use super::evidence;
use super::observe::{Looked, ObservedDisk};
use super::spec::Format;
use super::step::{DeviceRef, Step};

/// What several instance-store disks are together.
pub(super) enum Joined<'a> {
    /// Their array runs: it is the disk.
    Running(&'a Looked),
    /// They are joined by this step first.
    Join {
        /// The step.
        step: Step,
        /// Why.
        reason: String,
    },
    /// Nothing may be done.
    Refuse(Vec<String>),
}

/// Decides for two or more disks.
pub(super) fn joined(raid0: bool, format: Format, disk: &ObservedDisk) -> Joined<'_> {
    let looked = &disk.looked;
    if let Some(array) = &disk.array {
        return Joined::Running(array);
    }
    let count = looked.len();
    if !raid0 {
        let reason = format!("there are {count} instance-store disks, and joining them is not configured");
        return Joined::Refuse(vec![reason]);
    }
    let members = || {
        looked
            .iter()
            .map(|looked| DeviceRef::of(&looked.device))
            .collect()
    };
    let first = looked.first().and_then(|looked| looked.evidence.raid.as_ref());
    if let Some(first) = first {
        let same = looked
            .iter()
            .all(|looked| looked.evidence.raid.as_ref() == Some(first));
        let free = looked
            .iter()
            .all(|looked| looked.device.holders.is_empty() && looked.device.mounts.is_empty());
        if same && free && first.level == 0 && first.members as usize == count {
            return Joined::Join {
                step: Step::AssembleArray {
                    members: members(),
                    array: first.array,
                },
                reason: format!(
                    "all {count} disks are members of the RAID 0 {}, which does not run",
                    first.array
                ),
            };
        }
    }
    let objections: Vec<String> = looked
        .iter()
        .flat_map(|looked| {
            let objections = evidence::objections(&looked.device, &looked.evidence, &[]);
            let name = &looked.device.name;
            objections
                .into_iter()
                .map(move |objection| format!("{name}: {objection}"))
        })
        .collect();
    if !objections.is_empty() {
        return Joined::Refuse(objections);
    }
    if format == Format::Never {
        let reason =
            format!("the {count} disks are blank, and the configuration says that they are never formatted");
        return Joined::Refuse(vec![reason]);
    }
    Joined::Join {
        step: Step::CreateArray { members: members() },
        reason: format!("all {count} disks are blank; their array is then formatted if it is blank"),
    }
}
