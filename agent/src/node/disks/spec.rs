//! Owns what a configuration says of a node's disks: plain types, and whether they make sense together.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// Everything that a node's configuration says about disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Local disks.
    pub disks: Vec<DiskSpec>,
    /// Network file systems.
    pub efs: Vec<EfsSpec>,
    /// Whether this is all: mounts that an earlier run set up and nobody asks for any more are then taken out of
    /// the next boot. They stay mounted until then.
    pub whole: bool,
}

/// One local disk and where it is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskSpec {
    /// Which disk.
    pub source: DiskSource,
    /// Absolute path.
    pub mount_point: String,
    /// What is on it, or made on it if it is blank.
    pub file_system: FileSystem,
    /// Whether a blank disk may get a file system.
    pub format: Format,
    /// Further mount options, one word each.
    pub options: Vec<String>,
    /// Label that the file system has, or gets.
    pub label: Option<String>,
    /// Whether the file system grows to the size of its disk.
    pub grow: bool,
    /// Owner, group and mode of the mounted file system's root.
    pub root: RootAccess,
}

impl DiskSpec {
    /// A disk as most configurations have it: XFS, made if the disk is blank, grown with its disk.
    pub fn new(source: DiskSource, mount_point: impl Into<String>) -> Self {
        Self {
            source,
            mount_point: mount_point.into(),
            file_system: FileSystem::Xfs,
            format: Format::IfBlank,
            options: Vec::new(),
            label: None,
            grow: true,
            root: RootAccess::default(),
        }
    }
}

/// Which disk is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSource {
    /// An EBS volume: `vol-0123456789abcdef0`. Instances on Nitro tell the id of a volume; those on Xen do not.
    Volume(String),
    /// A device name as it was given when the volume was attached (`/dev/sdf` is the same as `/dev/xvdf`), a
    /// kernel's name, or a link below `/dev/disk`. With a number at its end (`/dev/sdf1`): a partition, which is
    /// mounted and never formatted.
    Device(String),
    /// All instance-store disks as one.
    InstanceStore {
        /// Join more than one disk as RAID 0. Without it more than one is refused.
        raid0: bool,
    },
}

impl fmt::Display for DiskSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(id) => formatter.write_str(id),
            Self::Device(path) => formatter.write_str(path),
            Self::InstanceStore { .. } => formatter.write_str("instance-store"),
        }
    }
}

/// File systems that are made and mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// XFS.
    Xfs,
    /// ext4; ext2 and ext3 are other file systems.
    Ext4,
}

impl FileSystem {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Longest label in bytes, from the sizes of the superblocks' fields.
    pub fn longest_label(self) -> usize {
        match self {
            Self::Xfs => 12,
            Self::Ext4 => 16,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a disk may be formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Only if all evidence says that nothing was ever written to it.
    IfBlank,
    /// Never.
    Never,
}

/// Owner, group and mode of a directory; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RootAccess {
    /// User by name.
    pub owner: Option<String>,
    /// Group by name.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl RootAccess {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A file system of Amazon EFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EfsSpec {
    /// Which file system.
    pub target: EfsTarget,
    /// Access point (`fsap-…`); needs `tls`.
    pub access_point: Option<String>,
    /// Absolute path.
    pub mount_point: String,
    /// Encrypt on the way; needs amazon-efs-utils on the node.
    pub tls: bool,
    /// Authorise by the instance's role; needs `tls`.
    pub iam: bool,
    /// Further mount options, one word each.
    pub options: Vec<String>,
}

/// The address of an EFS file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EfsTarget {
    /// By id, in a region.
    Id {
        /// `fs-…`.
        id: String,
        /// Region, such as `eu-west-1`.
        region: String,
        /// Domain of the partition: `amazonaws.com`, `amazonaws.com.cn`.
        domain: String,
    },
    /// By name or address of a mount target.
    Dns(String),
}

impl EfsTarget {
    /// Name to mount by plain NFS.
    pub fn host(&self) -> String {
        match self {
            Self::Id { id, region, domain } => format!("{id}.efs.{region}.{domain}"),
            Self::Dns(name) => name.clone(),
        }
    }

