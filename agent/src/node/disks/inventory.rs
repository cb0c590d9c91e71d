//! Owns the list of this machine's block devices: what the kernel and the disks say of themselves.
//! Touches `/sys/class/block`, `/proc` and, for one question, NVMe disks; it only reads.

use std::fs::File;

use serde::Serialize;

use super::identify::{self, Identity};
use super::mounts::{self, Mount};
use super::nvme::{self, Subject};
use crate::host::Files;

/// A partition's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Kernel's name of the disk.
    pub of: String,
    /// Number, from 1.
    pub number: u32,
}

/// A block device as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    /// Kernel's name: `nvme1n1`, `xvdf`, `loop0`.
    pub name: String,
    /// Device number, major and minor.
    pub number: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Whether it refuses writing.
    pub read_only: bool,
    /// Where it lies, if it is a partition.
    pub partition: Option<Partition>,
    /// Its partitions by name.
    pub partitions: Vec<String>,
    /// Devices that are made of it: RAID arrays, volumes of LVM, opened LUKS.
    pub holders: Vec<String>,
    /// Devices that it is made of.
    pub slaves: Vec<String>,
    /// Where it is mounted.
    pub mounts: Vec<String>,
    /// Whether it is swapped on.
    pub swap: bool,
    /// What the disk says of itself, as far as it does.
    pub identity: Identity,
    /// Number that the kernel gives to each disk that it finds, never twice (Linux 5.15 and later).
    pub sequence: Option<u64>,
}

impl BlockDevice {
    /// Path of its node.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// What stays the same when the kernel numbers its disks anew; none if the disk has no such thing.
    pub fn stable_identity(&self) -> Option<String> {
        let identity = &self.identity;
        let serial = (!identity.serial.is_empty()).then(|| format!("{} {}", identity.model, identity.serial));
        identity.volume.clone().or(serial)
    }

    /// Whether it is a disk of an instance that goes with it.
    pub fn is_instance_store(&self) -> bool {
        self.identity.model == identify::INSTANCE_STORE_MODEL && self.partition.is_none()
    }
}

/// Block devices and mounts of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Devices that have a size, by name. A loop device without a file has none.
    pub devices: Vec<BlockDevice>,
    /// Everything that is mounted.
    pub mounts: Vec<Mount>,
}

impl Inventory {
    /// Looks. What vanishes while it looks is left out: disks come and go.
    pub fn read(files: &Files) -> Self {
        let text = |path: &str| -> String {
            let read = files.read(path).ok().flatten().unwrap_or_default();
            String::from_utf8_lossy(&read).into_owned()
        };
        let mounts = mounts::mounts(&text("/proc/self/mountinfo"));
        let swaps = mounts::swaps(&text("/proc/swaps"));
        let names = files.entries("/sys/class/block").unwrap_or_default();
        let devices = names
            .iter()
            .filter_map(|name| device(files, name, &mounts, &swaps))
            .collect();
        Self { devices, mounts }
    }

    /// The device of this name.
    pub fn get(&self, name: &str) -> Option<&BlockDevice> {
        self.devices.iter().find(|device| device.name == name)
    }
}

