//! Owns what is done with each disk, and why, as data: the decision, its reasons, the evidence, and the steps.
//! Touches nothing.

use serde::Serialize;

use super::array::{self, Joined};
use super::efs;
use super::evidence::{self, Blkid, Evidence};
use super::inventory::BlockDevice;
use super::matching::Match;
use super::mountable;
use super::observe::{Looked, Observed, ObservedDisk, ObservedPoint};
use super::order;
use super::probe::FoundFileSystem;
use super::spec::{DiskSource, DiskSpec, Format, Request, RootAccess};
use super::step::{DeviceRef, Planned, Step};

use super::units::{self, MountEntry, What};
use super::uuid::Uuid;

/// What is done with a disk or a network file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It is mounted where it should be.
    Keep,
    /// It has the right file system, which is mounted.
    Mount,
    /// It is blank: it gets a file system, which is mounted.
    Format,
    /// Disks are joined first; what then comes depends on what they hold together.
    Join,
    /// Nothing, for the reasons given.
    Refuse,
    /// There is no such disk.
    Missing,
}

/// The plan for one mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// Where.
    pub mount_point: String,
    /// What the configuration calls it.
    pub source: String,
    /// Path of the device that it is.
    pub device: Option<String>,
    /// What is done.
    pub decision: Decision,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// What the reader should know though it is no fault.
    pub notes: Vec<String>,
    /// The mount as it is written down, where it is known.
    pub entry: Option<MountEntry>,
    /// Every device that was looked at, with what is known of it.
    pub looked: Vec<Looked>,
}

/// The plan for all disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One for each mount point of the request: disks first, then EFS.
    pub mounts: Vec<MountPlan>,
    /// All steps, in order; none if everything is as it should be.
    pub steps: Vec<Planned>,
}

impl Plan {
    /// Mounts that will not be there.
    pub fn refused(&self) -> impl Iterator<Item = &MountPlan> {
        let refused = |mount: &&MountPlan| matches!(mount.decision, Decision::Refuse | Decision::Missing);
        self.mounts.iter().filter(refused)
    }
}

/// A file system that ends this far before its disk is grown: EBS volumes grow by whole gigabytes, and both file
/// systems may leave a few megabytes that make no group of their own.
const GROWS_FROM: u64 = 16 << 20;

/// Decides. Each mount is for itself: what is refused hinders no other.
pub fn plan(request: &Request, observed: &Observed) -> Plan {
    let disks = request.disks.iter().zip(&observed.disks);
    let mut drafts: Vec<Draft> = disks
        .map(|(spec, disk)| disk_draft(spec, disk, observed))
        .collect();
    refuse_twice(&mut drafts);
    drafts.extend(request.efs.iter().map(|spec| efs::draft(spec, observed)));
    let steps = order::steps(request, observed, &drafts);
    Plan {
        mounts: drafts.into_iter().map(|draft| draft.mount).collect(),
        steps,
    }
}

/// The plan for one mount point, and the steps that are its own.
pub(super) struct Draft {
    pub(super) mount: MountPlan,
    /// The disk that is mounted.
    pub(super) device: Option<DeviceRef>,
    /// Before anything is mounted: join, format.
    pub(super) before: Vec<Step>,
    /// Once it is mounted: grow, owner.
    pub(super) after: Vec<Step>,
}

