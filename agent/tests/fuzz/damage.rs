//! Owns damage: a sample, cut and put together so that a reader gets far before it meets what is wrong.
//! Touches nothing.

/// Longest input. Limits of readers are tested where they are.
const LONGEST: usize = 64 * 1024;

/// Numbers at which readers stumble.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "18446744073709551615",
    "-9223372036854775809",
    "1e999",
    "0.1",
    "00000000000000000000000000000001",
];

/// xorshift64*: fast, and the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Of a seed and a name, so that no two targets are damaged alike.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(
            name.bytes().fold(
                0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                fold,
            ) | 1,
        )
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than the limit, or zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        const INTERESTING: [u8; 12] = [0, 1, 9, b'\n', b' ', b'"', b'\'', b'\\', 0x7f, 0x80, 0xc3, 0xff];
        if self.below(2) == 0 {
            INTERESTING[self.below(INTERESTING.len())]
        } else {
            self.next().to_le_bytes()[7]
        }
    }

    /// A piece of so many bytes; short ones are the likely ones.
    fn piece(&mut self, length: usize) -> std::ops::Range<usize> {
        let longest = if self.below(4) == 0 { length } else { 12 };
        let from = self.below(length + 1);
        from..(from + self.below(longest + 1)).min(length)
    }
}

/// Damages one of the samples into `bytes`; one in twelve stays whole. `words` are what the format is made of.
pub(crate) fn damage(random: &mut Random, samples: &[Vec<u8>], words: &[&str], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&samples[random.below(samples.len())]);
    if random.below(12) == 0 {
        return;
    }
    // One change is the likeliest number of them, and gets farthest.
    let changes = 1 + random.below(4) * random.below(2);
    for _ in 0..changes {
        change(random, samples, words, bytes);
    }
    bytes.truncate(LONGEST);
}

fn change(random: &mut Random, samples: &[Vec<u8>], words: &[&str], bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    match random.below(if words.is_empty() { 6 } else { 12 }) {
        0 => {
            let bit = 1 << random.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        1 => {
            let value = random.byte();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        2 => drop(bytes.drain(random.piece(bytes.len()))),
        3 => {
            let piece = bytes[random.piece(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let other = &samples[random.below(samples.len())];
            let piece = other[random.piece(other.len())].to_vec();
            let place = random.piece(bytes.len());
            bytes.splice(place, piece);
        }
        5 => match random.below(6) {
            0 => bytes.truncate(at),
            _ => bytes.insert(at, random.byte()),
        },
        6 => {
            let word = words[random.below(words.len())];
            bytes.splice(at..at, word.bytes());
        }
        7 => {
            let number = NUMBERS[random.below(NUMBERS.len())];
            bytes.splice(token(bytes, at), number.bytes());
        }
        8 => {
            let word = words[random.below(words.len())];
            bytes.splice(token(bytes, at), word.bytes());
        }
        9 => {
            let other = &samples[random.below(samples.len())];
            let piece = other[token(other, random.below(other.len()))].to_vec();
            bytes.splice(token(bytes, at), piece);
        }
        10 => drop(bytes.drain(token(bytes, at))),
        // Deep nesting, seldom: it is slow, and always the same.
        _ if random.below(30) == 0 => {
            let word = words[random.below(words.len())];
            let nest = word.repeat(1 + random.below(3_000));
            bytes.splice(at..at, nest.bytes());
        }
        _ => {
            let (one, other) = (token(bytes, at), token(bytes, random.below(bytes.len())));
            let piece = bytes[other].to_vec();
            bytes.splice(one, piece);
        }
    }
}

/// The word or number around a place, or what stands between two.
fn token(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
    let Some(kind) = bytes.get(at).map(is_word) else {
        return at..at;
    };
    let before = bytes[..at].iter().rev().take_while(|byte| is_word(byte) == kind);
    let after = bytes[at..].iter().take_while(|byte| is_word(byte) == kind);
    at - before.count()..at + after.count()
}
