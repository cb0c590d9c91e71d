//! Owns the EBS direct APIs: a snapshot written block by block, each block and the whole under a checksum.
//! Touches AWS.

use std::time::{Duration, Instant};

use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::client::{AwsCloud, pause};
use super::errors;
use crate::cloud::{Cloud, CloudError, CloudErrorKind, SnapshotId, SnapshotSpec, SnapshotState};

/// Longest time for one block, all tries together: coldsnap's 132 s got past what EBS says right after StartSnapshot.
const BLOCK_DEADLINE: Duration = Duration::from_mins(2);

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long a snapshot that nobody writes to stays open, in minutes; then AWS ends it as failed.
const IDLE_MINUTES: i32 = 60;

impl AwsCloud {
    pub(super) async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<SnapshotId, CloudError> {
        const OPERATION: &str = "ebs:StartSnapshot";
        let tags: Vec<Tag> = spec
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        let answer = self
            .send(OPERATION, |clients| {
                clients
                    .ebs
                    .start_snapshot()
                    .volume_size(spec.size_gib.into())
                    .description(&spec.description)
                    .set_tags(Some(tags.clone()))
                    .client_token(&spec.token)
                    .timeout(IDLE_MINUTES)
                    .send()
            })
            .await?;
        let id = SnapshotId(errors::present(OPERATION, "SnapshotId", answer.snapshot_id)?);
        self.made(&id.0);
        Ok(id)
    }

    /// The loop is our own, not the SDK's: its retry budget is shared by all calls of a client and dries up when
    /// dozens of blocks are throttled at once, and it gives up at once on 'the snapshot does not exist', which EBS may
    /// say for a while after it started the snapshot (awslabs/coldsnap#43). Putting the same block twice is harmless.
    pub(super) async fn write_block(
        &self,
        id: &SnapshotId,
        index: u32,
        data: Vec<u8>,
    ) -> Result<(), CloudError> {
        const OPERATION: &str = "ebs:PutSnapshotBlock";
        let number = i32::try_from(index)
            .map_err(|_| errors::other(OPERATION, format!("block {index} of {id} is past any volume")))?;
        let length = i32::try_from(data.len())
            .map_err(|_| errors::other(OPERATION, format!("block {index} of {id} is too long")))?;
        let digest: [u8; 32] = Sha256::digest(&data).into();
        let checksum = BASE64.encode(digest);
        let body = bytes_of(data);
        let end = Instant::now() + BLOCK_DEADLINE;
        let mut attempt = 0;
        loop {
            let put = self.send_once(OPERATION, |clients| {
                clients
                    .ebs
                    .put_snapshot_block()
                    .snapshot_id(&id.0)
                    .block_index(number)
                    .block_data(body())
                    .data_length(length)
                    .checksum(&checksum)
                    .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                    .send()
            });
            match put.await {
                Ok(_) => break,
                Err(error) if Instant::now() < end && (errors::transient(&error) || absent(&error)) => {
                    pause(attempt, LONGEST_PAUSE).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        self.digests()
            .entry(id.clone())
            .or_default()
            .insert(index, digest);
        Ok(())
    }

    /// Seals a snapshot under a checksum of all blocks (SHA-256 over their digests in order), if this process put
    /// them all.
    pub(super) async fn seal_snapshot(&self, id: &SnapshotId, changed_blocks: u32) -> Result<(), CloudError> {
        const OPERATION: &str = "ebs:CompleteSnapshot";
        let count = i32::try_from(changed_blocks)
            .map_err(|_| errors::other(OPERATION, format!("{changed_blocks} blocks of {id} are too many")))?;
        let whole = self
            .digests()
            .get(id)
            .filter(|digests| digests.len() == changed_blocks as usize)
            .map(|digests| {
                let mut whole = Sha256::new();
                for digest in digests.values() {
                    whole.update(digest);
                }
                BASE64.encode(whole.finalize())
            });
        let (algorithm, method) = match whole {
            Some(_) => (
                Some(ChecksumAlgorithm::ChecksumAlgorithmSha256),
                Some(ChecksumAggregationMethod::ChecksumAggregationLinear),
            ),
            None => (None, None),
        };
        let sealed = self
            .settled(&id.0, || {
                self.send(OPERATION, |clients| {
                    clients
                        .ebs
                        .complete_snapshot()
                        .snapshot_id(&id.0)
                        .changed_blocks_count(count)
                        .set_checksum(whole.clone())
                        .set_checksum_algorithm(algorithm.clone())
                        .set_checksum_aggregation_method(method.clone())
                        .send()
                })
            })
            .await;
        match sealed {
            Ok(_) => {}
            // A retry after a lost answer is refused, because the snapshot is sealed already.
            Err(error) => match self.snapshot(id).await {
                Ok(Some(facts)) if facts.state == SnapshotState::Completed => {}
                _ => return Err(error),
            },
        }
        self.digests().remove(id);
        Ok(())
    }
}

/// A body that can be sent again: the bytes are shared, not copied, from one try to the next.
fn bytes_of(data: Vec<u8>) -> impl Fn() -> ByteStream {
    let stream = aws_smithy_types::body::SdkBody::from(data);
    move || {
        ByteStream::new(
            stream
                .try_clone()
                .unwrap_or_else(aws_smithy_types::body::SdkBody::empty),
        )
    }
}

fn absent(error: &CloudError) -> bool {
    error.kind == CloudErrorKind::NotFound || error.message.contains("does not exist")
}
