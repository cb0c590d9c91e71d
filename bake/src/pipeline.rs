//! Owns the order of stages, and the cleanup on every way out.
//! Touches the stages; everything else is theirs.

use std::time::Duration;

use crate::cleanup::{self, Patience};
use crate::cloud::{Cloud, Resource};
use crate::error::{BakeError, chain};
use crate::events::{Event, Stage};
use crate::manifest::Manifest;
use crate::plan::Plan;
use crate::remote::Remote;
use crate::run::Run;
use crate::stages::payload::Ingredients;
use crate::stages::{boot_test, image, launch, payload, provision, publish, seal, verify};
use crate::sweep;

/// Bakes what the plan says. Whatever happens, nothing is left but a published image.
pub async fn bake<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    run: &Run<'_, C, R>,
) -> Result<Manifest, BakeError> {
    let outcome = stages(plan, ingredients, run).await;
    release(plan, outcome, run).await
}

/// The whole bake on one screen: each stage takes what only the stage before it can make.
async fn stages<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    run: &Run<'_, C, R>,
) -> Result<Manifest, BakeError> {
    let (staged, builder) = side_by_side(plan, ingredients, run).await?;
    let provisioned = provision::provision(plan, builder, &staged, run).await?;
    let verified = verify::verify(provisioned, run).await?;
    let sealed = seal::seal(verified, run).await?;
    let untested = image::image(plan, &staged, sealed, run).await?;
    let proven = boot_test::boot_test(plan, untested, run).await?;
    let manifest = publish::publish(plan, &staged, proven, run).await?;
    if plan.keep_payload {
        payload::keep(&staged, run).await;
    }
    Ok(manifest)
}

/// Bundle and payload are made while the base boots. When one side fails the other's waits end early, but its creates
/// come to their end: a create that is dropped half-way is a resource without a name.
async fn side_by_side<C: Cloud, R: Remote>(
    plan: &Plan,
    ingredients: &Ingredients,
    run: &Run<'_, C, R>,
) -> Result<(payload::Staged, launch::Builder), BakeError> {
    let found = payload::look(plan, ingredients, run).await?;
    let kept = found.payload().cloned();
    let (staged, builder) = tokio::join!(
        abandon_on_error(payload::stage(plan, ingredients, found, run), run),
        abandon_on_error(launch::launch(plan, kept, run), run)
    );
    match (staged, builder) {
        (Ok(staged), Ok(builder)) => Ok((staged, builder)),
        // The one that failed first cancelled the other: its reason is the reason.
        (Err(BakeError::Interrupted) | Ok(_), Err(error)) | (Err(error), _) => Err(error),
    }
}

async fn abandon_on_error<C: Cloud, R: Remote, T>(
    side: impl Future<Output = Result<T, BakeError>>,
    run: &Run<'_, C, R>,
) -> Result<T, BakeError> {
    let result = side.await;
    if result.is_err() {
        run.cancel.cancel();
    }
    result
}

/// Ends everything that is not a product. After a failure also what only its tags betray: the reply to its creation
/// was lost.
async fn release<C: Cloud, R: Remote>(
    plan: &Plan,
    outcome: Result<Manifest, BakeError>,
    run: &Run<'_, C, R>,
) -> Result<Manifest, BakeError> {
    run.events.emit(Event::StageStarted {
        stage: Stage::Cleanup,
    });
    let start = std::time::Instant::now();
    let mut resources: Vec<Resource> = run.ledger().live().to_vec();
    let mut unlisted = None;
    if outcome.is_err() {
        match tokio::time::timeout(
            Duration::from_mins(1),
            sweep::strays(run.cloud, &plan.bake_id, &resources),
        )
        .await
        {
            // Found by tag means made later than anything the ledger knows: it goes first.
            Ok(Ok(strays)) => resources.extend(strays),
            Ok(Err(error)) => unlisted = Some(error.to_string()),
            Err(_) => unlisted = Some("no answer in time".to_owned()),
        }
    }
    if let Some(reason) = &unlisted {
        run.events.warn(format!(
            "could not look for resources by tag: {reason}; `cos-bake sweep` will"
        ));
    }
    let patience = Patience {
        pause: run.pause() * 2,
        ..Patience::default()
    };
    let report = cleanup::release(run.cloud, &resources, patience, &run.events, |resource| {
        if let Err(error) = run.ledger().released(resource) {
            run.events.warn(chain(&error));
        }
    })
    .await;
    let count = report.leftovers.len();
    // What the bake came to is known and must be said; a ledger without its end only costs a sweep.
    if count == 0
        && unlisted.is_none()
        && let Err(error) = run.ledger().end()
    {
        run.events.warn(chain(&error));
    }
    let seconds = start.elapsed().as_secs_f64();
    let outcome_words = format!("{} removed, {count} left", report.released.len());
    run.events.emit(Event::StageFinished {
        stage: Stage::Cleanup,
        seconds,
        outcome: outcome_words,
    });
    if count == 0 {
        return outcome;
    }
    let hint = format!(
        "`cos-bake sweep --region {} --bake-id {}` tries again",
        plan.region, plan.bake_id
    );
    Err(BakeError::Leftovers {
        count,
        hint,
        cause: outcome.err().map(Box::new),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cloud::fake::FakeCloud;
    use crate::error::Exit;
    use crate::events::Events;
    use crate::ledger;
    use crate::lock::tests::sample;
    use crate::recipe::tests::recipe;
    use crate::remote::fake::FakeRemote;

    #[tokio::test]
    async fn a_ledger_that_cannot_be_written_hides_no_failure() {
        let cloud = FakeCloud::standard();
        let plan = crate::plan::resolve(&recipe(), &sample(), "eu-central-1", Timestamp::now(), &cloud)
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger::tests::unwritable(folder.path(), &plan.bake_id);
        let remote = FakeRemote::new(&cloud);
        let (events, kept) = Events::kept();
        let logs = folder.path().join("logs");
        let run = Run::new(&cloud, &remote, events, CancellationToken::new(), ledger, logs);
        let differs = BakeError::Verification {
            place: "i-1".into(),
            findings: "/opt/nomad/bin/nomad differs".into(),
        };
        let error = release(&plan, Err(differs), &run).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Verification);
        let warned =
            |event: &Event| matches!(event, Event::Warning { message } if message.contains("ledger"));
        assert!(kept.lock().unwrap().iter().any(warned));
    }
}
