//! Owns the bundle's way into the cloud: it is built, and written block by block into a snapshot.
//! Touches the cache folder, downloads, and `Cloud` (snapshot).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cos_agent::bundle::PayloadHeader;
use futures::{TryStreamExt, stream};

use crate::blocking::on_thread;
use crate::bundle::{self, AgentBinary, Bundle};
use crate::cloud::{Cloud, SnapshotId, SnapshotSpec, SnapshotState};
use crate::error::BakeError;
use crate::events::{Event, Stage};
use crate::lock::{Lock, Source};
use crate::payload::Payload;
use crate::plan::{Plan, TAG_BUNDLE, TAG_EXPIRES_AT, TAG_PAYLOAD};
use crate::release::signature::TrustedKeys;
use crate::release::{ArchiveCache, Fetcher, ReleaseError, Upstream};
use crate::remote::Remote;
use crate::run::Run;
use crate::wait::Seen;

/// Blocks under way at once. 32 of 512 KiB fill a gigabit line and stay far below the quota of 1,000 a second.
const UPLOADS: usize = 32;

/// Longest time from the last block to a completed snapshot.
pub(super) const SNAPSHOT_DEADLINE: Duration = Duration::from_mins(20);

/// Where the bundle comes from.
pub enum Ingredients {
    /// It is made from locked archives.
    ToBuild(Box<ToBuild>),
    /// It was made before.
    Built(Arc<Bundle>),
}

/// What a bundle is made of.
pub struct ToBuild {
    /// Which archives.
    pub lock: Lock,
    /// Where they come from.
    pub upstream: Upstream,
    /// Downloads them.
    pub fetcher: Fetcher,
    /// Where they are kept.
    pub archives: ArchiveCache,
    /// Whose signatures are believed.
    pub keys: TrustedKeys,
    /// The agent's binary.
    pub agent: AgentBinary,
    /// Folder where bundles are kept.
    pub bundles: PathBuf,
}

impl ToBuild {
    fn source(&self) -> Source<'_> {
        Source {
            upstream: &self.upstream,
            fetcher: &self.fetcher,
            cache: &self.archives,
            keys: &self.keys,
        }
    }
}

/// What was there before the bake.
#[derive(Debug)]
pub struct Found {
    bundle: Option<Arc<Bundle>>,
    kept: Option<SnapshotId>,
}

impl Found {
    /// The payload of the bundle, if an earlier bake kept it: the builder can start with it.
    pub fn payload(&self) -> Option<&SnapshotId> {
        self.kept.as_ref()
    }
}

/// A bundle that is in the cloud.
#[derive(Debug)]
pub struct Staged {
    pub(super) snapshot: SnapshotId,
    pub(super) bundle: Arc<Bundle>,
    pub(super) header: PayloadHeader,
}

/// Looks for the bundle in the cache and, if it is there, for a kept payload of it. Downloads nothing.
pub async fn look<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    run: &Run<'_, C, R>,
) -> Result<Found, BakeError> {
    let bundle = match ingredients {
        Ingredients::Built(bundle) => Some(Arc::clone(bundle)),
        Ingredients::ToBuild(parts) => {
            let ToBuild {
                lock, agent, bundles, ..
            } = &**parts;
            let source = parts.source();
            let found = bundle::made_before(&source, lock, plan.arch, agent, bundles);
            interruptible(found, "look for the bundle", run)
                .await?
                .map(Arc::new)
        }
    };
    let kept = match &bundle {
        Some(bundle) => kept(bundle, run).await?,
        None => None,
    };
    Ok(Found { bundle, kept })
}

/// Builds the bundle and puts it into a snapshot, as far as that was not done before.
pub async fn stage<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    found: Found,
    run: &Run<'_, C, R>,
) -> Result<Staged, BakeError> {
    let looked = found.bundle.is_some();
    let bundle = run
        .stage(Stage::Bundle, build(plan, ingredients, found.bundle, run))
        .await?;
    run.stage(Stage::Payload, async {
        let payload = open(&bundle).await?;
        let header = payload.header.clone();
        let kept = if looked {
            found.kept
        } else {
            kept(&bundle, run).await?
        };
        let (snapshot, outcome) = if let Some(kept) = kept {
            let outcome = format!("{kept} is used again");
            (kept, outcome)
        } else {
            let snapshot = upload(plan, payload, &bundle, run).await?;
            let outcome = format!("{} MiB in {snapshot}", bundle.size / (1024 * 1024));
            (snapshot, outcome)
        };
        Ok((
            Staged {
                snapshot,
                bundle: Arc::clone(&bundle),
                header,
            },
            outcome,
        ))
    })
    .await
}

/// The newest payload of a bundle that was kept. One that still expires belongs to a bake that runs, and goes with it.
async fn kept<C: Cloud, R: Remote>(
    bundle: &Bundle,
    run: &Run<'_, C, R>,
) -> Result<Option<SnapshotId>, BakeError> {
    let found = run
        .cloud
        .snapshots_tagged(TAG_PAYLOAD, &bundle.sha256.to_string())
        .await
        .map_err(BakeError::cloud("look for a payload of this bundle"))?;
    let mut kept = found
        .into_iter()
        .filter(|snapshot| !snapshot.tags.contains_key(TAG_EXPIRES_AT));
    Ok(kept.next().map(|snapshot| snapshot.id))
}

