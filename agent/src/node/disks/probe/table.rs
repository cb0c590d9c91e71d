//! Owns the signs at fixed places: what, where, which bytes. Touches nothing.
//!
//! Places and bytes: the formats' own documentation and kernel sources, compared with those that libblkid of
//! util-linux 2.41 looks for.

use std::io;

use super::Class::{FileSystem, Member, PartitionTable, Swap};
use super::{Class, Reader, Signature};

struct Entry {
    kind: &'static str,
    class: Class,
    offset: u64,
    magic: &'static [u8],
    backup: bool,
}

const fn entry_of(kind: &'static str, class: Class, offset: u64, magic: &'static [u8]) -> Entry {
    Entry {
        kind,
        class,
        offset,
        magic,
        backup: false,
    }
}

const fn backup(kind: &'static str, class: Class, offset: u64, magic: &'static [u8]) -> Entry {
    Entry {
        kind,
        class,
        offset,
        magic,
        backup: true,
    }
}

const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
const STRATIS: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";
const BLUESTORE: &[u8] = b"bluestore block device";

/// Signs of three bytes and more.
const STRONG: &[Entry] = &[
    // File systems.
    entry_of("apfs", FileSystem, 32, b"NXSB"),
    entry_of("bcachefs", FileSystem, 4096 + 24, BCACHEFS),
    backup("bcachefs", FileSystem, (2 << 20) + 24, BCACHEFS),
    entry_of("befs", FileSystem, 32, b"BFS1"),
    entry_of("befs", FileSystem, 32, b"1SFB"),
    entry_of("befs", FileSystem, 544, b"BFS1"),
    entry_of("befs", FileSystem, 544, b"1SFB"),
    entry_of("bfs", FileSystem, 0, b"\xce\xfa\xad\x1b"),
    entry_of("btrfs", FileSystem, 0x1_0040, b"_BHRfS_M"),
    backup("btrfs", FileSystem, (64 << 20) + 0x40, b"_BHRfS_M"),
    backup("btrfs", FileSystem, (256 << 30) + 0x40, b"_BHRfS_M"),
    entry_of("cramfs", FileSystem, 0, b"\x45\x3d\xcd\x28"),
    entry_of("cramfs", FileSystem, 0, b"\x28\xcd\x3d\x45"),
    entry_of("cramfs", FileSystem, 512, b"\x45\x3d\xcd\x28"),
    entry_of("erofs", FileSystem, 1024, b"\xe2\xe1\xf5\xe0"),
    entry_of("exfat", FileSystem, 3, b"EXFAT   "),
    backup("exfat", FileSystem, 12 * 512 + 3, b"EXFAT   "),
    backup("exfat", FileSystem, 12 * 4096 + 3, b"EXFAT   "),
    entry_of("exfs", FileSystem, 0, b"EXFS"),
    entry_of("f2fs", FileSystem, 1024, b"\x10\x20\xf5\xf2"),
    backup("f2fs", FileSystem, 4096 + 1024, b"\x10\x20\xf5\xf2"),
    entry_of("gfs2", FileSystem, 65536, b"\x01\x16\x19\x70"),
    entry_of("hpfs", FileSystem, 0x2000, b"\x49\xe8\x95\xf9"),
    entry_of("iso9660", FileSystem, 32769, b"CD001"),
    backup("iso9660", FileSystem, 34817, b"CD001"),
    entry_of("hsfs", FileSystem, 32777, b"CDROM"),
    entry_of("jfs", FileSystem, 0x8000, b"JFS1"),
    backup("jfs", FileSystem, 0xf000, b"JFS1"),
    entry_of("jffs2", FileSystem, 0, b"\x85\x19\x03\x20"),
    entry_of("netware", FileSystem, 4096, b"SPB5"),
    entry_of("ntfs", FileSystem, 3, b"NTFS    "),
    entry_of("ocfs", FileSystem, 8192, b"OracleCFS"),
    entry_of("ocfs2", FileSystem, 1024, b"OCFSV2"),
    entry_of("ocfs2", FileSystem, 2048, b"OCFSV2"),
    entry_of("ocfs2", FileSystem, 4096, b"OCFSV2"),
    entry_of("ocfs2", FileSystem, 8192, b"OCFSV2"),
    backup("ocfs2", FileSystem, 1 << 30, b"OCFSV2"),
    entry_of("ReFS", FileSystem, 0, b"\x00\x00\x00ReFS\x00"),
    entry_of("reiserfs", FileSystem, 0x1_0034, b"ReIsErFs"),
    entry_of("reiserfs", FileSystem, 0x1_0034, b"ReIsEr2Fs"),
    entry_of("reiserfs", FileSystem, 0x1_0034, b"ReIsEr3Fs"),
    entry_of("reiserfs", FileSystem, 0x2034, b"ReIsErFs"),
    entry_of("reiserfs", FileSystem, 0x2014, b"ReIsErFs"),
    entry_of("reiser4", FileSystem, 65536, b"ReIsEr4"),
    entry_of("romfs", FileSystem, 0, b"-rom1fs-"),
    entry_of("scoutfs", FileSystem, 65540, b"\x8b\x42\x3c\x10"),
    entry_of("squashfs", FileSystem, 0, b"hsqs"),
    entry_of("squashfs", FileSystem, 0, b"sqsh"),
    entry_of("ubi", FileSystem, 0, b"UBI#"),
    entry_of("ubifs", FileSystem, 0, b"\x31\x18\x10\x06"),
    entry_of("udf", FileSystem, 32769, b"BEA01"),
    entry_of("udf", FileSystem, 32769, b"NSR02"),
    entry_of("udf", FileSystem, 32769, b"NSR03"),
    backup("udf", FileSystem, 34817, b"NSR02"),
    backup("udf", FileSystem, 34817, b"NSR03"),
    entry_of("vfat", FileSystem, 0x52, b"FAT32   "),
    entry_of("vfat", FileSystem, 0x52, b"MSWIN"),
    entry_of("vfat", FileSystem, 0x36, b"FAT12   "),
    entry_of("vfat", FileSystem, 0x36, b"FAT16   "),
    entry_of("vfat", FileSystem, 0x36, b"FAT     "),
    entry_of("vfat", FileSystem, 0x36, b"MSDOS"),
    backup("vfat", FileSystem, 6 * 512 + 0x52, b"FAT32   "),
    entry_of("VMFS", FileSystem, 2 << 20, b"\x5e\xf1\xab\x2f"),
    entry_of("vxfs", FileSystem, 1024, b"\xf5\xfc\x01\xa5"),
    entry_of("vxfs", FileSystem, 8192, b"\xa5\x01\xfc\xf5"),
    entry_of("zonefs", FileSystem, 0, b"SFOZ"),
    // Parts of something else.
    entry_of("bcache", Member, 4096 + 24, BCACHE),
    entry_of("BitLocker", Member, 0, b"\xeb\x52\x90-FVE-FS-"),
    entry_of("BitLocker", Member, 0, b"\xeb\x58\x90-FVE-FS-"),
    entry_of("BitLocker", Member, 0, b"\xeb\x58\x90MSWIN4.1"),
    entry_of("ceph_bluestore", Member, 0, BLUESTORE),
    backup("ceph_bluestore", Member, 1 << 30, BLUESTORE),
    backup("ceph_bluestore", Member, 10 << 30, BLUESTORE),
    backup("ceph_bluestore", Member, 100 << 30, BLUESTORE),
    backup("ceph_bluestore", Member, 1000 << 30, BLUESTORE),
    entry_of("crypto_LUKS", Member, 0, b"LUKS\xba\xbe"),
    backup("crypto_LUKS", Member, 0x4000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x8000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x1_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x2_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x4_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x8_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x10_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x20_0000, b"SKUL\xba\xbe"),
    backup("crypto_LUKS", Member, 0x40_0000, b"SKUL\xba\xbe"),
    entry_of("DM_integrity", Member, 0, b"integrt\x00"),
    entry_of("DM_snapshot_cow", Member, 0, b"SnAp"),
    entry_of("DM_verity_hash", Member, 0, b"verity\x00\x00"),
    entry_of("drbdmanage_control_volume", Member, 0, b"$DRBDmgr=q"),
    entry_of("drbdproxy_datalog", Member, 0, b"DRBDdlh*"),
    entry_of("hpt37x_raid_member", Member, 4640, b"\xf0\x16\x78\x5a"),
    entry_of("hpt37x_raid_member", Member, 4640, b"\xfd\x16\x78\x5a"),
    entry_of("LVM2_member", Member, 24, b"LVM2 001"),
    entry_of("LVM2_member", Member, 536, b"LVM2 001"),
    entry_of("LVM2_member", Member, 1048, b"LVM2 001"),
    entry_of("LVM2_member", Member, 1560, b"LVM2 001"),
    backup("LVM2_member", Member, 4100, b" LVM2 x[5A%r0N*>"),
    entry_of("mpool", Member, 0, b"mpoolDev"),
    entry_of("oracleasm", Member, 32, b"ORCLDISK"),
    entry_of("stratis", Member, 516, STRATIS),
    backup("stratis", Member, 4612, STRATIS),
    entry_of("vdo", Member, 0, b"dmvdo001"),
    entry_of("VMFS_volume_member", Member, 1 << 20, b"\x0d\xd0\x01\xc0"),
    // Partition tables.
    entry_of("aix", PartitionTable, 0, b"\xc9\xc2\xd4\xc1"),
    entry_of("amiga", PartitionTable, 0, b"RDSK"),
    entry_of("amiga", PartitionTable, 512, b"RDSK"),
    entry_of("bsd", PartitionTable, 64, b"\x57\x45\x56\x82"),
    entry_of("bsd", PartitionTable, 128, b"\x57\x45\x56\x82"),
    entry_of("bsd", PartitionTable, 512, b"\x57\x45\x56\x82"),
    entry_of("dasd", PartitionTable, 8192, b"\xe5\xd6\xd3\xf1"),
    entry_of("dvh", PartitionTable, 0, b"\x0b\xe5\xa9\x41"),
    entry_of("gpt", PartitionTable, 512, b"EFI PART"),
    entry_of("gpt", PartitionTable, 4096, b"EFI PART"),
    entry_of("mac", PartitionTable, 512, b"PM\x00\x00"),
    entry_of("solaris", PartitionTable, 524, b"\xee\xde\x0d\x60"),
    entry_of("ultrix", PartitionTable, 16384 - 72, b"\x57\x29\x03\x00"),
    entry_of("unixware", PartitionTable, 29 * 512 + 4, b"\x0d\x60\xe5\xca"),
];

