//! Owns the UUID of a file system: sixteen bytes, their text, and the one that a disk of ours gets.
//! Touches nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A UUID as superblocks have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The UUID that a disk with this identity gets when it is formatted. It says nothing about the disk, and is
    /// the same whenever it is asked for: so a mount unit can be shown before the file system is there, and a run
    /// that finds it knows that it was an earlier run's work. Version 8 of RFC 9562, from SHA-256.
    pub fn of_disk(identity: &str) -> Self {
        let digest = Sha256::digest(format!("cos-agent disk {identity}"));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Uuid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
        let mut bytes = [0; 16];
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let uuid = Uuid::of_disk("vol-0123456789abcdef0");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!(uuid.to_string().as_bytes()[14], b'8');
        assert_eq!(uuid, Uuid::of_disk("vol-0123456789abcdef0"));
        assert_ne!(uuid, Uuid::of_disk("vol-0123456789abcdef1"));
        assert!("+1234567-89ab-cdef-0123-456789abcdef".parse::<Uuid>().is_err());
        assert!("0123".parse::<Uuid>().is_err());
    }
}
