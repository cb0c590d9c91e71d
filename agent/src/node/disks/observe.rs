//! Owns looking at a machine's disks and mounts, as far as a request speaks of them, and waiting for disks that are
//! yet to be attached.
//! Touches what [`Inventory`] and [`evidence`] read, and files of mounts; it changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::File;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::evidence::{self, Evidence, Exclusive};
use super::inventory::{BlockDevice, Inventory};
use super::matching::{self, Match};
use super::mounts::Mount;
use super::probe::{self, Device};
use super::spec::{DiskSource, Request};
use super::uevent::Uevents;
use super::units::{self, Keeper};
use super::uuid::Uuid;
use crate::host::{Files, Programs};
use crate::node::wait::{self, Backoff};

/// What looking and changing need of the machine.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Files.
    pub files: &'a Files,
    /// Programs: `blkid`, `mkfs.*`, `mount`, `systemctl`.
    pub programs: &'a dyn Programs,
    /// How long to wait for disks that are not there.
    pub deadline: Duration,
}

/// A device that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The device.
    pub device: BlockDevice,
    /// What is known of its content.
    pub evidence: Evidence,
    /// UUID that it would get: always the same for a disk that can be known again, else drawn.
    pub proposed: Uuid,
}

/// What a source of the request is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservedDisk {
    /// Which devices.
    pub matched: Match,
    /// The devices, looked at.
    pub looked: Vec<Looked>,
    /// The running array of exactly these devices.
    pub array: Option<Looked>,
}

/// A mount point as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ObservedPoint {
    /// Whether there is such a directory.
    pub exists: bool,
    /// How many entries it has.
    pub entries: usize,
    /// User, group and mode.
    pub access: Option<(u32, u32, u32)>,
    /// What is mounted there.
    pub mounted: Option<Mount>,
}

/// What the machine is, as far as a request asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// How mounts are kept.
    pub keeper: Keeper,
    /// All devices and mounts.
    pub inventory: Inventory,
    /// One for each disk of the request, in its order.
    pub disks: Vec<ObservedDisk>,
    /// Mount points of the request.
    pub points: BTreeMap<String, ObservedPoint>,
    /// Mount units that exist, by path: those of the request and all that are ours.
    pub units: BTreeMap<String, String>,
    /// Units that start at boot, by name.
    pub enabled: BTreeSet<String>,
    /// `/etc/fstab`.
    pub fstab: String,
    /// UUIDs of file systems, with the device.
    pub uuids: Vec<(String, Uuid)>,
    /// Users by name.
    pub users: BTreeMap<String, u32>,
    /// Groups by name.
    pub groups: BTreeMap<String, u32>,
    /// Whether amazon-efs-utils is installed.
    pub efs_helper: bool,
    /// Whether NFS can be mounted.
    pub nfs_helper: bool,
    /// What the kernel told of disks meanwhile.
    pub heard: Vec<String>,
    /// How long was waited for disks, in milliseconds.
    pub waited_milliseconds: u128,
}

/// Pause between two looks where the kernel tells nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for somebody who has a disk open: a run that was killed may have left mkfs behind.
const BUSY: Duration = Duration::from_secs(30);

