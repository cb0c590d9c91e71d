//! Owns what is known of a disk's content, and the rule for formatting: every single objection forbids it.
//! Touches the disk (reading only) and `blkid`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use serde::Serialize;

use super::inventory::BlockDevice;
use super::probe::{self, Device, FoundFileSystem, RaidMember, Signature};
use super::zeros::{self, Zeros};
use crate::host::{Files, Invocation, ProgramError, Programs};

/// Longest time that `blkid` may take: it reads little, but a disk may hang.
const BLKID: Duration = Duration::from_secs(30);

/// Whether somebody else has claimed the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclusive {
    /// Nobody: it could be opened for ourselves alone.
    Free,
    /// Mounted, swapped on, part of something, or being formatted, perhaps in another namespace.
    Busy,
    /// It could not be opened at all.
    Failed(String),
}

/// The second opinion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blkid {
    /// `blkid` is not installed.
    Absent,
    /// It found nothing.
    Nothing,
    /// It found something: what it printed, `KEY=value`.
    Found(Vec<String>),
    /// It found several things that contradict each other.
    Ambivalent,
    /// It could not tell.
    Failed(String),
}

impl Blkid {
    /// The file system that it names.
    pub fn kind(&self) -> Option<&str> {
        let Self::Found(lines) = self else {
            return None;
        };
        lines.iter().find_map(|line| line.strip_prefix("TYPE="))
    }
}

/// What is known of a disk's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Whether somebody has claimed it.
    pub exclusive: Exclusive,
    /// What was recognised.
    pub signatures: Vec<Signature>,
    /// XFS or ext, if it is one.
    pub file_system: Option<FoundFileSystem>,
    /// Linux RAID, if it is a member.
    pub raid: Option<RaidMember>,
    /// What `blkid -p` says.
    pub blkid: Blkid,
    /// Whether it is zero; only looked at where nothing was recognised.
    pub zeros: Option<Zeros>,
    /// Why it could not be read.
    pub unreadable: Option<String>,
}

/// Why a disk may not be formatted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "objection", content = "of", rename_all = "kebab-case")]
pub enum Objection {
    /// It is a partition; whole disks only are formatted.
    Partition,
    /// It cannot be written.
    ReadOnly,
    /// It has partitions.
    Partitions(Vec<String>),
    /// Other devices are made of it.
    Holders(Vec<String>),
    /// It is made of other devices.
    Slaves(Vec<String>),
    /// It is mounted.
    Mounted(Vec<String>),
    /// It is swapped on.
    Swap,
    /// Somebody has claimed it.
    Busy,
    /// It could not be opened or read.
    Unreadable(String),
    /// Something was recognised.
    Signature(Signature),
    /// `blkid` recognises something.
    Blkid(String),
    /// Something that is not zero was found.
    Data {
        /// Where, in bytes from the start.
        offset: u64,
    },
    /// Nobody looked whether it is zero.
    NotLookedAt,
}

impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition => formatter.write_str("it is a partition"),
            Self::ReadOnly => formatter.write_str("it is read-only"),
            Self::Partitions(names) => write!(formatter, "it has partitions ({})", names.join(", ")),
            Self::Holders(names) => write!(formatter, "{} is made of it", names.join(", ")),
            Self::Slaves(names) => write!(formatter, "it is made of {}", names.join(", ")),
            Self::Mounted(points) => write!(formatter, "it is mounted at {}", points.join(", ")),
            Self::Swap => formatter.write_str("it is swapped on"),
            Self::Busy => formatter.write_str("somebody has claimed it"),
            Self::Unreadable(why) => write!(formatter, "it cannot be read: {why}"),
            Self::Signature(Signature {
                kind, offset, backup, ..
            }) => {
                let copy = if *backup { "a second copy of " } else { "" };
                write!(formatter, "it has {copy}a signature of {kind} at byte {offset}")
            }
            Self::Blkid(found) => write!(formatter, "blkid finds {found}"),
            Self::Data { offset } => write!(formatter, "it holds data: byte {offset} is not zero"),
            Self::NotLookedAt => formatter.write_str("it was not looked at as a whole"),
        }
    }
}

/// Looks at a disk. Nothing is written, and nothing that goes wrong is left out of the answer.
pub fn collect(device: &BlockDevice, files: &Files, programs: &dyn Programs) -> Evidence {
    let path = files.locate(device.path());
    let blkid = blkid(&path.to_string_lossy(), programs);
    let mut evidence = Evidence {
        exclusive: Exclusive::Free,
        signatures: Vec::new(),
        file_system: None,
        raid: None,
        blkid,
        zeros: None,
        unreadable: None,
    };
    let file = match exclusively(&path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            evidence.exclusive = Exclusive::Busy;
            match File::open(&path) {
                Ok(file) => file,
                Err(error) => {
                    evidence.unreadable = Some(error.to_string());
                    return evidence;
                }
            }
        }
        Err(error) => {
            evidence.exclusive = Exclusive::Failed(error.to_string());
            evidence.unreadable = Some(error.to_string());
            return evidence;
        }
    };
    let opened = Device {
        file,
        size: device.size,
    };
    if let Err(error) = read(&opened, &mut evidence) {
        evidence.unreadable = Some(error.to_string());
    }
    evidence
}

