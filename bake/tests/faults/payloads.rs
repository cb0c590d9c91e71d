//! Bundles and payloads: used again if they were kept, and never another bake's.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cos_bake::bundle::{AgentBinary, AgentOrigin};
use cos_bake::cloud::fake::Fault;
use cos_bake::cloud::{Cloud, Resource, SnapshotSpec, SnapshotState};
use cos_bake::error::Exit;
use cos_bake::lock::Lock;
use cos_bake::plan::{TAG_EXPIRES_AT, TAG_PAYLOAD};
use cos_bake::recipe::Recipe;
use cos_bake::release::signature::{HASHICORP_FINGERPRINT, TrustedKeys};
use cos_bake::release::{ArchiveCache, Fetcher, Upstream};
use cos_bake::stages::payload::{Ingredients, ToBuild};
use tokio_util::sync::CancellationToken;

use super::support;
use super::world::{World, recipe};

/// Numbers of the calls that started a payload snapshot.
fn uploads(world: &World) -> usize {
    let calls = world.cloud.calls();
    calls
        .iter()
        .filter(|call| call.operation == "ebs:StartSnapshot")
        .count()
}

/// A world in which an earlier bake kept its payload.
async fn with_kept_payload() -> World {
    let world = World::new();
    let first = Recipe {
        keep_payload: true,
        ..recipe("first")
    };
    let plan = world.plan_of(&first).await;
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    world
}

#[tokio::test]
async fn a_kept_payload_is_used_again() {
    let world = with_kept_payload().await;
    let with_payload = world.cloud.live().len();
    assert_eq!(with_payload, 3, "an image, its snapshot, and the payload");
    assert_eq!(world.sweep().await.released, []);
    // The image's snapshot is newer than the payload and of the same bundle: it is not taken for one.
    let plan = world.plan_of(&recipe("second")).await;
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    assert_eq!(uploads(&world), 1);
    assert_eq!(world.cloud.live().len(), with_payload + 2);
    // The builder starts with it: only the first bake made a volume of its own.
    let calls = world.cloud.calls();
    let volumes = calls.iter().filter(|call| call.operation == "ec2:CreateVolume");
    assert_eq!(volumes.count(), 1);
    let ledger = std::fs::read_to_string(world.ledgers().join(format!("{}.jsonl", plan.bake_id))).unwrap();
    assert!(ledger.contains("handed-over"), "{ledger}");
}

#[tokio::test]
async fn on_a_kept_payload_a_failure_or_a_kill_at_any_call_leaves_what_was_there() {
    let world = with_kept_payload().await;
    let plan = world.plan_of(&recipe("second")).await;
    let planned = world.cloud.call_count();
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    let all = world.cloud.call_count();
    for (call, kills, fault) in (planned..all).flat_map(|call| {
        [Fault::Before, Fault::After]
            .into_iter()
            .flat_map(move |fault| [(call, false, fault), (call, true, fault)])
    }) {
        let world = with_kept_payload().await;
        let before = world.cloud.live();
        let plan = world.plan_of(&recipe("second")).await;
        if kills {
            world.cloud.kill_at(call, fault);
        } else {
            world.cloud.fail_at(call, fault);
        }
        let bake = world.bake(&plan, CancellationToken::new());
        let outcome = world.cloud.until_killed(bake).await;
        world.cloud.heal();
        if kills {
            assert!(outcome.is_none());
            assert_eq!(world.sweep().await.leftovers, []);
        }
        let context = format!("{fault:?} call {}: {outcome:?}", world.cloud.calls()[call]);
        let live = world.cloud.live();
        assert!(before.iter().all(|resource| live.contains(resource)), "{context}");
        let more: Vec<_> = live
            .iter()
            .filter(|resource| !before.contains(resource))
            .collect();
        assert!(
            matches!(more[..], [] | [Resource::Snapshot(_), Resource::Image(_)]),
            "{context}: {more:?}"
        );
        for resource in more {
            let tags = world.cloud.tags(resource).unwrap();
            assert!(
                !tags.contains_key(TAG_EXPIRES_AT),
                "{context}: {resource} would be swept"
            );
        }
    }
}

#[tokio::test]
async fn a_payload_of_a_bake_that_runs_is_not_used() {
    let world = World::new();
    let other = world.plan_of(&recipe("other")).await;
    let digest = world.bundle.sha256.to_string();
    let mut tags = other.tags_for("payload");
    tags.insert(TAG_PAYLOAD.into(), digest);
    let spec = SnapshotSpec {
        size_gib: 1,
        description: String::new(),
        tags,
        token: "other".into(),
    };
    let running = world.cloud.start_snapshot(&spec).await.unwrap();
    world.cloud.complete_snapshot(&running, 0).await.unwrap();
    while world.cloud.snapshot(&running).await.unwrap().unwrap().state != SnapshotState::Completed {}
    let plan = world.plan().await;
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    assert_eq!(uploads(&world), 2);
    assert!(world.cloud.live().contains(&Resource::Snapshot(running)));
}

/// What a bundle is made of, from a mirror that takes requests and never answers.
fn from_a_silent_mirror(folder: &Path) -> (Ingredients, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}", silent.local_addr().unwrap());
    let parts = ToBuild {
        lock: Lock::new(support::lock().archives().iter().cloned().map(|mut archive| {
            archive.signed_by = archive.signed_by.map(|_| HASHICORP_FINGERPRINT.into());
            archive
        })),
        upstream: Upstream::mirror(&mirror).unwrap(),
        fetcher: Fetcher::new(Arc::new(|_| ())).unwrap(),
        archives: ArchiveCache::open(folder).unwrap(),
        keys: TrustedKeys::pinned().unwrap(),
        agent: AgentBinary {
            path: std::env::current_exe().unwrap(),
            origin: AgentOrigin::Argument,
        },
        bundles: folder.join("bundles"),
    };
    (Ingredients::ToBuild(Box::new(parts)), silent)
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_a_download() {
    let world = World::new();
    let plan = world.plan().await;
    let (ingredients, _silent) = from_a_silent_mirror(world.folder.path());
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        later.cancel();
    });
    let bake = world.bake_from(&plan, &ingredients, cancel);
    let outcome = tokio::time::timeout(Duration::from_secs(10), bake).await;
    let error = outcome.expect("the bake waits for the mirror").unwrap_err();
    assert_eq!(error.exit(), Exit::Interrupted);
    assert_eq!(world.cloud.live(), []);
}
