//! Owns what is done with each disk, and why, as data: the decision, its reasons, the evidence, and the steps.
//! Touches nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use super::array::{self, Joined};
use super::efs;
use super::evidence::{self, Blkid, Evidence, Exclusive};
use super::inventory::BlockDevice;
use super::matching::Match;
use super::observe::{Looked, Observed, ObservedDisk, ObservedPoint};
use super::probe::{Class, FoundFileSystem, Signature};
use super::spec::{DiskSource, DiskSpec, Format, Request, RootAccess};
use super::step::{DeviceRef, Planned, Step};
use super::units::{self, Keeper, MountEntry, What};
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
    let steps = steps(request, observed, &drafts);
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
    let against = against_mounting(spec, device, evidence, found, made_of, observed);
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
    format!(
        "{source} is not there after {:.1} s; disks: {}; {heard}",
        seconds.as_secs_f64(),
        if disks.is_empty() {
            "none".to_owned()
        } else {
            disks.join(", ")
        },
    )
}

/// Everything that speaks against mounting what seems to be the right file system.
fn against_mounting(
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
        "mkfs.xfs did not come to its end on it".to_owned(),
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

pub(super) fn hides(draft: &mut Draft, point: &ObservedPoint) {
    if point.entries > 0 {
        let note = format!(
            "{} has {} entries of its own, which the mount will hide",
            draft.mount.mount_point, point.entries
        );
        draft.mount.notes.push(note);
    }
}

/// All steps in order: join and format; write down; mount, folders above before those below; grow and owners.
fn steps(request: &Request, observed: &Observed, drafts: &[Draft]) -> Vec<Planned> {
    let mut steps = Vec::new();
    for draft in drafts {
        let own = draft.before.iter().cloned();
        steps.extend(own.map(|step| Planned::of(&draft.mount.mount_point, step)));
    }
    let mut order: Vec<&Draft> = drafts
        .iter()
        .filter(|draft| draft.mount.entry.is_some())
        .collect();
    order.sort_by_key(|draft| &draft.mount.mount_point);
    steps.extend(match observed.keeper {
        Keeper::Systemd => unit_steps(request, observed, &order),
        Keeper::Fstab => fstab_steps(request, observed, &order),
    });
    for draft in order {
        let point = &draft.mount.mount_point;
        let Some(entry) = draft.mount.entry.as_ref() else {
            continue;
        };
        let seen = observed.points.get(point).cloned().unwrap_or_default();
        if draft.mount.decision != Decision::Keep {
            if !seen.exists {
                steps.push(Planned::of(point, Step::MakeFolder { path: point.clone() }));
            }
            let mount = Step::Mount {
                entry: entry.clone(),
                device: draft.device.clone(),
            };
            steps.push(Planned::of(point, mount));
        }
        steps.extend(draft.after.iter().cloned().map(|step| Planned::of(point, step)));
    }
    steps
}

fn unit_steps(request: &Request, observed: &Observed, order: &[&Draft]) -> Vec<Planned> {
    let mut written = Vec::new();
    let mut enabled = Vec::new();
    let mut mounts = false;
    for (draft, entry) in order
        .iter()
        .filter_map(|draft| Some((draft, draft.mount.entry.as_ref()?)))
    {
        let point = &draft.mount.mount_point;
        let (path, content) = (entry.unit_path(), entry.unit_content());
        if observed.units.get(&path) != Some(&content) {
            written.push(Planned::of(point, Step::Write { path, content }));
        }
        if !observed.enabled.contains(&entry.unit()) {
            enabled.push(Planned::of(point, Step::Enable { unit: entry.unit() }));
        }
        mounts |= draft.mount.decision != Decision::Keep;
    }
    // Units of mounts that nobody asks for any more go; those that are only refused today stay.
    let wanted: BTreeSet<String> = observed
        .points
        .keys()
        .map(|point| format!("{}.mount", units::escape_path(point)))
        .collect();
    let ours = observed
        .units
        .iter()
        .filter(|(_, content)| content.starts_with(units::HEADER));
    for (path, _) in ours {
        let unit = path.rsplit('/').next().unwrap_or_default().to_owned();
        if request.whole && !wanted.contains(&unit) {
            if observed.enabled.contains(&unit) {
                written.push(Planned::shared(Step::Disable { unit }));
            }
            written.push(Planned::shared(Step::Remove { path: path.clone() }));
        }
    }
    // A run may have died after writing a unit and before it was read: nothing is mounted without this.
    if !written.is_empty() || mounts {
        written.push(Planned::shared(Step::ReloadDefinitions));
    }
    written.extend(enabled);
    written
}

fn fstab_steps(request: &Request, observed: &Observed, order: &[&Draft]) -> Vec<Planned> {
    let entries: Vec<MountEntry> = order
        .iter()
        .filter_map(|draft| draft.mount.entry.clone())
        .collect();
    let written: Vec<&str> = entries.iter().map(|entry| entry.point.as_str()).collect();
    let mut keep: Vec<&str> = observed
        .points
        .keys()
        .map(String::as_str)
        .filter(|point| !written.contains(point))
        .collect();
    let other = units::our_points(&observed.fstab);
    if !request.whole {
        keep.extend(other.iter().copied().filter(|point| !written.contains(point)));
    }
    let content = units::fstab(&observed.fstab, &entries, &keep);
    if content == observed.fstab {
        return Vec::new();
    }
    vec![Planned::shared(Step::Write {
        path: units::FSTAB.to_owned(),
        content,
    })]
}
