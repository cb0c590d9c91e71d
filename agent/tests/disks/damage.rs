//! Owns how an image is damaged: what a person, a crash or a failing disk leaves of it. Touches image files.

use std::fs::File;
use std::path::Path;

use cos_agent::node::disks::probe::places;

use crate::rig::{extents, poke, punch};

/// Ways to damage an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// None.
    Whole,
    /// The first 4 KiB are zero: `dd if=/dev/zero count=8`.
    First4KiB,
    /// The first MiB is zero: `dd if=/dev/zero bs=1M count=1`.
    FirstMiB,
    /// The last MiB is zero.
    LastMiB,
    /// Both are zero.
    BothEnds,
    /// Only what lies in the last MiB is left: a second partition table, a label of ZFS, a RAID superblock.
    OnlyTheEnd,
    /// Only what lies at places of second superblocks is left, 4 KiB of each.
    OnlyCopies,
    /// Only one 4 KiB block of data is left, drawn at random.
    OnlyOneBlock(u64),
    /// 64 random bytes at a random place.
    RandomBytes(u64),
    /// The first MiB is zero, and then random bytes are written somewhere.
    FirstMiBAndRandomBytes(u64),
}

/// All of them; those that draw get different numbers.
pub(crate) fn all(seed: u64) -> Vec<Damage> {
    use Damage::{
        BothEnds, First4KiB, FirstMiB, FirstMiBAndRandomBytes, LastMiB, OnlyCopies, OnlyOneBlock, OnlyTheEnd,
        RandomBytes, Whole,
    };
    vec![
        Whole,
        First4KiB,
        FirstMiB,
        LastMiB,
        BothEnds,
        OnlyTheEnd,
        OnlyCopies,
        OnlyOneBlock(seed),
        RandomBytes(seed + 1),
        FirstMiBAndRandomBytes(seed + 2),
    ]
}

const MIB: u64 = 1 << 20;
/// From this size on not every byte is read, and a few bytes alone cannot be found by anybody in sensible time.
const SAMPLED: u64 = 1 << 30;

/// Damages the image. False if that means nothing for it.
pub(crate) fn inflict(damage: Damage, image: &Path) -> bool {
    let size = image.metadata().unwrap().len();
    let end = size.saturating_sub(MIB);
    let keep_only = |ranges: &[(u64, u64)]| {
        let mut at = 0;
        for (offset, length) in ranges {
            if *offset > at {
                punch(image, at, offset - at);
            }
            at = at.max(offset + length);
        }
        if at < size {
            punch(image, at, size - at);
        }
    };
    match damage {
        Damage::Whole => {}
        Damage::First4KiB => punch(image, 0, 4096),
        Damage::FirstMiB => punch(image, 0, MIB.min(size)),
        Damage::LastMiB => punch(image, end, size - end),
        Damage::BothEnds => {
            punch(image, 0, MIB.min(size));
            punch(image, end, size - end);
        }
        Damage::OnlyTheEnd => keep_only(&[(end, size - end)]),
        Damage::OnlyCopies => {
            let far = places::far(size).into_iter().filter(|place| *place >= MIB);
            let ranges: Vec<(u64, u64)> = far.map(|place| (place & !4095, 4096)).collect();
            keep_only(&ranges);
        }
        Damage::OnlyOneBlock(_) | Damage::RandomBytes(_) | Damage::FirstMiBAndRandomBytes(_)
            if size > SAMPLED =>
        {
            return false;
        }
        Damage::OnlyOneBlock(seed) => {
            let blocks: Vec<u64> = extents(&File::open(image).unwrap())
                .into_iter()
                .flat_map(|(offset, length)| {
                    (offset / 4096..(offset + length).div_ceil(4096)).map(|block| block * 4096)
                })
                .collect();
            let Some(block) = blocks.get(usize::try_from(draw(seed)).unwrap() % blocks.len().max(1)) else {
                return false;
            };
            keep_only(&[(*block, 4096.min(size - block))]);
        }
        Damage::RandomBytes(seed) => scribble(image, size, seed),
        Damage::FirstMiBAndRandomBytes(seed) => {
            punch(image, 0, MIB.min(size));
            scribble(image, size, seed);
        }
    }
    true
}

fn scribble(image: &Path, size: u64, seed: u64) {
    let bytes: Vec<u8> = (0..8)
        .flat_map(|word| (draw(seed ^ (word << 40)) | 1).to_le_bytes())
        .collect();
    poke(image, draw(seed) % (size - 64), &bytes);
}

/// The finalizer of SplitMix64: the same damage in every run.
fn draw(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) >> 1
}
