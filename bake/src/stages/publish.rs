//! Owns the last stage: the image no longer expires, and the manifest says what it is.
//! Touches `Cloud` (tags) and the ledger.

use std::collections::BTreeMap;

use super::boot_test::Proven;
use super::payload::Staged;
use crate::cloud::{Cloud, Resource};
use crate::error::{BakeError, chain};
use crate::events::Stage;
use crate::manifest::{BaseRecord, ComponentRecord, MANIFEST_VERSION, Manifest};
use crate::plan::{Plan, TAG_EXPIRES_AT};
use crate::remote::Remote;
use crate::run::Run;

/// Takes the expiry off the snapshots, then off the image: that last call is what makes the bake good.
pub async fn publish<C: Cloud, R: Remote>(
    plan: &Plan,
    staged: &Staged,
    proven: Proven,
    run: &Run<'_, C, R>,
) -> Result<Manifest, BakeError> {
    let facts = run
        .stage(Stage::Publish, async {
            for snapshot in &proven.facts.snapshots {
                lasting(Resource::Snapshot(snapshot.clone()), run).await?;
            }
            lasting(Resource::Image(proven.facts.id.clone()), run).await?;
            // The image is good from here on, whatever becomes of the ledger: a sweep knows it by its missing expiry.
            if let Err(error) = run.keep(proven.facts.id.clone()) {
                run.events.warn(chain(&error));
            }
            let outcome = format!("{} is {}", plan.name, proven.facts.id);
            Ok((proven.facts, outcome))
        })
        .await?;
    let mut tags = facts.tags;
    tags.remove(TAG_EXPIRES_AT);
    let base = &plan.base_image;
    Ok(Manifest {
        version: MANIFEST_VERSION,
        bake_id: plan.bake_id.clone(),
        image: facts.id.to_string(),
        name: plan.name.clone(),
        region: plan.region.clone(),
        arch: plan.arch.name().to_owned(),
        base: BaseRecord {
            base: plan.base.name().to_owned(),
            image: base.id.to_string(),
            name: base.name.clone(),
            created: base.created.clone(),
            description: base.description.clone(),
        },
        snapshots: facts.snapshots.iter().map(ToString::to_string).collect(),
        tags,
        components: components(staged),
        bundle_sha256: staged.bundle.sha256.to_string(),
        bundle_manifest_sha256: proven.manifest_sha256,
        packages: proven.packages,
        phases: run.phases(),
    })
}

async fn lasting<C: Cloud, R: Remote>(resource: Resource, run: &Run<'_, C, R>) -> Result<(), BakeError> {
    run.cloud
        .untag(&resource, &[TAG_EXPIRES_AT])
        .await
        .map_err(BakeError::cloud(format!("take the expiry off {resource}")))
}

fn components(staged: &Staged) -> BTreeMap<String, ComponentRecord> {
    let components = &staged.bundle.manifest.components;
    components
        .iter()
        .map(|(name, component)| {
            let record = ComponentRecord {
                version: component.version.clone(),
                trust: component.trust,
                sha256: component.archive.as_ref().map(|archive| archive.sha256.clone()),
            };
            (name.clone(), record)
        })
        .collect()
}
