//! Owns the last net: ends what dead bakes left behind, by their ledgers and by tags.
//! Touches the port `Cloud` and the folder of ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::cleanup::{self, CleanupReport, Patience};
use crate::cloud::{Cloud, CloudError, Resource, Tagged};
use crate::error::{BakeError, chain};
use crate::events::Events;
use crate::ledger::{Ledger, LedgerError, Record};
use crate::plan::{TAG_BAKE_ID, TAG_EXPIRES_AT, is_bake_id};

/// What to sweep.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Only this bake, whether it expired or not; its process must not run any more.
    pub bake_id: Option<String>,
    /// Say what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// What belongs to one dead bake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// The bake.
    pub bake_id: String,
    /// Why it is taken for dead.
    pub reason: String,
    /// What is left of it, oldest first as far as that is known.
    pub resources: Vec<Resource>,
}

/// Finds the remains of dead bakes in one account and region. Nothing is touched.
///
/// A bake is dead if its ledger on this machine has no end and its process no longer runs, or if its resources'
/// expiry has passed. A resource is a bake's only if it carries both of COS's tags in their exact form, so that a
/// look-alike is left alone; an image without an expiry is published, and it and its snapshots are left alone.
pub async fn find<C: Cloud>(
    cloud: &C,
    region: &str,
    ledgers: &Path,
    request: &Request,
    now: Timestamp,
) -> Result<Vec<Remains>, BakeError> {
    let account = cloud
        .account()
        .await
        .map_err(BakeError::cloud("ask who the caller is"))?;
    let records = Record::read_all(ledgers)?;
    let here = |record: &&Record| record.begin.region == region && record.begin.account == account;
    let running: BTreeSet<&str> = records
        .iter()
        .filter(here)
        .filter(|record| record.is_running() && !record.ended)
        .map(|record| record.begin.bake_id.as_str())
        .collect();
    if let Some(wanted) = request
        .bake_id
        .as_deref()
        .filter(|wanted| running.contains(wanted))
    {
        return Err(BakeError::refused(
            format!("the bake {wanted} still runs on this machine"),
            "interrupt it: it cleans up by itself",
        ));
    }
    let wanted = |bake_id: &str| request.bake_id.as_deref().is_none_or(|wanted| wanted == bake_id);

    let tagged = cloud
        .tagged(TAG_BAKE_ID, None)
        .await
        .map_err(BakeError::cloud("list what bakes made"))?;
    let mut by_bake: BTreeMap<&str, Vec<&Tagged>> = BTreeMap::new();
    for found in &tagged {
        let Some(bake_id) = found.tags.get(TAG_BAKE_ID).filter(|bake_id| is_bake_id(bake_id)) else {
            continue;
        };
        if found.tags.contains_key(TAG_EXPIRES_AT) && !running.contains(bake_id.as_str()) && wanted(bake_id) {
            by_bake.entry(bake_id).or_default().push(found);
        }
    }
    let published = published(cloud, &tagged).await?;

    let mut remains = Vec::new();
    for record in records.iter().filter(here) {
        let bake_id = record.begin.bake_id.as_str();
        if record.ended || running.contains(bake_id) || !wanted(bake_id) {
            continue;
        }
        let mut resources = record.live.clone();
        let strays = by_bake.remove(bake_id).unwrap_or_default();
        resources.extend(
            strays
                .iter()
                .map(|stray| stray.resource.clone())
                .filter(|stray| !record.live.contains(stray)),
        );
        resources.retain(|resource| !published.contains(resource) && !record.kept.contains(resource));
        let reason = format!("its process {} no longer runs", record.begin.process);
        remains.push(Remains {
            bake_id: bake_id.to_owned(),
            reason,
            resources,
        });
    }
    for (bake_id, found) in by_bake {
        let dead = |found: &&Tagged| request.bake_id.is_some() || expired(&found.tags, now);
        let mut resources: Vec<Resource> = found
            .into_iter()
            .filter(dead)
            .map(|found| found.resource.clone())
            .collect();
        resources.retain(|resource| !published.contains(resource));
        if !resources.is_empty() {
            let reason = if request.bake_id.is_some() {
                "it was named"
            } else {
                "its expiry has passed"
            };
            remains.push(Remains {
                bake_id: bake_id.to_owned(),
                reason: reason.to_owned(),
                resources,
            });
        }
    }
    Ok(remains)
}

/// Ends remains, and closes the ledgers of bakes of which nothing is left. A ledger that cannot be written is told of,
/// and stops nothing: the next sweep finds it again.
pub async fn remove<C: Cloud>(
    cloud: &C,
    ledgers: &Path,
    remains: &[Remains],
    patience: Patience,
    events: &Events,
) -> CleanupReport {
    let mut total = CleanupReport::default();
    for bake in remains {
        let mut ledger = reopen(ledgers, &bake.bake_id).unwrap_or_else(|error| {
            events.warn(chain(&error));
            None
        });
        let mut unwritten = None;
        let report = cleanup::release(cloud, &bake.resources, patience, events, |resource| {
            if let Some(Err(error)) = ledger.as_mut().map(|ledger| ledger.released(resource)) {
                unwritten = Some(error);
            }
        })
        .await;
        if let (Some(ledger), true) = (&mut ledger, report.leftovers.is_empty()) {
            unwritten = ledger.end().err().or(unwritten);
        }
        if let Some(error) = unwritten {
            events.warn(chain(&error));
        }
        total.released.extend(report.released);
        total.leftovers.extend(report.leftovers);
    }
    total
}

/// The ledger of a bake, if it is on this machine.
fn reopen(ledgers: &Path, bake_id: &str) -> Result<Option<Ledger>, LedgerError> {
    let path = ledgers.join(format!("{bake_id}.jsonl"));
    if !path.exists() {
        return Ok(None);
    }
    Ledger::reopen(&path).map(|(ledger, _)| Some(ledger))
}

/// Resources of a bake that only their tags betray, snapshots of its images after the images. Never a published one.
pub(crate) async fn strays<C: Cloud>(
    cloud: &C,
    bake_id: &str,
    known: &[Resource],
) -> Result<Vec<Resource>, CloudError> {
    let tagged = cloud.tagged(TAG_BAKE_ID, Some(bake_id)).await?;
    let mut strays: Vec<Resource> = tagged
        .into_iter()
        .filter(|found| found.tags.contains_key(TAG_EXPIRES_AT) && !known.contains(&found.resource))
        .map(|found| found.resource)
        .collect();
    // Removal goes from the end: images first, for their snapshots are in use until then.
    strays.sort_by_key(|resource| matches!(resource, Resource::Image(_)));
    Ok(strays)
}

/// Published images with their snapshots.
async fn published<C: Cloud>(cloud: &C, tagged: &[Tagged]) -> Result<BTreeSet<Resource>, BakeError> {
    let mut published = BTreeSet::new();
    for found in tagged
        .iter()
        .filter(|found| !found.tags.contains_key(TAG_EXPIRES_AT))
    {
        published.insert(found.resource.clone());
        if let Resource::Image(id) = &found.resource {
            let facts = cloud
                .image(id)
                .await
                .map_err(BakeError::cloud(format!("look at {id}")))?;
            let snapshots = facts.into_iter().flat_map(|facts| facts.snapshots);
            published.extend(snapshots.map(Resource::Snapshot));
        }
    }
    Ok(published)
}

fn expired(tags: &BTreeMap<String, String>, now: Timestamp) -> bool {
    let expires_at = tags
        .get(TAG_EXPIRES_AT)
        .and_then(|time| time.parse::<Timestamp>().ok());
    expires_at.is_some_and(|expires_at| expires_at < now)
}