/// Signs of two bytes, and of a byte at a place where it means something.
const WEAK: &[Entry] = &[
    entry_of("hfs", FileSystem, 1024, b"BD"),
    entry_of("hfsplus", FileSystem, 1024, b"H+"),
    entry_of("hfsplus", FileSystem, 1024, b"HX"),
    entry_of("minix", FileSystem, 1040, b"\x7f\x13"),
    entry_of("minix", FileSystem, 1040, b"\x8f\x13"),
    entry_of("minix", FileSystem, 1040, b"\x13\x7f"),
    entry_of("minix", FileSystem, 1040, b"\x13\x8f"),
    entry_of("minix", FileSystem, 1040, b"\x68\x24"),
    entry_of("minix", FileSystem, 1040, b"\x78\x24"),
    entry_of("minix", FileSystem, 1040, b"\x24\x68"),
    entry_of("minix", FileSystem, 1040, b"\x24\x78"),
    entry_of("minix", FileSystem, 1048, b"\x5a\x4d"),
    entry_of("minix", FileSystem, 1048, b"\x4d\x5a"),
    entry_of("LVM1_member", Member, 0, b"HM"),
    entry_of("cs_fvault2", Member, 88, b"CS"),
    entry_of("mac", PartitionTable, 0, b"ER"),
    entry_of("sun", PartitionTable, 508, b"\xda\xbe"),
    entry_of("dos", PartitionTable, 510, b"\x55\xaa"),
];

