//! Owns which block device a configuration means, by every name that a disk can have on EC2.
//! Touches nothing.

use serde::Serialize;

use super::inventory::{BlockDevice, Inventory};
use super::spec::DiskSource;

/// What a source means on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// One device, by the kernel's name.
    One(String),
    /// The instance-store disks, by name.
    InstanceStore(Vec<String>),
    /// Two devices or more have this name: nobody can know which is meant.
    Ambiguous(Vec<String>),
    /// None.
    Missing,
}

/// Finds the device. `resolved` is the kernel's name behind the path of a [`DiskSource::Device`], if there is such
/// a file.
pub fn find(source: &DiskSource, resolved: Option<&str>, inventory: &Inventory) -> Match {
    let mut found: Vec<String> = match source {
        DiskSource::Volume(id) => {
            let whole = inventory
                .devices
                .iter()
                .filter(|device| device.partition.is_none());
            let same = whole.filter(|device| device.identity.volume.as_deref() == Some(id));
            same.map(|device| device.name.clone()).collect()
        }
        DiskSource::Device(path) => {
            let name = path.strip_prefix("/dev/").unwrap_or(path);
            let named = inventory
                .devices
                .iter()
                .filter(|device| is_named(device, name, inventory));
            let named = named.map(|device| device.name.clone());
            let resolved = resolved.filter(|name| inventory.get(name).is_some());
            named.chain(resolved.map(str::to_owned)).collect()
        }
        DiskSource::InstanceStore { .. } => {
            let disks = inventory
                .devices
                .iter()
                .filter(|device| device.is_instance_store());
            let disks: Vec<String> = disks.map(|device| device.name.clone()).collect();
            return if disks.is_empty() {
                Match::Missing
            } else {
                Match::InstanceStore(disks)
            };
        }
    };
    found.sort();
    found.dedup();
    match found.len() {
        0 => Match::Missing,
        1 => Match::One(found.remove(0)),
        _ => Match::Ambiguous(found),
    }
}

/// Whether a device is called `name` by the kernel, or was called so when it was attached. `sdf` and `xvdf` are the
/// same: EC2 takes both, Xen's kernel driver has the second.
fn is_named(device: &BlockDevice, name: &str, inventory: &Inventory) -> bool {
    if same_name(&device.name, name) {
        return true;
    }
    let Some(partition) = &device.partition else {
        return device
            .identity
            .requested
            .as_deref()
            .is_some_and(|requested| same_name(requested, name));
    };
    // A partition of a disk that was asked for as sdf is sdf1.
    let disk = inventory
        .get(&partition.of)
        .and_then(|disk| disk.identity.requested.as_deref());
    disk.is_some_and(|disk| same_name(&format!("{disk}{}", partition.number), name))
}

fn same_name(one: &str, other: &str) -> bool {
    let plain = |name: &str| match name.strip_prefix("xvd") {
        Some(letters) if !letters.is_empty() => format!("sd{letters}"),
        _ => name.to_owned(),
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::disks::identify::{INSTANCE_STORE_MODEL, Identity};
    use crate::node::disks::inventory::Partition;

    fn disk(name: &str, requested: Option<&str>, volume: Option<&str>) -> BlockDevice {
        BlockDevice {
            name: name.to_owned(),
            identity: Identity {
                requested: requested.map(str::to_owned),
                volume: volume.map(str::to_owned),
                ..Identity::default()
            },
            ..BlockDevice::default()
        }
    }

    fn partition(name: &str, of: &str, number: u32) -> BlockDevice {
        BlockDevice {
            name: name.to_owned(),
            partition: Some(Partition {
                of: of.to_owned(),
                number,
            }),
            ..BlockDevice::default()
        }
    }

    fn machine() -> Inventory {
        let mut store = [disk("nvme3n1", None, None), disk("nvme4n1", None, None)];
        for disk in &mut store {
            INSTANCE_STORE_MODEL.clone_into(&mut disk.identity.model);
        }
        let [third, fourth] = store;
        Inventory {
            devices: vec![
                disk("nvme1n1", Some("sdf"), Some("vol-0aaaaaaaaaaaaaaaa")),
                partition("nvme1n1p1", "nvme1n1", 1),
                disk("nvme2n1", Some("xvdg"), Some("vol-0bbbbbbbbbbbbbbbb")),
                third,
                fourth,
                disk("xvdh", None, None),
                partition("xvdh1", "xvdh", 1),
            ],
            mounts: Vec::new(),
        }
    }

    #[test]
    fn every_name_of_a_disk_finds_it() {
        let one = |name: &str| Match::One(name.to_owned());
        let cases = [
            ("/dev/sdf", one("nvme1n1")),
            ("/dev/xvdf", one("nvme1n1")),
            ("/dev/nvme1n1", one("nvme1n1")),
            ("/dev/sdf1", one("nvme1n1p1")),
            ("/dev/xvdf1", one("nvme1n1p1")),
            ("/dev/sdg", one("nvme2n1")),
            ("/dev/xvdg", one("nvme2n1")),
            ("/dev/sdh", one("xvdh")),
            ("/dev/sdh1", one("xvdh1")),
            ("/dev/sd", Match::Missing),
            ("/dev/xvd", Match::Missing),
            ("/dev/sdf2", Match::Missing),
            ("/dev/nvme9n1", Match::Missing),
        ];
        for (path, expected) in cases {
            let source = DiskSource::Device(path.to_owned());
            assert_eq!(find(&source, None, &machine()), expected, "{path}");
        }
        let volume = |id: &str| find(&DiskSource::Volume(id.to_owned()), None, &machine());
        assert_eq!(volume("vol-0bbbbbbbbbbbbbbbb"), one("nvme2n1"));
        assert_eq!(volume("vol-0cccccccccccccccc"), Match::Missing);
        let store = find(&DiskSource::InstanceStore { raid0: true }, None, &machine());
        assert_eq!(
            store,
            Match::InstanceStore(vec!["nvme3n1".to_owned(), "nvme4n1".to_owned()])
        );
    }

    #[test]
    fn a_link_is_followed_and_may_not_contradict() {
        let link = DiskSource::Device("/dev/disk/by-id/some".to_owned());
        assert_eq!(
            find(&link, Some("nvme2n1"), &machine()),
            Match::One("nvme2n1".to_owned())
        );
        assert_eq!(find(&link, Some("gone"), &machine()), Match::Missing);
        // udev made the link /dev/sdf, and it agrees; or it is a link to another disk, and nobody knows.
        let name = DiskSource::Device("/dev/sdf".to_owned());
        assert_eq!(
            find(&name, Some("nvme1n1"), &machine()),
            Match::One("nvme1n1".to_owned())
        );
        let both = Match::Ambiguous(vec!["nvme1n1".to_owned(), "nvme2n1".to_owned()]);
        assert_eq!(find(&name, Some("nvme2n1"), &machine()), both);
    }
}