/// Keeps the payload snapshot for the next bake. The image is published by now, so a failure is only a warning.
pub async fn keep<C: Cloud, R: Remote>(staged: &Staged, run: &Run<'_, C, R>) {
    let snapshot = staged.snapshot.clone();
    let kept = match run.cloud.untag(&snapshot.clone().into(), &[TAG_EXPIRES_AT]).await {
        Ok(()) => run.keep(snapshot.clone()).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = kept {
        run.events
            .warn(format!("could not keep the payload {snapshot}: {reason}"));
    }
}

async fn build<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    found: Option<Arc<Bundle>>,
    run: &Run<'_, C, R>,
) -> Result<(Arc<Bundle>, String), BakeError> {
    let bundle = match (found, ingredients) {
        (Some(bundle), _) => bundle,
        (None, Ingredients::Built(bundle)) => Arc::clone(bundle),
        (None, Ingredients::ToBuild(parts)) => {
            let ToBuild {
                lock, agent, bundles, ..
            } = &**parts;
            let source = parts.source();
            let made = bundle::make(&source, lock, plan.arch, agent, bundles);
            Arc::new(interruptible(made, "make the bundle", run).await?)
        }
    };
    let outcome = format!(
        "{} files in {} MiB{}",
        bundle.manifest.files.len(),
        bundle.size.div_ceil(1024 * 1024),
        if bundle.reused { ", made before" } else { "" }
    );
    Ok((bundle, outcome))
}

/// Work that may take long and makes nothing in the cloud, such as downloads, may be dropped half-way.
async fn interruptible<C: Cloud, R: Remote, T>(
    work: impl Future<Output = Result<T, ReleaseError>>,
    action: &'static str,
    run: &Run<'_, C, R>,
) -> Result<T, BakeError> {
    tokio::select! {
        done = work => done.map_err(|source| BakeError::Release { action, source }),
        () = run.cancel.cancelled() => Err(BakeError::Interrupted),
    }
}

async fn open(bundle: &Arc<Bundle>) -> Result<Payload, BakeError> {
    let bundle = Arc::clone(bundle);
    on_thread(move || Payload::open(&bundle))
        .await
        .map_err(unreadable)
}

fn unreadable(source: ReleaseError) -> BakeError {
    BakeError::Release {
        action: "read the bundle",
        source,
    }
}

async fn upload<C: Cloud, R: Remote>(
    plan: &Plan,
    payload: Payload,
    bundle: &Bundle,
    run: &Run<'_, C, R>,
) -> Result<SnapshotId, BakeError> {
    let mut tags: BTreeMap<String, String> = plan.tags_for("payload");
    tags.insert(TAG_BUNDLE.into(), bundle.sha256.to_string());
    tags.insert(TAG_PAYLOAD.into(), bundle.sha256.to_string());
    let spec = SnapshotSpec {
        size_gib: payload.volume_size_gib(),
        description: format!("payload of {}", plan.bake_id),
        tags,
        token: format!("{}-payload", plan.bake_id),
    };
    let snapshot = run
        .create("the payload snapshot", run.cloud.start_snapshot(&spec))
        .await?;
    let blocks = payload.blocks();
    let payload = Arc::new(payload);
    let (done, put) = (AtomicU64::new(0), AtomicU64::new(0));
    stream::iter((0..blocks).map(Ok))
        .try_for_each_concurrent(UPLOADS, |index| {
            let (payload, snapshot, done, put) = (Arc::clone(&payload), &snapshot, &done, &put);
            async move {
                if run.cancel.is_cancelled() {
                    return Err(BakeError::Interrupted);
                }
                let block = on_thread(move || payload.read_block(index))
                    .await
                    .map_err(unreadable)?;
                // A block that was never put reads as zeros.
                if !block.is_zero() {
                    run.cloud
                        .put_block(snapshot, index, block.bytes)
                        .await
                        .map_err(BakeError::cloud(format!(
                            "put block {index} of {blocks} into {snapshot}"
                        )))?;
                    put.fetch_add(1, Ordering::Relaxed);
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                run.events.emit(Event::Progress {
                    stage: Stage::Payload,
                    unit: "blocks of 512 KiB",
                    done,
                    total: u64::from(blocks),
                });
                Ok(())
            }
        })
        .await?;
    let changed = u32::try_from(put.into_inner()).unwrap_or(blocks);
    run.cloud
        .complete_snapshot(&snapshot, changed)
        .await
        .map_err(BakeError::cloud(format!("complete {snapshot}")))?;
    run.until(
        &format!("{snapshot} to be completed"),
        SNAPSHOT_DEADLINE,
        || async {
            let facts = run
                .cloud
                .snapshot(&snapshot)
                .await
                .map_err(BakeError::cloud(format!("look at {snapshot}")))?;
            Ok(match facts.map(|facts| facts.state) {
                Some(SnapshotState::Completed) => Seen::Done(()),
                Some(SnapshotState::Failed) => Seen::Hopeless("EC2 says that it failed".into()),
                Some(SnapshotState::Pending) => Seen::Pending("it is pending".into()),
                None => Seen::Pending("it does not show yet".into()),
            })
        },
    )
    .await?;
    Ok(snapshot)
}