/// Whether somebody has claimed the device at this moment.
pub(super) fn is_claimed(path: &std::path::Path) -> bool {
    matches!(exclusively(path), Err(error) if error.raw_os_error() == Some(libc::EBUSY))
}

/// `O_EXCL` on a block device is refused while it is mounted or held, in whatever namespace (open(2)).
fn exclusively(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL | libc::O_CLOEXEC)
        .open(path)
}

fn read(device: &Device, evidence: &mut Evidence) -> io::Result<()> {
    evidence.signatures = probe::signatures(device)?;
    evidence.file_system = probe::file_system(device)?;
    evidence.raid = probe::raid_member(device)?;
    let nothing = evidence.signatures.is_empty() && evidence.file_system.is_none();
    if nothing
        && evidence.exclusive == Exclusive::Free
        && matches!(evidence.blkid, Blkid::Nothing | Blkid::Absent)
    {
        // Pieces of a large disk are far apart: reading ahead would only cost time. A refusal changes nothing.
        if device.size > zeros::WHOLE {
            let _ = posix_fadvise(&device.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
        let scanned = zeros::scan(device);
        // Zeros are of no use to anybody in memory.
        let _ = posix_fadvise(&device.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        evidence.zeros = Some(scanned?);
    }
    Ok(())
}

fn blkid(path: &str, programs: &dyn Programs) -> Blkid {
    // By its usual place too: `PATH` of a boot script may be without /sbin.
    let run = |program: &str| programs.run(&Invocation::new(program, ["-p", "-o", "export", path], BLKID));
    let ran = match run("blkid") {
        Err(ProgramError::Start { .. }) => run("/sbin/blkid"),
        other => other,
    };
    let output = match ran {
        Ok(output) => output,
        Err(ProgramError::Start { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Blkid::Absent;
        }
        Err(error) => return Blkid::Failed(error.to_string()),
    };
    let lines: Vec<String> = output
        .stdout
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with("DEVNAME="))
        .map(str::to_owned)
        .collect();
    // blkid(8): 0 found, 2 nothing found or not readable, 8 ambivalent.
    match output.status {
        Some(2) if lines.is_empty() && output.stderr.trim().is_empty() => Blkid::Nothing,
        Some(0) if !lines.is_empty() => Blkid::Found(lines),
        Some(8) => Blkid::Ambivalent,
        status => Blkid::Failed(format!(
            "status {}: {}",
            status.map_or("of a signal".to_owned(), |status| status.to_string()),
            output.stderr.trim()
        )),
    }
}

/// Everything that speaks against formatting; a disk is blank if that is nothing. `made_of` are the devices that
/// it may be made of: the members of an array that was just found or made.
pub fn objections(device: &BlockDevice, evidence: &Evidence, made_of: &[String]) -> Vec<Objection> {
    let mut found = Vec::new();
    if device.partition.is_some() {
        found.push(Objection::Partition);
    }
    if device.read_only {
        found.push(Objection::ReadOnly);
    }
    if !device.partitions.is_empty() {
        found.push(Objection::Partitions(device.partitions.clone()));
    }
    if !device.holders.is_empty() {
        found.push(Objection::Holders(device.holders.clone()));
    }
    if device.slaves != made_of {
        found.push(Objection::Slaves(device.slaves.clone()));
    }
    if !device.mounts.is_empty() {
        found.push(Objection::Mounted(device.mounts.clone()));
    }
    if device.swap {
        found.push(Objection::Swap);
    }
    // What is claimed for a reason that can be seen was named already.
    if evidence.exclusive == Exclusive::Busy && found.is_empty() {
        found.push(Objection::Busy);
    }
    if let Exclusive::Failed(why) = &evidence.exclusive {
        found.push(Objection::Unreadable(why.clone()));
    } else if let Some(why) = &evidence.unreadable {
        found.push(Objection::Unreadable(why.clone()));
    }
    found.extend(evidence.signatures.iter().cloned().map(Objection::Signature));
    match &evidence.blkid {
        Blkid::Absent | Blkid::Nothing => {}
        Blkid::Found(lines) => found.push(Objection::Blkid(lines.join(" "))),
        Blkid::Ambivalent => found.push(Objection::Blkid("several things".to_owned())),
        Blkid::Failed(why) => found.push(Objection::Blkid(format!("no answer ({why})"))),
    }
    match &evidence.zeros {
        Some(zeros) => found.extend(zeros.first_data.map(|offset| Objection::Data { offset })),
        None if found.is_empty() => found.push(Objection::NotLookedAt),
        None => {}
    }
    // Belt and braces: whatever was forgotten above, a disk that nobody saw as all zero is never blank.
    let seen_as_zero = evidence
        .zeros
        .as_ref()
        .is_some_and(|zeros| zeros.first_data.is_none());
    if found.is_empty() && !(seen_as_zero && evidence.file_system.is_none() && evidence.raid.is_none()) {
        found.push(Objection::NotLookedAt);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::disks::probe::Class;
    use crate::node::disks::uuid::Uuid;

    fn blank() -> Evidence {
        Evidence {
            exclusive: Exclusive::Free,
            signatures: Vec::new(),
            file_system: None,
            raid: None,
            blkid: Blkid::Nothing,
            zeros: Some(Zeros {
                bytes_read: 1 << 20,
                places: 1,
                whole: true,
                first_data: None,
                milliseconds: 1,
            }),
            unreadable: None,
        }
    }

    fn said(device: &BlockDevice, evidence: &Evidence) -> Vec<String> {
        objections(device, evidence, &[])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn one_objection_of_any_kind_forbids() {
        let device = BlockDevice {
            name: "nvme1n1".to_owned(),
            size: 1 << 20,
            ..BlockDevice::default()
        };
        assert_eq!(said(&device, &blank()), [""; 0]);
        let names = || vec!["x".to_owned()];
        let devices = [
            BlockDevice {
                read_only: true,
                ..device.clone()
            },
            BlockDevice {
                partitions: names(),
                ..device.clone()
            },
            BlockDevice {
                holders: names(),
                ..device.clone()
            },
            BlockDevice {
                slaves: names(),
                ..device.clone()
            },
            BlockDevice {
                mounts: names(),
                ..device.clone()
            },
            BlockDevice {
                swap: true,
                ..device.clone()
            },
            BlockDevice {
                partition: Some(crate::node::disks::inventory::Partition {
                    of: "nvme1n1".to_owned(),
                    number: 1,
                }),
                ..device.clone()
            },
        ];
        for device in devices {
            assert_eq!(said(&device, &blank()).len(), 1, "{device:?}");
        }
        let signature = Signature {
            kind: "xfs",
            class: Class::FileSystem,
            offset: 0,
            backup: false,
        };
        let file_system = FoundFileSystem {
            name: "xfs",
            kind: None,
            uuid: Uuid([0; 16]),
            label: String::new(),
            size: 1,
            log: 0,
            unfinished: false,
        };
        let data = Zeros {
            first_data: Some(7),
            ..blank().zeros.unwrap()
        };
        let evidences = [
            Evidence {
                exclusive: Exclusive::Busy,
                ..blank()
            },
            Evidence {
                exclusive: Exclusive::Failed("no".to_owned()),
                ..blank()
            },
            Evidence {
                signatures: vec![signature],
                ..blank()
            },
            Evidence {
                file_system: Some(file_system),
                ..blank()
            },
            Evidence {
                raid: Some(RaidMember {
                    array: Uuid([0; 16]),
                    level: 0,
                    members: 2,
                }),
                ..blank()
            },
            Evidence {
                blkid: Blkid::Found(vec!["TYPE=xfs".to_owned()]),
                ..blank()
            },
            Evidence {
                blkid: Blkid::Ambivalent,
                ..blank()
            },
            Evidence {
                blkid: Blkid::Failed("status 4".to_owned()),
                ..blank()
            },
            Evidence {
                zeros: Some(data),
                ..blank()
            },
            Evidence {
                zeros: None,
                ..blank()
            },
            Evidence {
                unreadable: Some("input/output error".to_owned()),
                ..blank()
            },
        ];
        for evidence in evidences {
            assert_eq!(said(&device, &evidence).len(), 1, "{evidence:?}");
        }
        // Without blkid our own eyes must do.
        assert_eq!(
            said(
                &device,
                &Evidence {
                    blkid: Blkid::Absent,
                    ..blank()
                }
            ),
            [""; 0]
        );
    }

    #[test]
    fn an_array_is_made_of_its_members_only() {
        let array = BlockDevice {
            slaves: vec!["nvme1n1".to_owned(), "nvme2n1".to_owned()],
            ..BlockDevice::default()
        };
        assert!(objections(&array, &blank(), &array.slaves).is_empty());
        assert_eq!(objections(&array, &blank(), &array.slaves[..1]).len(), 1);
    }
}
