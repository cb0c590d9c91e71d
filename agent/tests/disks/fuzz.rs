//! Bytes that come from outside, damaged ten million times: an answer each time, and no panic. Run by hand:
//! `cargo test -p cos-agent --test disks -- --ignored fuzz`.

use cos_agent::node::disks::identify::{self, PAGE};
use cos_agent::node::disks::mounts::{mounts, swaps};
use cos_agent::node::disks::probe::{file_system, raid_member, signatures};
use cos_agent::node::disks::{parse_uevent, units};

/// xorshift64*: fast, and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap() % limit.max(1)
    }

    /// Changes a few bytes, most of them within `hot`, then perhaps the length.
    fn damage(&mut self, bytes: &mut Vec<u8>, hot: usize) {
        for _ in 0..=self.below(6) {
            let limit = if self.below(4) == 0 {
                bytes.len()
            } else {
                hot.min(bytes.len())
            };
            let at = self.below(limit);
            let interesting = [0, 1, 0x7f, 0x80, 0xff, b'=', b'\\', b'/'];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if self.below(2) == 0 {
                    interesting[self.below(8)]
                } else {
                    self.next().to_le_bytes()[7]
                };
            }
        }
        if self.below(50) == 0 {
            let length = self.below(bytes.len() + 1);
            bytes.truncate(length);
        }
    }
}

/// Restores what was damaged without a new allocation.
fn again(bytes: &mut Vec<u8>, from: &[u8]) {
    bytes.clear();
    bytes.extend_from_slice(from);
}

const EACH: usize = 2_500_000;

#[test]
#[ignore = "takes minutes"]
fn ten_million_inputs_give_ten_million_answers() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut bytes = Vec::new();

    let mut page = vec![0; PAGE];
    page[..2].copy_from_slice(&[0x0f, 0x1d]);
    page[4..25].copy_from_slice(b"vol0123456789abcdef0 ");
    page[24..50].copy_from_slice(b"Amazon Elastic Block Store");
    page[3072..3080].copy_from_slice(b"/dev/sdf");
    let mut answers = 0;
    again(&mut bytes, &page);
    for _ in 0..EACH {
        // A page is long: only what was changed is put back.
        let (hot, at) = (random.below(64), 3072 + random.below(40));
        let value = random.next().to_le_bytes();
        (bytes[hot], bytes[at]) = (value[0], value[1]);
        answers += usize::from(identify::controller(&bytes).is_some());
        (bytes[hot], bytes[at]) = (page[hot], page[at]);
    }
    assert!(answers > EACH / 2, "{answers}");

    let mut superblock = vec![0u8; 1024 + 344];
    superblock[..8].copy_from_slice(b"XFSB\0\0\x10\0");
    superblock[14..16].copy_from_slice(&[0x40, 0]);
    superblock[84..92].copy_from_slice(&[0, 0, 0x10, 0, 0, 0, 0, 4]);
    superblock[1024..1032].copy_from_slice(&[0, 1, 0, 0, 0, 4, 0, 0]);
    superblock[1024 + 40] = 8;
    superblock[1024 + 56..1024 + 58].copy_from_slice(b"\x53\xef");
    answers = 0;
    for turn in 0..EACH {
        again(&mut bytes, &superblock);
        if turn % 2 == 0 {
            bytes[0] = 0;
            let mut ext = bytes.split_off(1024);
            random.damage(&mut ext, 340);
            bytes.extend(ext);
        } else {
            random.damage(&mut bytes, 128);
        }
        answers += usize::from(file_system(&bytes).unwrap().is_some());
    }
    assert!(answers > EACH / 10, "{answers}");

    let message = b"add@/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=nvme1n1\0SEQNUM=1\0";
    answers = 0;
    for _ in 0..EACH {
        again(&mut bytes, message);
        random.damage(&mut bytes, message.len());
        answers += usize::from(parse_uevent(&bytes).is_some());
    }
    assert!(answers > EACH / 2, "{answers}");

    let table = b"35 29 259:1 / /mnt/a\\040b rw,nosuid master:1 - xfs /dev/nvme1n1 rw,attr2\n/dev/xvdf /data xfs defaults 0 0\n";
    answers = 0;
    for _ in 0..EACH {
        again(&mut bytes, table);
        random.damage(&mut bytes, table.len());
        let text = String::from_utf8_lossy(&bytes);
        answers += mounts(&text).len();
        swaps(&text);
        units::foreign_lines(&text, "/data");
        units::our_points(&text);
    }
    assert!(answers > EACH / 2, "{answers}");
}

#[test]
#[ignore = "takes minutes"]
fn whole_disks_of_anything_give_an_answer() {
    let mut random = Random(0xfeed_face_cafe_beef);
    for turn in 0..20_000 {
        let size = [700_000, 600_001, 70_000, 5_000, 4096, 513][turn % 6];
        let mut disk = vec![0u8; size];
        for _ in 0..random.below(12) {
            let at = random.below(size);
            let end = (at + 1 + random.below(300)).min(size);
            disk[at..end]
                .iter_mut()
                .for_each(|byte| *byte = random.next().to_le_bytes()[7]);
        }
        for signature in signatures(&disk).unwrap() {
            assert!(signature.offset < size as u64);
        }
        raid_member(&disk).unwrap();
    }
}