    /// Name to mount by amazon-efs-utils, which finds the region by itself.
    pub fn helper_name(&self) -> &str {
        match self {
            Self::Id { id, .. } => id,
            Self::Dns(name) => name,
        }
    }
}

impl fmt::Display for EfsTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.helper_name())
    }
}

/// One thing that a configuration of disks cannot mean.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[error("{subject}: {fault}")]
pub struct SpecFault {
    /// Mount point or source at fault.
    pub subject: String,
    /// What is wrong.
    pub fault: String,
}

/// Where nothing may be mounted: a mount there takes the machine's own files away.
const SYSTEM_FOLDERS: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var",
];

impl Request {
    /// Whether it asks for no file system at all.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.efs.is_empty()
    }

    /// All faults that can be told without looking at the machine.
    pub fn faults(&self) -> Vec<SpecFault> {
        let mut faults = Vec::new();
        let mut fault = |subject: &str, fault: String| {
            faults.push(SpecFault {
                subject: subject.to_owned(),
                fault,
            });
        };
        let mut points: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sources: BTreeMap<String, usize> = BTreeMap::new();
        for disk in &self.disks {
            *points.entry(&disk.mount_point).or_default() += 1;
            *sources.entry(source_key(&disk.source)).or_default() += 1;
            if let Some(wrong) = wrong_source(&disk.source) {
                fault(&disk.mount_point, wrong);
            }
            let longest = disk.file_system.longest_label();
            if let Some(label) = &disk.label
                && (label.is_empty()
                    || label.len() > longest
                    || !label.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                fault(
                    &disk.mount_point,
                    format!(
                        "{label:?} is no label of {}: 1 to {longest} printable characters without spaces",
                        disk.file_system
                    ),
                );
            }
            if disk.root.mode.is_some_and(|mode| mode > 0o7777) {
                fault(
                    &disk.mount_point,
                    "the mode has more than permission bits".to_owned(),
                );
            }
        }
        for efs in &self.efs {
            *points.entry(&efs.mount_point).or_default() += 1;
            let host = efs.target.host();
            if host.is_empty()
                || !host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
            {
                fault(
                    &efs.mount_point,
                    format!("{host:?} is no address of a file system"),
                );
            }
            if !efs.tls && (efs.access_point.is_some() || efs.iam) {
                fault(&efs.mount_point, "an access point and IAM need tls".to_owned());
            }
            if let Some(point) = &efs.access_point
                && !(point.starts_with("fsap-")
                    && point
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
            {
                fault(&efs.mount_point, format!("{point:?} is no access point (fsap-…)"));
            }
        }
        let options = self.disks.iter().map(|disk| (&disk.mount_point, &disk.options));
        let options = options.chain(self.efs.iter().map(|efs| (&efs.mount_point, &efs.options)));
        for (point, words) in options {
            for word in words.iter().filter(|word| !is_option(word)) {
                fault(point, format!("{word:?} is no mount option"));
            }
        }
        for (point, count) in points {
            if let Some(wrong) = wrong_mount_point(point) {
                fault(point, wrong);
            }
            if count > 1 {
                fault(point, format!("{count} file systems are to be mounted here"));
            }
        }
        for (source, count) in sources.into_iter().filter(|(_, count)| *count > 1) {
            fault(&source, format!("named {count} times"));
        }
        faults
    }
}

/// `/dev/sdf` and `/dev/xvdf` are one disk.
fn source_key(source: &DiskSource) -> String {
    match source {
        DiskSource::Device(path) => path.replacen("/dev/xvd", "/dev/sd", 1),
        other => other.to_string(),
    }
}

fn wrong_source(source: &DiskSource) -> Option<String> {
    let right = match source {
        DiskSource::Volume(id) => id
            .strip_prefix("vol-")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit())),
        DiskSource::Device(path) => path.strip_prefix("/dev/").is_some_and(|rest| {
            !rest.is_empty()
                && !rest.split('/').any(|part| matches!(part, "" | "." | ".."))
                && rest.bytes().all(|byte| byte.is_ascii_graphic())
        }),
        DiskSource::InstanceStore { .. } => true,
    };
    (!right).then(|| format!("{source} names no disk: vol-…, /dev/… or instance-store"))
}

/// Options end in unit files, in `/etc/fstab` and in argument lists: one word, no separators.
fn is_option(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b",\"'\\%#".contains(&byte))
}