impl Draft {
    pub(super) fn new(mount_point: &str, source: String) -> Self {
        Self {
            mount: MountPlan {
                mount_point: mount_point.to_owned(),
                source,
                device: None,
                decision: Decision::Refuse,
                reasons: Vec::new(),
                notes: Vec::new(),
                entry: None,
                looked: Vec::new(),
            },
            device: None,
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    pub(super) fn refuse(mut self, reasons: impl IntoIterator<Item = String>) -> Self {
        self.mount.decision = Decision::Refuse;
        self.mount.reasons.extend(reasons);
        self.mount.entry = None;
        self.before.clear();
        self.after.clear();
        self
    }
}

fn disk_draft(spec: &DiskSpec, disk: &ObservedDisk, observed: &Observed) -> Draft {
    let mut draft = Draft::new(&spec.mount_point, spec.source.to_string());
    draft.mount.looked.clone_from(&disk.looked);
    let looked = match (&disk.matched, &spec.source) {
        (Match::Missing, _) => {
            draft.mount.reasons = vec![missing(&spec.source, observed)];
            draft.mount.decision = Decision::Missing;
            return draft;
        }
        (Match::Ambiguous(names), _) => {
            let reason = format!("{} is the name of {}", spec.source, names.join(" and of "));
            return draft.refuse([reason]);
        }
        (Match::InstanceStore(_), DiskSource::InstanceStore { raid0 }) if disk.looked.len() > 1 => {
            match array::joined(*raid0, spec.format, disk) {
                Joined::Running(array) => {
                    draft.mount.looked.push(array.clone());
                    array
                }
                Joined::Join { step, reason } => {
                    draft.mount.decision = Decision::Join;
                    draft.mount.reasons = vec![reason];
                    draft.before = vec![step];
                    return draft;
                }
                Joined::Refuse(reasons) => return draft.refuse(reasons),
            }
        }
        _ => match disk.looked.first() {
            Some(looked) => looked,
            None => return draft.refuse(["the disk went away while it was looked at".to_owned()]),
        },
    };
    draft.mount.device = Some(looked.device.path());
    draft.device = Some(DeviceRef::of(&looked.device));
    device_draft(draft, spec, looked, observed)
}

fn device_draft(mut draft: Draft, spec: &DiskSpec, looked: &Looked, observed: &Observed) -> Draft {
    let Looked { device, evidence, .. } = looked;
    also_in_fstab(&mut draft, observed);
    let access = match access(&spec.root, observed) {
        Ok(access) => access,
        Err(reason) => return draft.refuse([reason]),
    };
    let point = observed
        .points
        .get(&spec.mount_point)
        .cloned()
        .unwrap_or_default();
    if let Some(mounted) = &point.mounted {
        let same = mounted.number == device.number || mounted.source == device.path();
        if !same || mounted.root != "/" {
            return draft.refuse([format!("{} is mounted there", mounted.source)]);
        }
        if mounted.kind != spec.file_system.name() {
            let reason = format!(
                "it is mounted as {}, and {} is configured",
                mounted.kind, spec.file_system
            );
            return draft.refuse([reason]);
        }
        draft.mount.decision = Decision::Keep;
        draft.mount.reasons.push("it is mounted".to_owned());
        let found = evidence.file_system.as_ref();
        draft.mount.entry = found.map(|found| entry(spec, found.uuid));
        draft.after = after(
            spec,
            device,
            found,
            access.filter(|_| differs(access, point.access)),
        );
        return draft;
    }
    let made_of: &[String] = if matches!(spec.source, DiskSource::InstanceStore { .. }) {
        &device.slaves
    } else {
        &[]
    };
    let blank = evidence::objections(device, evidence, made_of);
    if blank.is_empty() {
        return match spec.format {
            Format::Never => draft
                .refuse(["it is blank, and the configuration says that it is never formatted".to_owned()]),
            Format::IfBlank => format_draft(draft, spec, looked, &point, access, observed),
        };
    }
    let Some(found) = evidence
        .file_system
        .as_ref()
        .filter(|found| found.kind == Some(spec.file_system))
    else {
        let reasons = blank.iter().map(ToString::to_string);
        let wanted = format!("it is not blank and has no {} file system", spec.file_system);
        return draft.refuse(std::iter::once(wanted).chain(reasons));
    };
    let against = mountable::against_mounting(spec, device, evidence, found, made_of, observed);
    if !against.is_empty() {
        return draft.refuse(against);
    }
    draft.mount.decision = Decision::Mount;
    draft.mount.reasons.push(if found.uuid == looked.proposed {
        format!("it has the {} that COS made on it", found.name)
    } else {
        format!("it has {} with UUID {}", found.name, found.uuid)
    });
    hides(&mut draft, &point);
    draft.mount.entry = Some(entry(spec, found.uuid));
    draft.after = after(spec, device, Some(found), access);
    draft
}

fn format_draft(
    mut draft: Draft,
    spec: &DiskSpec,
    looked: &Looked,
    point: &ObservedPoint,
    access: Option<Access>,
    observed: &Observed,
) -> Draft {
    let Looked {
        device,
        evidence,
        proposed,
    } = looked;
    if let Some((other, _)) = observed.uuids.iter().find(|(_, uuid)| uuid == proposed) {
        return draft.refuse([format!(
            "{other} has the UUID {proposed} that this disk would get"
        )]);
    }
    draft.mount.decision = Decision::Format;
    draft.mount.reasons.extend(why_blank(evidence));
    hides(&mut draft, point);
    draft.before = vec![Step::Format {
        device: DeviceRef::of(device),
        file_system: spec.file_system,
        uuid: *proposed,
        label: spec.label.clone(),
    }];
    draft.mount.entry = Some(entry(spec, *proposed));
    draft.after = after(spec, device, None, access);
    draft
}

/// What was seen of a disk that may be formatted.
pub(super) fn why_blank(evidence: &Evidence) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(zeros) = &evidence.zeros {
        let mebibytes = zeros.bytes_read >> 20;
        reasons.push(if zeros.whole {
            format!("it is blank: all of its {mebibytes} MiB were read and are zero")
        } else {
            format!(
                "it is blank: {mebibytes} MiB at {} places were read and are zero, both ends among them",
                zeros.places
            )
        });
    }
    reasons.push(match evidence.blkid {
        Blkid::Absent => "no signature; blkid is not installed, so there is no second opinion".to_owned(),
        _ => "no signature, and blkid finds none either".to_owned(),
    });
    reasons.push("a whole disk that nobody has claimed".to_owned());
    reasons
}

fn missing(source: &DiskSource, observed: &Observed) -> String {
    let disks: Vec<String> = observed
        .inventory
        .devices
        .iter()
        .filter(|device| device.partition.is_none())
        .map(|device| {
            let names = [
                device.identity.volume.as_deref(),
                device.identity.requested.as_deref(),
            ];
            let names: Vec<&str> = names.into_iter().flatten().collect();
            if names.is_empty() {
                device.name.clone()
            } else {
                format!("{} ({})", device.name, names.join(", "))
            }
        })
        .collect();
    let seconds =
        std::time::Duration::from_millis(u64::try_from(observed.waited_milliseconds).unwrap_or(u64::MAX));
    let heard = if observed.heard.is_empty() {
        "no disk came".to_owned()
    } else {
        format!("meanwhile: {}", observed.heard.join(", "))
    };
    let tells = |device: &BlockDevice| device.identity.volume.is_some();
    let hint = match source {
        DiskSource::Volume(_) if !observed.inventory.devices.iter().any(tells) => {
            "; no disk of this machine tells a volume id, as on Xen: name the device instead"
        }
        _ => "",
    };
    format!(
        "{source} is not there after {:.1} s; disks: {}; {heard}{hint}",
        seconds.as_secs_f64(),
        if disks.is_empty() {
            "none".to_owned()
        } else {
            disks.join(", ")
        },
    )
}

/// Two sources that turn out to be one device: neither is touched.
fn refuse_twice(drafts: &mut [Draft]) {
    let devices: Vec<Option<String>> = drafts.iter().map(|draft| draft.mount.device.clone()).collect();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let same = devices
            .iter()
            .enumerate()
            .find(|(other, device)| *other != index && device.is_some() && **device == devices[index]);
        if let Some((_, Some(device))) = same {
            let refused = Draft::new(&draft.mount.mount_point, draft.mount.source.clone());
            let old = std::mem::replace(draft, refused.refuse([format!("two sources name {device}")]));
            draft.mount.looked = old.mount.looked;
            draft.mount.device = old.mount.device;
        }
    }
}

