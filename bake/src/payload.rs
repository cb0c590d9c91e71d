//! Owns the payload volume's bytes: header, then bundle, in blocks of the EBS direct APIs, read when asked for.
//! Touches the bundle's file, for reading.
//!
//! Every block is checked against the bundle as it was when the payload was opened, so what is uploaded is
//! what was verified, whatever happens to the file in between.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use cos_agent::bundle::{PAYLOAD_BUNDLE_OFFSET, PAYLOAD_MAGIC, PayloadHeader};

use crate::bundle::Bundle;
use crate::digest::{Digest, DigestMismatch, DigestWriter};
use crate::release::ReleaseError;

/// Length of a block in bytes, as the EBS direct APIs have it.
pub const BLOCK_SIZE: usize = 512 * 1024;

/// One gibibyte in bytes: volumes have whole ones.
const GIB: u64 = 1024 * 1024 * 1024;

/// A payload volume that exists only as its blocks.
#[derive(Debug)]
pub struct Payload {
    /// What stands in the first block.
    pub header: PayloadHeader,
    first: Vec<u8>,
    bundle: File,
    path: PathBuf,
    bundle_size: u64,
    digests: Vec<Digest>,
}

/// One block of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its number, from 0.
    pub index: u32,
    /// Its content, [`BLOCK_SIZE`] bytes.
    pub bytes: Vec<u8>,
    /// Digest of the content, which PutSnapshotBlock asks for (there in base64).
    pub sha256: Digest,
}

impl Block {
    /// Whether all bytes are zero: a volume has those already, nothing need be written.
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|&byte| byte == 0)
    }
}

impl Payload {
    /// Opens a bundle as a volume. Reads the whole bundle once; refuses it if its digest is not the bundle's.
    pub fn open(bundle: &Bundle) -> Result<Self, ReleaseError> {
        let fault = |source| ReleaseError::File {
            path: bundle.path.clone(),
            source,
        };
        let header = PayloadHeader {
            bundle_sha256: bundle.sha256.to_string(),
            bundle_size: bundle.size,
            manifest_sha256: bundle.manifest_sha256.to_string(),
            agent_offset: PAYLOAD_BUNDLE_OFFSET + bundle.agent_offset,
            agent_size: bundle.agent_size,
            agent_sha256: bundle.agent_sha256.to_string(),
        };
        let json = serde_json::to_string(&header).map_err(|error| fault(error.into()))?;
        let mut first = format!("{PAYLOAD_MAGIC}{json}\n").into_bytes();
        first.resize(BLOCK_SIZE, 0);

        let file = File::open(&bundle.path).map_err(fault)?;
        let actual_size = file.metadata().map_err(fault)?.len();
        let mut payload = Self {
            header,
            digests: vec![Digest::of(&first)],
            first,
            bundle: file,
            path: bundle.path.clone(),
            bundle_size: bundle.size,
        };
        let mut whole = DigestWriter::new(std::io::sink());
        // The file's own length counts here: bytes that were added behind must change the digest.
        for at in (0..actual_size).step_by(BLOCK_SIZE) {
            let bytes = payload.read_bundle(at, actual_size)?;
            let length = usize::try_from((actual_size - at).min(BLOCK_SIZE as u64)).unwrap_or(BLOCK_SIZE);
            std::io::Write::write_all(&mut whole, &bytes[..length]).map_err(fault)?;
            payload.digests.push(Digest::of(&bytes));
        }
        let (actual, _) = whole.finish();
        DigestMismatch::check(bundle.path.display(), bundle.sha256, actual)?;
        Ok(payload)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.digests.len()).unwrap_or(u32::MAX)
    }

    /// Length in bytes: whole blocks.
    pub fn size_bytes(&self) -> u64 {
        u64::from(self.blocks()) * BLOCK_SIZE as u64
    }

    /// Smallest volume that holds it, in GiB.
    pub fn volume_size_gib(&self) -> u32 {
        u32::try_from(self.size_bytes().div_ceil(GIB)).unwrap_or(u32::MAX)
    }

    /// Reads one block, padded with zeros, and checks it. Blocks; may be called from several threads at once.
    pub fn read_block(&self, index: u32) -> Result<Block, ReleaseError> {
        let outside = || ReleaseError::File {
            path: self.path.clone(),
            source: std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("block {index} is behind the end; there are {}", self.blocks()),
            ),
        };
        let expected = *self.digests.get(index as usize).ok_or_else(outside)?;
        let bytes = match u64::from(index).checked_sub(1) {
            None => self.first.clone(),
            Some(before) => self.read_bundle(before * BLOCK_SIZE as u64, self.bundle_size)?,
        };
        let sha256 = Digest::of(&bytes);
        DigestMismatch::check(
            format!("block {index} of {}", self.path.display()),
            expected,
            sha256,
        )?;
        Ok(Block { index, bytes, sha256 })
    }

    /// One block of the bundle from an offset on, padded with zeros.
    fn read_bundle(&self, at: u64, size: u64) -> Result<Vec<u8>, ReleaseError> {
        let mut bytes = vec![0; BLOCK_SIZE];
        let length = usize::try_from(size.saturating_sub(at))
            .unwrap_or(BLOCK_SIZE)
            .min(BLOCK_SIZE);
        let fault = |source| ReleaseError::File {
            path: self.path.clone(),
            source,
        };
        self.bundle
            .read_exact_at(&mut bytes[..length], at)
            .map_err(fault)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