fn wrong_mount_point(point: &str) -> Option<String> {
    let Some(rest) = point.strip_prefix('/') else {
        return Some("a mount point is an absolute path".to_owned());
    };
    if rest.is_empty() || SYSTEM_FOLDERS.contains(&point) {
        return Some("the machine's own files are there".to_owned());
    }
    let part = |part: &str| matches!(part, "" | "." | "..");
    if rest.split('/').any(part) {
        return Some("a mount point has no empty, `.` or `..` parts and no `/` at its end".to_owned());
    }
    // Beyond these, each place where a path is written has quoting rules of its own.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.+@:,=~".contains(&byte);
    if !point.bytes().all(plain) {
        return Some("a mount point has letters, digits and -_.+@:,=~ only".to_owned());
    }
    ["/dev/", "/proc/", "/sys/"]
        .iter()
        .any(|folder| point.starts_with(folder))
        .then(|| "the kernel's own files are there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(request: &Request) -> Vec<String> {
        request.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_usual_request_has_no_faults() {
        let volume = DiskSpec::new(
            DiskSource::Volume("vol-0123456789abcdef0".to_owned()),
            "/opt/nomad/data",
        );
        let device = DiskSpec {
            label: Some("scratch-1".to_owned()),
            options: vec!["noatime".to_owned(), "logbsize=256k".to_owned()],
            ..DiskSpec::new(DiskSource::Device("/dev/sdf".to_owned()), "/mnt/scratch")
        };
        let store = DiskSpec::new(DiskSource::InstanceStore { raid0: true }, "/mnt/store");
        let efs = EfsSpec {
            target: EfsTarget::Id {
                id: "fs-0123".to_owned(),
                region: "eu-west-1".to_owned(),
                domain: "amazonaws.com".to_owned(),
            },
            access_point: Some("fsap-0123".to_owned()),
            mount_point: "/efs".to_owned(),
            tls: true,
            iam: true,
            options: Vec::new(),
        };
        assert_eq!(efs.target.host(), "fs-0123.efs.eu-west-1.amazonaws.com");
        let request = Request {
            disks: vec![volume, device, store],
            efs: vec![efs],
            whole: true,
        };
        assert_eq!(faults(&request), [""; 0]);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let disk = |source: &str, point: &str| DiskSpec::new(DiskSource::Device(source.to_owned()), point);
        let request = Request {
            disks: vec![
                disk("/dev/sdf", "/data"),
                disk("/dev/xvdf", "/data"),
                disk("sdg", "/etc"),
                disk("/dev/../etc/passwd", "relative"),
                DiskSpec {
                    label: Some("a label".to_owned()),
                    options: vec!["a,b".to_owned()],
                    ..disk("/dev/sdh", "/a b")
                },
                DiskSpec::new(DiskSource::Volume("vol-xyz".to_owned()), "/a/../b"),
            ],
            efs: vec![EfsSpec {
                target: EfsTarget::Dns("a b".to_owned()),
                access_point: Some("fsap-1".to_owned()),
                mount_point: "/dev/efs".to_owned(),
                tls: false,
                iam: false,
                options: Vec::new(),
            }],
            whole: true,
        };
        assert_eq!(
            faults(&request),
            [
                "/etc: sdg names no disk: vol-…, /dev/… or instance-store",
                "relative: /dev/../etc/passwd names no disk: vol-…, /dev/… or instance-store",
                "/a b: \"a label\" is no label of xfs: 1 to 12 printable characters without spaces",
                "/a/../b: vol-xyz names no disk: vol-…, /dev/… or instance-store",
                "/dev/efs: \"a b\" is no address of a file system",
                "/dev/efs: an access point and IAM need tls",
                "/a b: \"a,b\" is no mount option",
                "/a b: a mount point has letters, digits and -_.+@:,=~ only",
                "/a/../b: a mount point has no empty, `.` or `..` parts and no `/` at its end",
                "/data: 2 file systems are to be mounted here",
                "/dev/efs: the kernel's own files are there",
                "/etc: the machine's own files are there",
                "relative: a mount point is an absolute path",
                "/dev/sdf: named 2 times",
            ]
        );
    }
}
