//! Owns the places that depend on a disk's size: second copies of superblocks, and everything that is kept at the
//! end. Touches nothing.

use std::io;

use super::Class::{FileSystem, Member, PartitionTable};
use super::{Class, Reader, Signature, table};

/// Magic of Linux RAID superblocks, all versions.
const RAID: u32 = 0xa92b_4efc;

fn sign(kind: &'static str, class: Class, offset: u64, backup: bool) -> Signature {
    Signature {
        kind,
        class,
        offset,
        backup,
    }
}

/// Signs whose place is computed.
pub(super) fn computed(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = at_the_end(reader)?;
    found.extend(raid(reader)?);
    found.extend(ext_copies(reader)?);
    found.extend(xfs_copies(reader)?);
    found.extend(zfs(reader)?);
    found.extend(ufs(reader)?);
    Ok(found)
}

/// Kind, class, whether it is a copy, distance from the end, place of the sign after that, sign.
type AtTheEnd = (&'static str, Class, bool, u64, u64, &'static [u8]);

fn at_the_end(reader: &Reader) -> io::Result<Vec<Signature>> {
    let size = reader.size();
    let table: [AtTheEnd; 19] = [
        ("gpt", PartitionTable, true, 512, 0, b"EFI PART"),
        ("gpt", PartitionTable, true, 4096, 0, b"EFI PART"),
        ("ntfs", FileSystem, true, 512, 3, b"NTFS    "),
        (
            "bcachefs",
            FileSystem,
            true,
            1 << 20,
            24,
            b"\xc6\x85\x73\xf6\x66\xce\x90\xa9",
        ),
        ("DRBD", Member, false, 4096, 60, b"\x83\x74\x02\x6b"),
        ("DRBD", Member, false, 4096, 60, b"\x83\x74\x02\x6c"),
        ("DRBD", Member, false, 4096, 60, b"\x83\x74\x02\x6d"),
        ("ddf_raid_member", Member, false, 512, 0, b"\xde\x11\xde\x11"),
        (
            "ddf_raid_member",
            Member,
            false,
            257 * 512,
            0,
            b"\xde\x11\xde\x11",
        ),
        (
            "isw_raid_member",
            Member,
            false,
            1024,
            0,
            b"Intel Raid ISM Cfg Sig. ",
        ),
        ("nvidia_raid_member", Member, false, 1024, 0, b"NVIDIA  "),
        ("lsi_mega_raid_member", Member, false, 512, 0, b"$XIDE$"),
        ("adaptec_raid_member", Member, false, 512, 0, b"DPTM"),
        ("adaptec_raid_member", Member, false, 512, 0, b"\xc4\x65\x07\x90"),
        (
            "hpt45x_raid_member",
            Member,
            false,
            11 * 512,
            0,
            b"\xf3\x16\x78\x5a",
        ),
        (
            "hpt45x_raid_member",
            Member,
            false,
            11 * 512,
            0,
            b"\xfd\x16\x78\x5a",
        ),
        (
            "promise_fasttrack_raid_member",
            Member,
            false,
            63 * 512,
            0,
            b"Promise Technology, Inc.",
        ),
        (
            "promise_fasttrack_raid_member",
            Member,
            false,
            256 * 512,
            0,
            b"Promise Technology, Inc.",
        ),
        (
            "promise_fasttrack_raid_member",
            Member,
            false,
            16 * 512,
            0,
            b"Promise Technology, Inc.",
        ),
    ];
    let mut found = Vec::new();
    for (kind, class, backup, from_end, after, magic) in table {
        // Those of 4096 bytes are at a multiple of that.
        let end = if from_end == 4096 && class == Member {
            size & !4095
        } else {
            size
        };
        let Some(offset) = end.checked_sub(from_end).map(|place| place + after) else {
            continue;
        };
        if reader.is(offset, magic)? {
            found.push(sign(kind, class, offset, backup));
        }
    }
    // NILFS2: magic of two bytes, taken with the length and type fields that go with it.
    let copies = [(1024, false), ((size / 512).saturating_sub(8) * 512, true)];
    for (superblock, backup) in copies {
        let revision = reader.u32(superblock)?;
        if reader.is(superblock + 6, b"\x34\x34")?
            && revision.is_some_and(|revision| (1..=64).contains(&revision))
        {
            found.push(sign("nilfs2", FileSystem, superblock + 6, backup));
        }
    }
    Ok(found)
}

/// Where superblocks of version 1 are: at the end, at the start, 4 KiB after the start.
pub(super) fn raid_1(size: u64) -> impl Iterator<Item = u64> {
    let end = (size & !0xfff).checked_sub(0x2000);
    [Some(0), Some(0x1000), end].into_iter().flatten()
}

/// Whether these bytes are a superblock of version 1 that belongs at `offset`.
pub(super) fn is_raid_1(bytes: &[u8], offset: u64) -> bool {
    let place = bytes
        .get(144..152)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    bytes.starts_with(&RAID.to_le_bytes()) && place == Some(offset / 512)
}

fn raid(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    for offset in raid_1(reader.size()) {
        if reader
            .at(offset, 256)?
            .is_some_and(|bytes| is_raid_1(&bytes, offset))
        {
            found.push(sign("linux_raid_member", Member, offset, false));
        }
    }
    // Version 0.90: in the last full 64 KiB, in the byte order of the machine that made it.
    if let Some(offset) = (reader.size() & !0xffff).checked_sub(0x1_0000) {
        let magic = reader.u32(offset)?;
        if magic == Some(RAID) || magic == Some(RAID.swap_bytes()) {
            found.push(sign("linux_raid_member", Member, offset, false));
        }
    }
    Ok(found)
}

