//! Owns images for which there is no tool in Debian, or none that works without a kernel module that this machine
//! may not have. Touches image files.
//!
//! Linux RAID is written by hand as `mdadm` would: making an array needs the kernel's md driver. `mdadm --examine`
//! and `blkid` must recognise what is written here; a test says so.

use std::path::Path;

use crate::rig::poke;

/// A pool of ZFS: its tools speak to a daemon, which this starts and ends.
pub(crate) const ZPOOL: &str = "
zfs-fuse --no-daemon --no-kstat-mount -p $image.pid </dev/null & daemon=$!
name=cos-test-$$
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    zpool create -m none -o cachefile=none $name $image 2>/dev/null && break
    sleep 0.2
done
zpool list $name
zpool export $name
kill $daemon
wait $daemon || true";

/// Bytes at their places.
pub(crate) type Pieces = &'static [(u64, &'static [u8])];

pub(crate) const PIECES: &[(&str, Pieces)] = &[
    (
        "bcachefs",
        &[(4096 + 24, BCACHEFS), (SIZE - (1 << 20) + 24, BCACHEFS)],
    ),
    (
        "ceph bluestore",
        &[(
            0,
            b"bluestore block device\n6f2d9e62-7d3b-4e4f-8ff4-df1d53ab7c8e\n",
        )],
    ),
    ("oracle asm", &[(32, b"ORCLDISKDATA1")]),
    ("stratis", &[(512 + 4, STRATIS), (9 * 512 + 4, STRATIS)]),
    ("vdo", &[(0, b"dmvdo001\x05\0\0\0\x08")]),
    ("dm-integrity", &[(0, b"integrt\0\x01\x0f")]),
    ("dm-snapshot", &[(0, b"SnAp\x01\0\0\0\x01\0\0\0\x10\0\0\0")]),
    ("lvm 1", &[(0, b"HM\x01\0\0\0\0\0\0\x04")]),
    ("bitlocker", &[(0, b"\xeb\x58\x90-FVE-FS-\0\x02\x08\0\0")]),
    ("refs", &[(0, b"\0\0\0ReFS\0\0\0\0\0")]),
    (
        "vmfs",
        &[
            (1 << 20, b"\x0d\xd0\x01\xc0\x03\0\0\0"),
            (2 << 20, b"\x5e\xf1\xab\x2f\x04\0\0\0"),
        ],
    ),
    ("vxfs", &[(1024, b"\xf5\xfc\x01\xa5\x07\0\0\0")]),
    ("hpfs", &[(0x2000, b"\x49\xe8\x95\xf9\xc5\xe9\x53\xfa")]),
    ("befs", &[(512 + 32, b"1SFB")]),
    ("zonefs", &[(0, b"SFOZ\x01\x02\x03\x04")]),
    ("scoutfs", &[(65540, b"\x8b\x42\x3c\x10")]),
    ("netware", &[(4096, b"SPB5\0\0\0\0")]),
    (
        "hibernated system",
        &[(1024, b"\x01\0\0\0"), (4086, b"S1SUSPEND\0")],
    ),
    (
        "ddf raid",
        &[(SIZE - 512, b"\xde\x11\xde\x11\0\0\0\x01Dell    \x10\0\0\0")],
    ),
    ("intel raid", &[(SIZE - 1024, b"Intel Raid ISM Cfg Sig. 1.0.00")]),
    ("nvidia raid", &[(SIZE - 1024, b"NVIDIA  \x1e\0\0\0")]),
    ("lsi raid", &[(SIZE - 512, b"$XIDE$\x01")]),
    ("jmicron raid", &[(SIZE - 512, b"JM\x01\0")]),
    ("aix", &[(0, b"\xc9\xc2\xd4\xc1\0\0\0\0")]),
    ("dasd", &[(8192, b"\xe5\xd6\xd3\xf1")]),
    ("solaris", &[(512 + 12, b"\xee\xde\x0d\x60\x01\0\0\0")]),
    ("unixware", &[(29 * 512 + 4, b"\x0d\x60\xe5\xca")]),
    ("one byte at the start", &[(0, b"\x01")]),
    ("one byte at the end", &[(SIZE - 1, b"\x01")]),
    ("one byte in the middle", &[(33_333_333, b"\x01")]),
];

