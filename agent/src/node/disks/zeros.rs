//! Owns whether a disk holds nothing but zeros: all of a small one, and of a large one both ends, every place where
//! anything known is kept, and a sample of the rest.
//! Touches nothing but the bytes that it is given.
//!
//! Which bytes of a large disk are read:
//! - the first and the last 4 MiB: superblocks, partition tables, headers of LVM, RAID, LUKS (its second header lies
//!   up to 4 MiB from the start), labels of ZFS, and whatever an unknown program would keep there;
//! - 64 KiB at every place of [`places::far`]: second superblocks of ext and XFS, of Btrfs, and others;
//! - 2,048 pieces of 16 KiB, one in each 2,048th part of the disk, at a place in that part that is drawn from its
//!   number. Equal distances would fall on the same point of each group of a file system, which may be empty; a drawn
//!   place is another point each time, and the same one whenever the disk is looked at again.
//!
//! That finds any file system that was used. What it cannot find is a few kilobytes alone in the middle of a large
//! disk without anything at the known places: reading all of it would take hours.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::probe::{Blocks, places};

/// Disks up to this size are read whole. It takes eight seconds at the 125 MiB/s that every gp3 volume has.
pub(super) const WHOLE: u64 = 1 << 30;
/// Read at each end of a larger disk.
const END: u64 = 4 << 20;
/// Read at each known place of a larger disk.
const PLACE: u64 = 64 << 10;
/// Number and size of the pieces of a larger disk.
const PIECES: u64 = 2048;
const PIECE: u64 = 16 << 10;
/// Longest time for all of it: a volume that is this slow is not new.
const PATIENCE: Duration = Duration::from_mins(2);
/// Read at once.
const CHUNK: usize = 256 << 10;

/// What was read, and whether it was all zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Zeros {
    /// Bytes that were read; reading ends where something is found.
    pub bytes_read: u64,
    /// At how many places.
    pub places: usize,
    /// Whether that is the whole disk.
    pub whole: bool,
    /// Where the first byte is that is not zero, in the order of reading.
    pub first_data: Option<u64>,
    /// Milliseconds that it took.
    pub milliseconds: u128,
}

/// Ranges to read of a disk of this size, as offset and length, most telling first.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= WHOLE {
        return vec![(0, size)];
    }
    let mut ranges = vec![(0, END), (size - END, END)];
    let within = |offset: u64, length: u64| (offset.min(size - length), length);
    let far = places::far(size).into_iter();
    // A piece of the disk before the place too: some formats keep their block right before it.
    ranges.extend(
        far.filter(|offset| *offset >= END && *offset < size - END)
            .map(|offset| {
                let aligned = offset & !4095;
                within(aligned - aligned.min(PLACE / 2), PLACE)
            }),
    );
    let part = size / PIECES;
    ranges.extend((0..PIECES).map(|number| {
        let room = part - PIECE.min(part);
        let drawn = if room == 0 { 0 } else { draw(number) % room };
        within((number * part + drawn) & !4095, PIECE)
    }));
    ranges
}

/// A number without a pattern, always the same for the same one (the finalizer of SplitMix64).
fn draw(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Reads until something is found or everything is read.
pub fn scan(blocks: &dyn Blocks) -> io::Result<Zeros> {
    let start = Instant::now();
    let size = blocks.size();
    let ranges = ranges(size);
    let mut zeros = Zeros {
        bytes_read: 0,
        places: ranges.len(),
        whole: size <= WHOLE,
        first_data: None,
        milliseconds: 0,
    };
    let mut buffer = vec![0; CHUNK];
    'ranges: for (offset, length) in ranges {
        let mut done = 0;
        while done < length {
            let piece = usize::try_from(length - done).unwrap_or(CHUNK).min(CHUNK);
            let piece = &mut buffer[..piece];
            if start.elapsed() > PATIENCE {
                let slow = format!(
                    "looking whether it is zero took longer than {} s",
                    PATIENCE.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, slow));
            }
            blocks.read_at(offset + done, piece)?;
            if let Some(at) = first_nonzero(piece) {
                zeros.bytes_read += done + at as u64;
                zeros.first_data = Some(offset + done + at as u64);
                break 'ranges;
            }
            done += piece.len() as u64;
        }
        zeros.bytes_read += length;
    }
    zeros.milliseconds = start.elapsed().as_millis();
    Ok(zeros)
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    // Sixteen at a time: this runs over a gigabyte.
    let (whole, rest) = bytes.as_chunks::<16>();
    let block = whole.iter().position(|chunk| u128::from_ne_bytes(*chunk) != 0);
    match block {
        Some(block) => whole[block]
            .iter()
            .position(|byte| *byte != 0)
            .map(|at| block * 16 + at),
        None => rest
            .iter()
            .position(|byte| *byte != 0)
            .map(|at| whole.len() * 16 + at),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk of any size without memory for it: zero but for some bytes.
    struct Sparse {
        size: u64,
        data: Vec<(u64, u8)>,
    }

    impl Blocks for Sparse {
        fn size(&self) -> u64 {
            self.size
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            assert!(offset + buffer.len() as u64 <= self.size, "read beyond the end");
            buffer.fill(0);
            for (place, byte) in &self.data {
                if let Some(at) = place.checked_sub(offset).filter(|at| *at < buffer.len() as u64) {
                    buffer[usize::try_from(at).unwrap()] = *byte;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn both_ends_and_every_known_place_of_a_large_disk_are_read() {
        for size in [(1 << 30) + 512, 8 << 30, 100 << 30, (16 << 40) - 4096] {
            let mut places = vec![0, END - 1, size - END, size - 1];
            places.extend(places::far(size));
            for place in places {
                let zeros = scan(&Sparse {
                    size,
                    data: vec![(place, 1)],
                })
                .unwrap();
                assert_eq!(zeros.first_data, Some(place), "{size}");
            }
            let zeros = scan(&Sparse {
                size,
                data: Vec::new(),
            })
            .unwrap();
            assert_eq!(zeros.first_data, None);
            assert!(
                !zeros.whole && zeros.places > 2048 && zeros.bytes_read < 80 << 20,
                "{zeros:?}"
            );
        }
    }

    #[test]
    fn data_that_fills_a_thousandth_of_a_large_disk_is_found() {
        // 4 KiB in every 4 MiB, beginning anywhere: 25,600 blocks of a disk of 100 GiB.
        let size: u64 = 100 << 30;
        let ranges = ranges(size);
        for start in (0..1024).map(|step| step * 4096) {
            let hit = ranges.iter().any(|(offset, length)| {
                let next = offset + ((start + (4 << 20)) - offset % (4 << 20)) % (4 << 20);
                next < offset + length
            });
            assert!(hit, "{start}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn every_byte_of_a_small_disk_counts(size in 1u64..400_000, place in any::<prop::sample::Index>(), byte in 1u8..) {
            let place = place.index(usize::try_from(size).unwrap()) as u64;
            let zeros = scan(&Sparse { size, data: vec![(place, byte)] }).unwrap();
            prop_assert_eq!(zeros.first_data, Some(place));
            prop_assert_eq!(scan(&Sparse { size, data: Vec::new() }).unwrap().bytes_read, size);
        }

        #[test]
        fn ranges_lie_within_a_disk_of_any_size(size in prop_oneof![0u64..5000, any::<u64>()]) {
            for (offset, length) in ranges(size) {
                prop_assert!(offset.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
