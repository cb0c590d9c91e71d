//! Sweeps: by ledger and by tag, and only of what is a bake's own.

use std::collections::BTreeMap;

use cos_bake::cloud::fake::Fault;
use cos_bake::cloud::{Cloud, Resource, SnapshotSpec};
use cos_bake::ledger::Record;
use cos_bake::plan::TAG_EXPIRES_AT;
use tokio_util::sync::CancellationToken;

use super::world::World;

#[tokio::test]
async fn a_sweep_with_other_credentials_forgets_nothing() {
    let world = World::new();
    let mut plan = world.plan().await;
    plan.account = "999999999999".into();
    world.cloud.kill_at(world.cloud.call_count() + 8, Fault::After);
    let killed = world
        .cloud
        .until_killed(world.bake(&plan, CancellationToken::new()))
        .await;
    assert!(killed.is_none());
    world.cloud.heal();
    let before = Record::read_all(world.ledgers()).unwrap();
    assert!(!before[0].live.is_empty());
    // The fake's account is another one: its resources are not this ledger's.
    world.sweep().await;
    assert_eq!(Record::read_all(world.ledgers()).unwrap(), before);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_stops_no_sweep() {
    let world = World::new();
    let plan = world.plan().await;
    world.cloud.kill_at(world.cloud.call_count() + 8, Fault::After);
    let killed = world
        .cloud
        .until_killed(world.bake(&plan, CancellationToken::new()))
        .await;
    assert!(killed.is_none());
    world.cloud.heal();
    let remains = world.remains().await;
    assert_eq!(remains.len(), 1);
    // Root writes where it may not, so the way to the ledger is barred instead.
    let ledger = world.ledgers().join(format!("{}.jsonl", plan.bake_id));
    std::fs::remove_file(&ledger).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let report = world.remove(&remains).await;
    assert_eq!(report.leftovers, []);
    world.assert_nothing_but_a_published_image("a sweep without its ledger");
}

#[tokio::test]
async fn a_sweep_leaves_look_alikes_alone() {
    let world = World::new();
    let past = "2020-01-01T00:00:00Z";
    let foreign: [&[(&str, &str)]; 5] = [
        &[("cos:bake-id", "mine"), (TAG_EXPIRES_AT, past)],
        &[("cos:bake-id", "cos-20200101000000-00ff00")],
        &[(TAG_EXPIRES_AT, past)],
        &[
            ("cos:bake-id", "cos-20200101000000-00ff00"),
            (TAG_EXPIRES_AT, "soon"),
        ],
        &[
            ("cos:bake-id", "cos-20200101000000-00FF00"),
            (TAG_EXPIRES_AT, past),
        ],
    ];
    let tags = |tags: &[(&str, &str)]| {
        tags.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    for (number, foreign) in foreign.iter().enumerate() {
        let token = format!("foreign-{number}");
        let spec = SnapshotSpec {
            size_gib: 1,
            description: String::new(),
            tags: tags(foreign),
            token,
        };
        world.cloud.start_snapshot(&spec).await.unwrap();
    }
    let before = world.cloud.live();
    let ours = tags(&[
        ("cos:bake-id", "cos-20200101000000-00ff00"),
        (TAG_EXPIRES_AT, past),
    ]);
    let spec = SnapshotSpec {
        size_gib: 1,
        description: String::new(),
        tags: ours,
        token: "ours".into(),
    };
    let ours = world.cloud.start_snapshot(&spec).await.unwrap();
    assert_eq!(world.sweep().await.released, [Resource::Snapshot(ours)]);
    assert_eq!(world.cloud.live(), before);
}