/// Looks; waits until every disk of the request is there, or the deadline has passed. What is missing then is in
/// the answer: it is for the plan to say so.
pub fn observe(request: &Request, environment: &Environment) -> Observed {
    let files = environment.files;
    let start = Instant::now();
    // First listen, then look: a disk that comes in between is heard.
    let mut uevents = Uevents::listen();
    let look = || {
        let inventory = Inventory::read(files);
        let matched: Vec<Match> = request
            .disks
            .iter()
            .map(|disk| matching::find(&disk.source, resolve(&disk.source, files).as_deref(), &inventory))
            .collect();
        (inventory, matched)
    };
    let found = wait::until_rung::<_, Infallible>(environment.deadline, LOOK_AGAIN, &mut uevents, || {
        let (inventory, matched) = look();
        Ok(if matched.contains(&Match::Missing) {
            ControlFlow::Continue("a disk is missing".to_owned())
        } else {
            ControlFlow::Break((inventory, matched))
        })
    });
    let (inventory, matched) = found.unwrap_or_else(|_| look());
    let waited_milliseconds = start.elapsed().as_millis();
    let disks = matched
        .into_iter()
        .map(|matched| observed_disk(matched, &inventory, environment))
        .collect();
    let text = |path: &str| {
        let read = files.read(path).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&read).into_owned()
    };
    let points = points(request).map(|point| (point.to_owned(), observed_point(point, files, &inventory)));
    let installed = |names: &[&str]| names.iter().any(|name| matches!(files.mode(name), Ok(Some(_))));
    Observed {
        keeper: keeper(files),
        points: points.collect(),
        units: mount_units(request, files),
        enabled: files
            .entries(format!("{}/multi-user.target.wants", units::UNIT_FOLDER))
            .unwrap_or_default()
            .into_iter()
            .collect(),
        fstab: text(units::FSTAB),
        uuids: uuids(files, &inventory),
        users: numbers(&text("/etc/passwd")),
        groups: numbers(&text("/etc/group")),
        efs_helper: installed(&["/sbin/mount.efs", "/usr/sbin/mount.efs"]),
        nfs_helper: installed(&[
            "/sbin/mount.nfs4",
            "/usr/sbin/mount.nfs4",
            "/sbin/mount.nfs",
            "/usr/sbin/mount.nfs",
        ]),
        heard: uevents.heard().to_vec(),
        waited_milliseconds,
        disks,
        inventory,
    }
}

/// How mounts are kept on the machine below this root.
pub(super) fn keeper(files: &Files) -> Keeper {
    if files.locate("/run/systemd/system").is_dir() {
        Keeper::Systemd
    } else {
        Keeper::Fstab
    }
}

fn points(request: &Request) -> impl Iterator<Item = &str> {
    let disks = request.disks.iter().map(|disk| disk.mount_point.as_str());
    disks.chain(request.efs.iter().map(|efs| efs.mount_point.as_str()))
}

