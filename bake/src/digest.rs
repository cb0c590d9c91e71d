//! Owns SHA-256 digests in hexadecimal: their type, and computing them without holding a file in memory.
//! Touches files that a caller names, for reading.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Bytes read at once when a file is hashed.
const CHUNK: usize = 128 * 1024;

/// A SHA-256 digest. Shown and serialised as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest and the length in bytes of everything a reader gives.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = DigestWriter::new(io::sink());
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(length) => hasher.write_all(&chunk[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest and the length in bytes of a file.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        Self::of_reader(File::open(path)?)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that is no SHA-256 digest in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a SHA-256 digest of 64 lower-case hexadecimal digits")]
pub struct DigestSyntax(String);

impl FromStr for Digest {
    type Err = DigestSyntax;

    fn from_str(text: &str) -> Result<Self, DigestSyntax> {
        let fault = || DigestSyntax(text.chars().take(80).collect());
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(fault());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])
                .zip(nibble(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(fault)?;
        }
        Ok(Self(bytes))
    }
}

/// One lower-case digit: upper case is refused, so that a digest has one spelling only.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes and counts everything that is written through it.
pub struct DigestWriter<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> DigestWriter<W> {
    /// Hashes from here on what goes to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            length: 0,
        }
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Digest and length of all that was written.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.hasher.finalize().into()), self.length)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes that are not the bytes they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file} has SHA-256 {actual}, expected {expected}")]
pub struct DigestMismatch {
    /// What was read: a path, an address, or an entry of an archive.
    pub file: String,
    /// The digest that it should have.
    pub expected: Digest,
    /// The digest that it has.
    pub actual: Digest,
}

impl DigestMismatch {
    /// Compares two digests of `file`.
    pub fn check(file: impl fmt::Display, expected: Digest, actual: Digest) -> Result<(), Self> {
        if expected == actual {
            return Ok(());
        }
        Err(Self {
            file: file.to_string(),
            expected,
            actual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_digest_are_one_to_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        for wrong in [
            "",
            &EMPTY[1..],
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
            &EMPTY.replace('e', "g"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn writer_and_reader_agree() {
        let bytes = vec![7; CHUNK * 2 + 5];
        let mut writer = DigestWriter::new(Vec::new());
        writer.write_all(&bytes).unwrap();
        assert_eq!(writer.length(), bytes.len() as u64);
        assert_eq!(writer.finish(), Digest::of_reader(bytes.as_slice()).unwrap());
        assert_eq!(Digest::of_reader(bytes.as_slice()).unwrap().0, Digest::of(&bytes));
    }
}
