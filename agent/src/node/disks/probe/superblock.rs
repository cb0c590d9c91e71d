//! Owns reading superblocks of XFS and of the ext family: what it is, whose, how large, whether whole.
//! Touches nothing.
//!
//! Fields: `xfs_dsb` of the kernel's `xfs_format.h` (big-endian) and `ext4_super_block` of its `ext4.h`
//! (little-endian).

use std::io;

use serde::Serialize;

use super::{Blocks, Class, Reader, Signature};
use crate::node::disks::spec::FileSystem;
use crate::node::disks::uuid::Uuid;

/// XFS or one of the ext family, as its superblock tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundFileSystem {
    /// `xfs`, `ext2`, `ext3`, `ext4` or `jbd` (an external journal).
    pub name: &'static str,
    /// What it is, if it is one that is mounted.
    #[serde(skip)]
    pub kind: Option<FileSystem>,
    /// UUID.
    pub uuid: Uuid,
    /// Label; empty if it has none.
    pub label: String,
    /// Bytes that it takes.
    pub size: u64,
    /// Bytes of that which XFS keeps for its log.
    pub log: u64,
    /// Whether an operation on the whole of it never came to its end (`sb_inprogress`): mkfs.xfs, as a rule. Even
    /// with the UUID that COS gives, such a disk is never formatted again: a killed `xfs_admin -U` leaves the same
    /// sign on a file system full of data.
    pub unfinished: bool,
}

/// Bytes of XFS's superblock that are read.
const XFS: usize = 128;
/// Where ext's superblock is, and how much of it is read.
const EXT_AT: u64 = 1024;
const EXT: usize = 344;

/// XFS or ext at the start of a disk. Only a superblock whose numbers make sense counts.
pub fn file_system(blocks: &dyn Blocks) -> io::Result<Option<FoundFileSystem>> {
    let mut bytes = vec![0; usize::try_from(EXT_AT).unwrap_or_default() + EXT];
    if blocks.size() < bytes.len() as u64 {
        return Ok(None);
    }
    blocks.read_at(0, &mut bytes)?;
    let (boot, superblock) = bytes.split_at(bytes.len() - EXT);
    Ok(xfs(&boot[..XFS]).or_else(|| ext(superblock)))
}

/// The sign of either, even where the numbers make no sense.
pub(super) fn signature(reader: &Reader) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    let mut sign = |kind, offset| {
        found.push(Signature {
            kind,
            class: Class::FileSystem,
            offset,
            backup: false,
        });
    };
    if reader.is(0, b"XFSB")? {
        sign("xfs", 0);
    }
    if reader.is(EXT_AT + 56, b"\x53\xef")? {
        let name = reader
            .at(EXT_AT, EXT)?
            .and_then(|bytes| ext(&bytes))
            .map_or("ext", |found| found.name);
        sign(name, EXT_AT + 56);
    }
    Ok(found)
}

fn big(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes
        .iter()
        .skip(at)
        .take(length)
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn little(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.iter().skip(at).take(length).rev();
    field.fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn uuid(bytes: &[u8], at: usize) -> Uuid {
    let mut uuid = [0; 16];
    uuid.iter_mut()
        .zip(&bytes[at..])
        .for_each(|(to, from)| *to = *from);
    Uuid(uuid)
}

fn label(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let printable = field[..end].iter().map(|byte| {
        if byte.is_ascii_graphic() || *byte == b' ' {
            *byte
        } else {
            b'?'
        }
    });
    printable.map(char::from).collect()
}

fn xfs(bytes: &[u8]) -> Option<FoundFileSystem> {
    let (block, blocks, groups) = (big(bytes, 4, 4), big(bytes, 8, 8), big(bytes, 88, 4));
    let group = big(bytes, 84, 4);
    let sane = bytes.starts_with(b"XFSB")
        && (512..=65536).contains(&block)
        && block.is_power_of_two()
        && groups > 0
        && group > 0
        && blocks <= groups.checked_mul(group)?;
    sane.then(|| FoundFileSystem {
        name: "xfs",
        kind: Some(FileSystem::Xfs),
        uuid: uuid(bytes, 32),
        label: label(&bytes[108..120]),
        size: blocks.saturating_mul(block),
        // Without a start the log is on another device.
        log: if big(bytes, 48, 8) == 0 {
            0
        } else {
            big(bytes, 96, 4).saturating_mul(block)
        },
        unfinished: bytes[126] != 0,
    })
}

fn ext(bytes: &[u8]) -> Option<FoundFileSystem> {
    let log_block = little(bytes, 24, 4);
    let (compatible, incompatible, read_only) =
        (little(bytes, 92, 4), little(bytes, 96, 4), little(bytes, 100, 4));
    let low = little(bytes, 4, 4);
    // The upper half counts only with the feature 64bit.
    let high = if incompatible & 0x80 == 0 {
        0
    } else {
        little(bytes, 336, 4)
    };
    let sane =
        bytes.get(56..58) == Some(b"\x53\xef") && log_block <= 6 && little(bytes, 40, 4) > 0 && low > 0;
    if !sane {
        return None;
    }
    // What ext3 can do: has_journal; filetype, recover, meta_bg; sparse_super, large_file, btree_dir.
    let beyond_ext3 = incompatible & !0x16 != 0 || read_only & !0x7 != 0;
    let (name, kind) = if incompatible & 0x8 != 0 {
        ("jbd", None)
    } else if beyond_ext3 {
        ("ext4", Some(FileSystem::Ext4))
    } else if compatible & 0x4 != 0 {
        ("ext3", None)
    } else {
        ("ext2", None)
    };
    Some(FoundFileSystem {
        name,
        kind,
        uuid: uuid(bytes, 104),
        label: label(&bytes[120..136]),
        size: (high << 32 | low).saturating_mul(1024 << log_block),
        log: 0,
        unfinished: false,
    })
}