/// The kernel's name behind a path: udev and people make links.
fn resolve(source: &DiskSource, files: &Files) -> Option<String> {
    let DiskSource::Device(path) = source else {
        return None;
    };
    let real = files.locate(path).canonicalize().ok()?;
    real.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn observed_disk(matched: Match, inventory: &Inventory, environment: &Environment) -> ObservedDisk {
    let names = match &matched {
        Match::One(name) => std::slice::from_ref(name),
        Match::InstanceStore(names) => names,
        Match::Ambiguous(_) | Match::Missing => &[],
    };
    let devices: Vec<&BlockDevice> = names.iter().filter_map(|name| inventory.get(name)).collect();
    let looked = devices
        .iter()
        .map(|device| look_at(device, environment))
        .collect();
    let mut members: Vec<&str> = names.iter().map(String::as_str).collect();
    members.sort_unstable();
    let array = inventory.devices.iter().find(|device| {
        let mut slaves: Vec<&str> = device.slaves.iter().map(String::as_str).collect();
        slaves.sort_unstable();
        // Other devices may be made of the same disks, such as a volume of LVM; those are not ours.
        let array = device.name.starts_with("md") && device.partition.is_none();
        array && members.len() > 1 && slaves == members
    });
    ObservedDisk {
        matched,
        looked,
        array: array.map(|array| look_at(array, environment)),
    }
}

/// Looks at one device; if somebody has it for a reason that cannot be seen, waits until that is over.
pub(crate) fn look_at(device: &BlockDevice, environment: &Environment) -> Looked {
    let seen_reason = !device.mounts.is_empty() || !device.holders.is_empty() || device.swap;
    let patience = if seen_reason {
        Duration::ZERO
    } else {
        BUSY.min(environment.deadline)
    };
    let mut last = None;
    let looked = wait::until::<_, Infallible>(patience, Backoff::LOCAL, || {
        let evidence = evidence::collect(device, environment.files, environment.programs);
        Ok(if evidence.exclusive == Exclusive::Busy && !seen_reason {
            last = Some(evidence);
            ControlFlow::Continue("somebody has it".to_owned())
        } else {
            ControlFlow::Break(evidence)
        })
    });
    let evidence = looked
        .ok()
        .or(last)
        .unwrap_or_else(|| evidence::collect(device, environment.files, environment.programs));
    Looked {
        device: device.clone(),
        evidence: with_mounted_size(evidence, device),
        proposed: proposed(device, environment.files),
    }
}

/// XFS writes its superblock past the pages in which we read it, and later: a mounted one is asked itself. It leaves
/// its log out (xfs_fs_statfs of the kernel). What ext4 says on disk is always true.
fn with_mounted_size(mut evidence: Evidence, device: &BlockDevice) -> Evidence {
    let found = evidence.file_system.as_mut().filter(|found| found.name == "xfs");
    if let Some((found, point)) = found.zip(device.mounts.first())
        && let Ok(stat) = statvfs(point.as_str())
    {
        found.size = stat
            .blocks()
            .saturating_mul(stat.fragment_size())
            .saturating_add(found.log);
    }
    evidence
}

fn proposed(device: &BlockDevice, files: &Files) -> Uuid {
    let drawn = || {
        let read = files.read("/proc/sys/kernel/random/uuid").ok().flatten();
        read.and_then(|text| String::from_utf8_lossy(&text).parse().ok())
    };
    match device.stable_identity() {
        Some(identity) => Uuid::of_disk(&identity),
        // Without the kernel's help: the name of the device and the time, which is as good as drawn.
        None => drawn().unwrap_or_else(|| {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            Uuid::of_disk(&format!("{} {now:?}", device.name))
        }),
    }
}

fn observed_point(point: &str, files: &Files, inventory: &Inventory) -> ObservedPoint {
    let exists = files.locate(point).is_dir();
    let owner = files.owner(point).ok().flatten();
    let mode = files.mode(point).ok().flatten();
    ObservedPoint {
        exists,
        entries: files
            .entries(point)
            .map(|entries| entries.len())
            .unwrap_or_default(),
        access: owner.zip(mode).map(|((user, group), mode)| (user, group, mode)),
        mounted: mounted_at(point, files, inventory).cloned(),
    }
}

/// What is mounted there. The last one counts: it lies over the others.
pub(crate) fn mounted_at<'a>(point: &str, files: &Files, inventory: &'a Inventory) -> Option<&'a Mount> {
    let place = files.locate(point);
    // The kernel tells real paths.
    let place = place.canonicalize().unwrap_or(place);
    let place = place.to_string_lossy();
    inventory.mounts.iter().rfind(|mount| mount.point == place)
}

fn mount_units(request: &Request, files: &Files) -> BTreeMap<String, String> {
    let wanted: BTreeSet<String> = points(request)
        .map(|point| format!("{}.mount", units::escape_path(point)))
        .collect();
    let names = files.entries(units::UNIT_FOLDER).unwrap_or_default();
    let mounts = names.into_iter().filter(|name| {
        std::path::Path::new(name)
            .extension()
            .is_some_and(|kind| kind == "mount")
    });
    mounts
        .filter_map(|name| {
            let path = format!("{}/{name}", units::UNIT_FOLDER);
            let content = String::from_utf8_lossy(&files.read(&path).ok()??).into_owned();
            (wanted.contains(&name) || content.starts_with(units::HEADER)).then_some((path, content))
        })
        .collect()
}

/// UUIDs of all file systems that could be mounted by one. What is part of something else is left out: the member
/// of a mirror shows the same file system as the mirror.
fn uuids(files: &Files, inventory: &Inventory) -> Vec<(String, Uuid)> {
    let devices = inventory.devices.iter();
    let devices = devices.filter(|device| device.holders.is_empty() && !device.name.starts_with("sr"));
    devices
        .filter_map(|device| {
            let file = File::open(files.locate(device.path())).ok()?;
            let found = probe::file_system(&Device {
                file,
                size: device.size,
            });
            Some((device.name.clone(), found.ok()??.uuid))
        })
        .collect()
}

/// Names and numbers of `/etc/passwd` and `/etc/group`: both have the number in the third field.
fn numbers(text: &str) -> BTreeMap<String, u32> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        })
        .collect()
}