/// Places of ext's second superblocks: groups 1 and the powers of 3, 5 and 7, for each block size.
fn ext_groups(size: u64) -> impl Iterator<Item = (u64, u32, u16)> {
    let powers = |base: u64| {
        (1..).map_while(move |exponent| base.checked_pow(exponent).filter(|power| *power < 65536))
    };
    let groups: Vec<u64> = std::iter::once(1)
        .chain(powers(3))
        .chain(powers(5))
        .chain(powers(7))
        .collect();
    [0u32, 1, 2, 6].into_iter().flat_map(move |log_size| {
        let block = 1024u64 << log_size;
        let first = u64::from(log_size == 0);
        let group = move |number: u64| {
            let offset = (first + number * 8 * block) * block;
            (offset < size).then_some((offset, log_size, u16::try_from(number).unwrap_or(u16::MAX)))
        };
        groups.clone().into_iter().filter_map(group)
    })
}

fn ext_copies(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    for (offset, log_size, group) in ext_groups(reader.size()) {
        let fields = [
            reader.u32(offset)?,
            reader.u32(offset + 4)?,
            reader.u32(offset + 24)?,
        ];
        let same = reader.is(offset + 56, b"\x53\xef")?
            && reader.u16(offset + 90)? == Some(group)
            && fields[2] == Some(log_size)
            && fields[0] != Some(0)
            && fields[1] != Some(0);
        if same {
            found.push(sign("ext", FileSystem, offset + 56, true));
        }
    }
    Ok(found)
}

/// Places where XFS may have begun its second and later allocation groups, as mkfs.xfs divides a disk.
fn xfs_groups(size: u64) -> impl Iterator<Item = u64> {
    const BLOCK: u64 = 4096;
    const TERABYTE: u64 = 1 << 40;
    let blocks = size / BLOCK;
    let parts = [2u64, 4, 8, 16, 32].into_iter().flat_map(move |parts| {
        let group = blocks.div_ceil(parts) * BLOCK;
        (1..parts.min(5)).map(move |number| number * group)
    });
    parts
        .chain((1..8).map(|number| number * TERABYTE))
        .filter(move |offset| *offset > 0 && *offset < size)
}

fn xfs_copies(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    for offset in xfs_groups(reader.size()) {
        if reader.is(offset, b"XFSB")? {
            found.push(sign("xfs", FileSystem, offset, true));
        }
    }
    Ok(found)
}

/// ZFS: four labels of 256 KiB, two at each end, the second half of each a ring of uberblocks.
fn zfs(reader: &Reader) -> io::Result<Vec<Signature>> {
    const LABEL: u64 = 256 * 1024;
    const UBERBLOCK: [u8; 8] = 0x00ba_b10c_u64.to_le_bytes();
    let end = reader.size() / LABEL * LABEL;
    let labels = [
        Some(0),
        Some(LABEL),
        end.checked_sub(2 * LABEL),
        end.checked_sub(LABEL),
    ];
    let mut found = Vec::new();
    for label in labels.into_iter().flatten() {
        let Some(ring) = reader.at(label + LABEL / 2, 128 * 1024)? else {
            continue;
        };
        let uberblock = ring.chunks(1024).position(|slot| {
            let swapped: Vec<u8> = slot[..8].iter().rev().copied().collect();
            slot.starts_with(&UBERBLOCK) || swapped == UBERBLOCK
        });
        if let Some(slot) = uberblock {
            let offset = label + LABEL / 2 + slot as u64 * 1024;
            found.push(sign("zfs_member", Member, offset, label != 0));
        }
    }
    Ok(found)
}

fn ufs(reader: &Reader) -> io::Result<Vec<Signature>> {
    const MAGICS: [u32; 6] = [
        0x0001_1954,
        0x1954_0119,
        0x0019_5612,
        0x0009_5014,
        0x0061_2195,
        0x0523_1994,
    ];
    let mut found = Vec::new();
    for start in [0, 8, 64, 256] {
        let offset = start * 1024 + 1372;
        let magic = reader.u32(offset)?;
        if magic.is_some_and(|magic| MAGICS.contains(&magic) || MAGICS.contains(&magic.swap_bytes())) {
            found.push(sign("ufs", FileSystem, offset, false));
        }
    }
    Ok(found)
}

/// Every place, by its offset, where something is kept that is neither near the start nor near the end of a disk
/// of this size. In order.
pub fn far(size: u64) -> Vec<u64> {
    let ext = ext_groups(size).map(|(offset, ..)| offset);
    let mut places: Vec<u64> = ext.chain(xfs_groups(size)).chain(table::far_places()).collect();
    places.retain(|offset| *offset < size);
    places.sort_unstable();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_superblocks_of_ext_are_where_mke2fs_says() {
        // `mke2fs -n -b 4096` and `-b 1024` name the blocks: 32768, 98304, …, and 8193, 24577, ….
        let places: Vec<(u64, u32, u16)> = ext_groups(40 << 30).collect();
        for expected in [
            (32768 * 4096, 2, 1),
            (98304 * 4096, 2, 3),
            (8193 * 1024, 0, 1),
            (24577 * 1024, 0, 3),
        ] {
            assert!(places.contains(&expected), "{expected:?}");
        }
    }

    #[test]
    fn far_places_lie_within() {
        for size in [0, 1, 4096, 1 << 20, 1 << 30, 16 << 40, u64::MAX] {
            let places = far(size);
            assert!(places.iter().all(|place| *place < size), "{size}");
            assert!(places.len() < 400, "{}", places.len());
        }
    }
}