fn device(files: &Files, name: &str, mounts: &[Mount], swaps: &[String]) -> Option<BlockDevice> {
    let folder = format!("/sys/class/block/{name}");
    let attribute = |attribute: &str| -> Option<String> {
        let read = files.read(format!("{folder}/{attribute}")).ok()??;
        let text = String::from_utf8_lossy(&read).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let below = |folder_name: &str| {
        files
            .entries(format!("{folder}/{folder_name}"))
            .unwrap_or_default()
    };
    let number = attribute("dev")?;
    let (major, minor) = number.split_once(':')?;
    let number = (major.parse().ok()?, minor.parse().ok()?);
    // In units of 512 bytes, whatever the disk's own sector size is.
    let size = attribute("size")?.parse::<u64>().ok()?.checked_mul(512)?;
    if size == 0 {
        return None;
    }
    let partition = attribute("partition")
        .and_then(|text| text.parse().ok())
        .map(|number| Partition {
            of: parent(files, &folder).unwrap_or_default(),
            number,
        });
    let partitions = files.entries(&folder).unwrap_or_default();
    let partitions: Vec<String> = partitions
        .into_iter()
        .filter(|entry| entry.starts_with(name))
        .filter(|entry| matches!(files.mode(format!("{folder}/{entry}/partition")), Ok(Some(_))))
        .collect();
    // `!` stands for a slash of the name in /dev.
    let node = name.replace('!', "/");
    let path = format!("/dev/{node}");
    // Some file systems (Btrfs) show a number of their own: there the path has to do.
    let mounted = mounts
        .iter()
        .filter(|mount| mount.number == number || mount.source == path);
    let read_only = attribute("ro").is_some_and(|text| text != "0");
    Some(BlockDevice {
        number,
        size,
        read_only,
        partition,
        partitions,
        holders: below("holders"),
        slaves: below("slaves"),
        mounts: mounted.map(|mount| mount.point.clone()).collect(),
        swap: swaps.contains(&path),
        identity: identity(files, &node, &attribute),
        sequence: attribute("diskseq").and_then(|text| text.parse().ok()),
        name: node,
    })
}

/// The disk of a partition is the folder above it.
fn parent(files: &Files, folder: &str) -> Option<String> {
    let target = files.link_target(folder).ok().flatten()?;
    let mut parts = target.rsplit('/').skip(1);
    parts.next().map(|name| name.replace('!', "/"))
}

fn identity(files: &Files, name: &str, attribute: &dyn Fn(&str) -> Option<String>) -> Identity {
    // sysfs has both for NVMe (the controller's) and for virtio; no privilege is needed.
    let serial = attribute("device/serial")
        .or_else(|| attribute("serial"))
        .unwrap_or_default();
    let mut identity = Identity {
        model: attribute("device/model").unwrap_or_default(),
        volume: identify::volume_id(&serial),
        requested: None,
        serial,
    };
    let Some(namespace) = name.strip_prefix("nvme").filter(|rest| !rest.contains('p')) else {
        return identity;
    };
    let Ok(disk) = File::open(files.locate(format!("/dev/{name}"))) else {
        return identity;
    };
    let page = nvme::identify(&disk, Subject::Controller);
    if let Some(said) = page.and_then(|page| identify::controller(page.as_slice())) {
        identity = said;
        let number =
            attribute("nsid").or_else(|| namespace.rsplit_once('n').map(|(_, number)| number.to_owned()));
        let number = number.and_then(|number| number.parse().ok());
        if let Some(page) = number.and_then(|number| nvme::identify(&disk, Subject::Namespace(number))) {
            identify::add_namespace(&mut identity, page.as_slice());
        }
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as sysfs has it, with the links that it has.
    fn tree(devices: &[(&str, &[(&str, &str)])]) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        files.make_directory("/sys/class/block", 0o755).unwrap();
        for (path, attributes) in devices {
            let name = path.rsplit('/').next().unwrap();
            for (attribute, content) in *attributes {
                let place = format!("/sys/devices/{path}/{attribute}");
                files
                    .write_atomic(place, format!("{content}\n").as_bytes(), 0o644)
                    .unwrap();
            }
            let link = format!("../../devices/{path}");
            files.link(format!("/sys/class/block/{name}"), &link).unwrap();
        }
        (folder, files)
    }

    #[test]
    fn a_disk_with_a_partition_is_read() {
        let (_folder, files) = tree(&[
            (
                "pci/nvme/nvme1/nvme1n1",
                &[
                    ("dev", "259:1"),
                    ("size", "2097152"),
                    ("ro", "0"),
                    ("diskseq", "12"),
                    ("device/model", "Amazon Elastic Block Store"),
                    ("device/serial", "vol0123456789abcdef0"),
                    ("holders/.keep", ""),
                ],
            ),
            (
                "pci/nvme/nvme1/nvme1n1/nvme1n1p1",
                &[("dev", "259:2"), ("size", "1024"), ("partition", "1")],
            ),
            ("virtual/loop0", &[("dev", "7:0"), ("size", "0")]),
        ]);
        let mountinfo = "35 29 259:2 / /data rw - xfs /dev/nvme1n1p1 rw\n";
        files
            .write_atomic("/proc/self/mountinfo", mountinfo.as_bytes(), 0o444)
            .unwrap();
        let inventory = Inventory::read(&files);
        let names: Vec<&str> = inventory
            .devices
            .iter()
            .map(|device| device.name.as_str())
            .collect();
        assert_eq!(names, ["nvme1n1", "nvme1n1p1"]);
        let disk = inventory.get("nvme1n1").unwrap();
        assert_eq!(disk.size, 1 << 30);
        assert_eq!(disk.partitions, ["nvme1n1p1"]);
        assert_eq!(disk.sequence, Some(12));
        assert_eq!(disk.stable_identity().as_deref(), Some("vol-0123456789abcdef0"));
        let partition = inventory.get("nvme1n1p1").unwrap();
        assert_eq!(
            partition.partition,
            Some(Partition {
                of: "nvme1n1".to_owned(),
                number: 1
            })
        );
        assert_eq!(partition.mounts, ["/data"]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let inventory = Inventory::read(&Files::new("/"));
        assert!(inventory.mounts.iter().any(|mount| mount.point == "/"));
        for device in &inventory.devices {
            assert!(device.size > 0 && device.number.0 > 0, "{device:?}");
        }
    }
}