const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
const STRATIS: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";

/// Writes an image.
pub(crate) type Write = fn(&Path);

/// Members of Linux RAID: name, and how they are written.
pub(crate) const RAID: &[(&str, Write)] = &[
    ("md 0.90", |image| raid_0_90(image, false)),
    ("md 0.90, big-endian", |image| raid_0_90(image, true)),
    ("md 1.0", |image| raid_1(image, (SIZE & !0xfff) - 0x2000)),
    ("md 1.1", |image| raid_1(image, 0)),
    ("md 1.2", |image| raid_1(image, 4096)),
];

/// Size of all of them.
pub(crate) const SIZE: u64 = 64 << 20;

/// `mdp_super_t` of the kernel's md_p.h: 32-bit words in the byte order of the machine.
fn raid_0_90(image: &Path, big: bool) {
    let mut words = [0u32; 1024];
    // magic, version 0.90.0, then: uuid0, ctime, level, size in KiB, disks, raid disks, minor, persistent, uuid1–3.
    let size = u32::try_from((SIZE & !0xffff) - 0x1_0000).unwrap() >> 10;
    let head = [
        0xa92b_4efc,
        0,
        90,
        0,
        0,
        0x1111_2222,
        1_700_000_000,
        1,
        size,
        2,
        2,
        0,
        0,
        3,
        4,
        5,
    ];
    words[..head.len()].copy_from_slice(&head);
    // utime, state clean, active, working, failed, spare disks.
    words[32..38].copy_from_slice(&[1_700_000_000, 1, 1, 1, 0, 0]);
    // The disk itself: number 0, raid disk 0, active and in sync.
    words[992..997].copy_from_slice(&[0, 7, 0, 0, 6]);
    // Checksum: the sum of all words with this field zero, folded.
    let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
    words[38] = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap_or(0);
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| {
            if big {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            }
        })
        .collect();
    poke(image, SIZE - 0x1_0000, &bytes);
}

/// `mdp_superblock_1` of the kernel's md_p.h: little-endian.
fn raid_1(image: &Path, offset: u64) {
    let mut block = vec![0u8; 256 + 2 * 2];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    put(16, b"0123456789abcdef");
    put(32, b"host:name");
    put(64, &1_700_000_000_u64.to_le_bytes());
    put(72, &1u32.to_le_bytes());
    put(80, &((SIZE - (2 << 20)) / 512).to_le_bytes());
    put(92, &2u32.to_le_bytes());
    put(128, &(if offset > 8192 { 0u64 } else { 2048 }).to_le_bytes());
    put(136, &((SIZE - (2 << 20)) / 512).to_le_bytes());
    put(144, &(offset / 512).to_le_bytes());
    put(168, b"device-uuid-0123");
    put(192, &1_700_000_000_u64.to_le_bytes());
    put(200, &1u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &2u32.to_le_bytes());
    put(256, &[0, 0, 1, 0]);
    // Checksum: the sum of all words with this field zero, folded.
    let sum: u64 = block
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
        .sum();
    let folded = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap_or(0);
    block[216..220].copy_from_slice(&folded.to_le_bytes());
    poke(image, offset, &block);
}

#[test]
fn mdadm_and_blkid_take_them_for_real() {
    let test = "mdadm_and_blkid_take_them_for_real";
    if !crate::rig::has(test, &["mdadm", "blkid"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, maker) in RAID {
        let image = folder.path().join("image");
        crate::rig::sparse(&image, SIZE >> 20);
        maker(&image);
        let path = image.to_str().unwrap();
        let (kind, _) = crate::rig::blkid(path).unwrap();
        assert_eq!(kind, "linux_raid_member", "{name}");
        let examined = crate::rig::run("mdadm", &["--examine", path]);
        // mdadm reads 0.90 of the other byte order only when told.
        if !name.contains("big") {
            let examined = examined.unwrap();
            assert!(
                examined.contains("Checksum") && examined.contains("correct"),
                "{name}: {examined}"
            );
        }
    }
}