fn entry(spec: &DiskSpec, uuid: Uuid) -> MountEntry {
    MountEntry {
        what: What::Uuid(uuid),
        point: spec.mount_point.clone(),
        kind: spec.file_system.name().to_owned(),
        options: spec.options.clone(),
    }
}

/// User, group and mode by number.
type Access = (Option<u32>, Option<u32>, Option<u32>);

fn access(root: &RootAccess, observed: &Observed) -> Result<Option<Access>, String> {
    if root.is_empty() {
        return Ok(None);
    }
    let number = |name: &Option<String>, numbers: &std::collections::BTreeMap<String, u32>, kind| match name {
        None => Ok(None),
        Some(name) => numbers
            .get(name)
            .map(|number| Some(*number))
            .ok_or_else(|| format!("this machine has no {kind} {name}")),
    };
    Ok(Some((
        number(&root.owner, &observed.users, "user")?,
        number(&root.group, &observed.groups, "group")?,
        root.mode,
    )))
}

fn differs(wanted: Option<Access>, seen: Option<(u32, u32, u32)>) -> bool {
    let Some((user, group, mode)) = wanted else {
        return false;
    };
    let other = |wanted: Option<u32>, seen: Option<u32>| wanted.is_some() && wanted != seen;
    other(user, seen.map(|seen| seen.0))
        || other(group, seen.map(|seen| seen.1))
        || other(mode, seen.map(|seen| seen.2))
}

fn after(
    spec: &DiskSpec,
    device: &BlockDevice,
    found: Option<&FoundFileSystem>,
    access: Option<Access>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let grows = found.is_some_and(|found| found.size.saturating_add(GROWS_FROM) <= device.size);
    if spec.grow && grows {
        steps.push(Step::Grow {
            device: DeviceRef::of(device),
            file_system: spec.file_system,
            mount_point: spec.mount_point.clone(),
        });
    }
    if let Some((user, group, mode)) = access {
        steps.push(Step::SetAccess {
            mount_point: spec.mount_point.clone(),
            user,
            group,
            mode,
        });
    }
    steps
}

/// What speaks about the same mount point elsewhere.
pub(super) fn also_in_fstab(draft: &mut Draft, observed: &Observed) {
    for line in units::foreign_lines(&observed.fstab, &draft.mount.mount_point) {
        let note = format!("line {line} of /etc/fstab mounts there too: remove it");
        draft.mount.notes.push(note);
    }
}

pub(super) fn hides(draft: &mut Draft, point: &ObservedPoint) {
    if point.entries > 0 {
        let note = format!(
            "{} has {} entries of its own, which the mount will hide",
            draft.mount.mount_point, point.entries
        );
        draft.mount.notes.push(note);
    }
}
