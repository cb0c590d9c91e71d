//! What disks and the kernel say: identify pages, events, tables of mounts, superblocks, whole disks of anything.

use cos_agent::node::disks::identify::{self, PAGE};
use cos_agent::node::disks::mounts::{mounts, swaps};
use cos_agent::node::disks::probe::{file_system, raid_member, signatures};
use cos_agent::node::disks::{parse_uevent, units};

use crate::target::{TEXT, Target};

fn page(model: &[u8], name: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[..2].copy_from_slice(&[0x0f, 0x1d]);
    page[4..25].copy_from_slice(b"vol0123456789abcdef0 ");
    page[24..64].fill(b' ');
    page[24..24 + model.len()].copy_from_slice(model);
    page[3072..3072 + name.len()].copy_from_slice(name);
    page[384..384 + name.len()].copy_from_slice(name);
    page
}

fn xfs() -> Vec<u8> {
    let mut superblock = vec![0_u8; 1368];
    superblock[..8].copy_from_slice(b"XFSB\0\0\x10\0");
    superblock[14..16].copy_from_slice(&[0x40, 0]);
    superblock[84..92].copy_from_slice(&[0, 0, 0x10, 0, 0, 0, 0, 4]);
    superblock
}

fn ext4() -> Vec<u8> {
    let mut superblock = vec![0_u8; 1368];
    superblock[1024..1032].copy_from_slice(&[0, 1, 0, 0, 0, 4, 0, 0]);
    superblock[1024 + 40] = 8;
    superblock[1024 + 56..1024 + 58].copy_from_slice(b"\x53\xef");
    superblock
}

/// Beginnings of disks with signatures where they belong: a table of partitions, a swap area, a member of an array.
fn disks() -> Vec<Vec<u8>> {
    let mut blank = vec![0_u8; 16 * 1024];
    let mut table = blank.clone();
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    table[446 + 4] = 0x83;
    table[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 0, 1, 0]);
    table[512..520].copy_from_slice(b"EFI PART");
    let mut swap = blank.clone();
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let mut array = blank.clone();
    array[4096..4104].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    let mut luks = blank.clone();
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    blank[3] = 0;
    let (mut xfs, mut ext4) = (xfs(), ext4());
    xfs.resize(16 * 1024, 0);
    ext4.resize(16 * 1024, 0);
    vec![blank, table, swap, array, luks, xfs, ext4]
}

pub(crate) fn targets() -> Vec<Target> {
    let mount_table = "35 29 259:1 / /mnt/a\\040b rw,nosuid master:1 - xfs /dev/nvme1n1 rw,attr2\n\
                       36 35 0:5 /x /proc rw - proc proc rw\n/dev/xvdf /data xfs defaults 0 0\n";
    vec![
        Target::new(
            "nvme identify page",
            [
                page(identify::EBS_MODEL.as_bytes(), b"/dev/sdf"),
                page(identify::EBS_MODEL.as_bytes(), b"sdf  "),
                page(identify::INSTANCE_STORE_MODEL.as_bytes(), b"none:/dev/sdb"),
            ],
            &[],
            |input| {
                // Most of a page is of no meaning; what is counted is whether the volume is told.
                let mut identity = identify::controller(input);
                if let Some(identity) = &mut identity {
                    identify::add_namespace(identity, input);
                }
                identity.is_some_and(|identity| identity.requested.is_some())
            },
        )
        .weighing(80),
        Target::new(
            "nvme volume id",
            ["vol0123456789abcdef0", "vol-0123456789abcdef0"],
            TEXT,
            |input| identify::volume_id(&String::from_utf8_lossy(input)).is_some(),
        )
        .weighing(40),
        Target::new(
            "uevent",
            [
                "add@/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=nvme1n1\0SEQNUM=1\0",
                "change@/devices/vbd-51712/block/xvda\0SUBSYSTEM=block\0DEVNAME=/dev/xvda\0",
            ],
            &["\0", "@", "=", "/dev/", "DEVNAME=", "SUBSYSTEM="],
            |input| parse_uevent(input).is_some(),
        )
        .weighing(80),
        Target::new("mount tables", [mount_table], &["\n", " ", " - ", "\\040", "#", "\\", "0:0"], |input| {
            let text = String::from_utf8_lossy(input);
            swaps(&text);
            units::foreign_lines(&text, "/data");
            units::our_points(&text);
            mounts(&text).len() >= 2
        })
        .weighing(80),
        Target::new("superblock", [xfs(), ext4()], &[], |input| {
            file_system(&input.to_vec()).is_ok_and(|found| found.is_some())
        })
        .weighing(60),
        Target::new("disk", disks(), &[], |input| {
            let disk = input.to_vec();
            let _ = raid_member(&disk);
            let found = signatures(&disk).unwrap();
            assert!(found.iter().all(|signature| signature.offset < disk.len() as u64));
            !found.is_empty()
        })
        .weighing(10),
    ]
}
