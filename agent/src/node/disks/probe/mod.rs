//! Owns recognising what lies on a disk: file systems, swap, partition tables, and members of RAID, LVM, LUKS and
//! others, and what remains of them. Touches nothing but the bytes that it is given; any bytes give an answer.
//!
//! Two purposes: to say by name why a disk is not blank, and to be sure what is mounted. The decision to format
//! never rests on it alone: [`super::zeros`] has to find nothing at all.

pub mod places;
mod superblock;
mod table;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;

use super::uuid::Uuid;
pub use superblock::{FoundFileSystem, file_system};

/// Bytes of a disk, to be read at any place.
pub trait Blocks {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`; the whole buffer lies within the disk.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// An image in memory.
impl Blocks for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An open device of known size.
#[derive(Debug)]
pub struct Device {
    /// The device.
    pub file: File,
    /// Bytes.
    pub size: u64,
}

impl Blocks for Device {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// What kind of thing a signature speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A file system.
    FileSystem,
    /// Part of something larger or below something else: RAID, LVM, LUKS, cache, cluster storage.
    Member,
    /// A partition table or disk label.
    PartitionTable,
    /// Swap space or a hibernated system.
    Swap,
}

/// A sign of something on a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Signature {
    /// What it is, by the name that blkid(8) has for it where it has one.
    pub kind: &'static str,
    /// What kind of thing that is.
    pub class: Class,
    /// Where the sign is, in bytes from the start.
    pub offset: u64,
    /// Whether it is a second copy, at a place where the thing itself does not begin.
    pub backup: bool,
}

/// A RAID array of Linux, as its member tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RaidMember {
    /// UUID of the array.
    pub array: Uuid,
    /// Level: 0, 1, 5, ….
    pub level: i32,
    /// How many members the array has.
    pub members: u32,
}

/// Part of the start and of the end is read at once: most signs are there.
const HEAD: u64 = 256 * 1024;
const TAIL: u64 = 512 * 1024;

/// Reads small pieces, the first and last from memory.
pub(crate) struct Reader<'a> {
    blocks: &'a dyn Blocks,
    head: Vec<u8>,
    tail: Vec<u8>,
    tail_at: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(blocks: &'a dyn Blocks) -> io::Result<Self> {
        let size = blocks.size();
        let piece = |offset: u64, length: u64| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            blocks.read_at(offset, &mut bytes)?;
            Ok(bytes)
        };
        let tail_at = size - size.min(TAIL);
        Ok(Self {
            blocks,
            head: piece(0, size.min(HEAD))?,
            tail: piece(tail_at, size - tail_at)?,
            tail_at,
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.blocks.size()
    }

    /// The bytes there; none beyond the end.
    pub(crate) fn at(&self, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(end) = offset
            .checked_add(length as u64)
            .filter(|end| *end <= self.size())
        else {
            return Ok(None);
        };
        let cached = |bytes: &[u8], start: u64| -> Option<Vec<u8>> {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            Some(bytes.get(from..from.checked_add(length)?)?.to_vec())
        };
        if end <= self.head.len() as u64 {
            return Ok(cached(&self.head, 0));
        }
        if offset >= self.tail_at {
            return Ok(cached(&self.tail, self.tail_at));
        }
        let mut bytes = vec![0; length];
        self.blocks.read_at(offset, &mut bytes)?;
        Ok(Some(bytes))
    }

    pub(crate) fn is(&self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        Ok(self.at(offset, magic.len())?.as_deref() == Some(magic))
    }

    pub(crate) fn u16(&self, offset: u64) -> io::Result<Option<u16>> {
        let bytes = self.at(offset, 2)?;
        Ok(bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes))
    }

    pub(crate) fn u32(&self, offset: u64) -> io::Result<Option<u32>> {
        let bytes = self.at(offset, 4)?;
        Ok(bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes))
    }
}

/// Everything that is recognised, in the order of the disk. Signs of two bytes count only where nothing else was
/// found: anything may have them by chance.
pub fn signatures(blocks: &dyn Blocks) -> io::Result<Vec<Signature>> {
    let reader = Reader::new(blocks)?;
    let mut found = table::fixed(&reader)?;
    found.extend(places::computed(&reader)?);
    found.extend(superblock::signature(&reader)?);
    if found.is_empty() {
        found = table::weak(&reader)?;
    }
    found.sort_by_key(|signature| (signature.offset, signature.kind));
    found.dedup();
    Ok(found)
}

/// What the disk is a member of, if it is a member of a Linux RAID array with a superblock of version 1.
pub fn raid_member(blocks: &dyn Blocks) -> io::Result<Option<RaidMember>> {
    let reader = Reader::new(blocks)?;
    for offset in places::raid_1(reader.size()) {
        let Some(superblock) = reader
            .at(offset, 256)?
            .filter(|bytes| places::is_raid_1(bytes, offset))
        else {
            continue;
        };
        let word = |at: usize| {
            [
                superblock[at],
                superblock[at + 1],
                superblock[at + 2],
                superblock[at + 3],
            ]
        };
        let mut array = [0; 16];
        array.copy_from_slice(&superblock[16..32]);
        return Ok(Some(RaidMember {
            array: Uuid(array),
            level: i32::from_le_bytes(word(72)),
            members: u32::from_le_bytes(word(92)),
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::disks::spec::FileSystem;

    fn kinds(disk: &Vec<u8>) -> Vec<&'static str> {
        signatures(disk)
            .unwrap()
            .iter()
            .map(|signature| signature.kind)
            .collect()
    }

    fn with(size: usize, pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = vec![0; size];
        for (offset, bytes) in pieces {
            disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    #[test]
    fn nothing_is_nothing() {
        for size in [0, 1, 511, 512, 4096, 65536, 1 << 20] {
            assert_eq!(kinds(&vec![0; size]), [""; 0], "{size}");
            assert_eq!(file_system(&vec![0; size]).unwrap(), None);
        }
    }

    #[test]
    fn one_sign_is_enough() {
        let gpt = b"EFI PART";
        let size = 1 << 20;
        assert_eq!(kinds(&with(size, &[(512, gpt)])), ["gpt"]);
        let backup = signatures(&with(size, &[(size - 512, gpt)])).unwrap();
        assert!(backup[0].backup && backup[0].class == Class::PartitionTable);
        assert_eq!(kinds(&with(size, &[(0, b"LUKS\xba\xbe")])), ["crypto_LUKS"]);
        assert_eq!(kinds(&with(size, &[(0x4000, b"SKUL\xba\xbe")])), ["crypto_LUKS"]);
        assert_eq!(kinds(&with(size, &[(536, b"LVM2 001")])), ["LVM2_member"]);
        assert_eq!(kinds(&with(size, &[(4086, b"SWAPSPACE2")])), ["swap"]);
        assert_eq!(kinds(&with(size, &[(510, b"\x55\xaa")])), ["dos"]);
        // Two bytes say nothing where something stronger stands.
        assert_eq!(kinds(&with(size, &[(510, b"\x55\xaa"), (512, gpt)])), ["gpt"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Any bytes at any of the places where something is looked for: an answer, and each sign within the disk.
        #[test]
        fn any_bytes_give_an_answer(
            size in prop_oneof![0usize..5000, 60_000usize..70_000, 1_000_000usize..1_100_000],
            noise in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..600)), 0..6),
            magics in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut disk = vec![0u8; size];
            for (place, bytes) in &noise {
                if size > 0 {
                    let start = place.index(size);
                    let length = bytes.len().min(size - start);
                    disk[start..start + length].copy_from_slice(&bytes[..length]);
                }
            }
            for magic in &magics {
                let (offset, bytes) = table::entry(magic.index(table::count()));
                if let Some(place) = disk.get_mut(offset..offset + bytes.len()) {
                    place.copy_from_slice(bytes);
                }
            }
            for signature in signatures(&disk).unwrap() {
                prop_assert!(signature.offset < size as u64);
            }
            file_system(&disk).unwrap();
            raid_member(&disk).unwrap();
        }

        /// Superblocks of XFS and ext with any fields: an answer, never a panic.
        #[test]
        fn any_superblock_gives_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 8192), xfs: bool) {
            if xfs {
                bytes[..4].copy_from_slice(b"XFSB");
            }
            bytes[0x438..0x43a].copy_from_slice(b"\x53\xef");
            let found = file_system(&bytes).unwrap();
            if let Some(found) = found {
                prop_assert!(found.label.len() <= 16);
                prop_assert_eq!(found.kind == Some(FileSystem::Xfs), found.name == "xfs");
            }
        }
    }
}