/// Swap of every page size that Linux has had; the sign ends the first page.
const PAGE_SIZES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
const SWAP: [&[u8]; 6] = [
    b"SWAP-SPACE",
    b"SWAPSPACE2",
    b"S1SUSPEND\x00",
    b"S2SUSPEND\x00",
    b"ULSUSPEND\x00",
    b"LINHIB0001",
];

fn look(reader: &Reader, entries: &[Entry]) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    for entry in entries {
        if reader.is(entry.offset, entry.magic)? {
            found.push(Signature {
                kind: entry.kind,
                class: entry.class,
                offset: entry.offset,
                backup: entry.backup,
            });
        }
    }
    Ok(found)
}

pub(super) fn fixed(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = look(reader, STRONG)?;
    for offset in PAGE_SIZES.map(|page| page - 10) {
        let sign = reader.at(offset, 10)?;
        if sign.is_some_and(|sign| SWAP.contains(&sign.as_slice())) {
            found.push(Signature {
                kind: "swap",
                class: Swap,
                offset,
                backup: false,
            });
        }
    }
    // TuxOnIce puts its sign first.
    if reader.is(0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")? {
        found.push(Signature {
            kind: "swsuspend",
            class: Swap,
            offset: 0,
            backup: false,
        });
    }
    Ok(found)
}

pub(super) fn weak(reader: &Reader) -> io::Result<Vec<Signature>> {
    look(reader, WEAK)
}

/// Where signs of fixed place lie beyond the parts of a disk that are looked at anyway.
pub(super) fn far_places() -> impl Iterator<Item = u64> {
    STRONG.iter().map(|entry| entry.offset)
}

#[cfg(test)]
pub(super) fn count() -> usize {
    STRONG.len() + WEAK.len()
}

#[cfg(test)]
pub(super) fn entry(index: usize) -> (usize, &'static [u8]) {
    let entry = STRONG.iter().chain(WEAK).nth(index).unwrap();
    (usize::try_from(entry.offset).unwrap(), entry.magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_weak_sign_among_the_strong() {
        assert!(STRONG.iter().all(|entry| entry.magic.len() >= 4));
        assert!(WEAK.iter().all(|entry| entry.magic.len() == 2));
    }
}
