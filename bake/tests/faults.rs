//! Fault loops over a whole bake on the fakes: fail at every call, lose the reply of every call, kill at every call,
//! cancel at every call. One loop covers every way out, also of stages that are not written yet.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::large_futures, reason = "a test's future may live on its stack")]

use cos_bake::cloud::fake::Fault;
use cos_bake::cloud::{InstanceId, Resource};
use cos_bake::error::Exit;
use cos_bake::ledger::Record;
use tokio_util::sync::CancellationToken;

mod faults {
    mod images;
    mod payloads;
    mod plans;
    mod support;
    mod sweeps;
    pub(crate) mod world;
}

use faults::world::World;

/// Number of calls of a bake that goes well, before and after the plan.
async fn calls_of_a_bake() -> (usize, usize) {
    let world = World::new();
    let plan = world.plan().await;
    let planned = world.cloud.call_count();
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    (planned, world.cloud.call_count())
}

#[tokio::test]
async fn a_bake_leaves_its_image_and_nothing_else() {
    let world = World::new();
    let plan = world.plan().await;
    let manifest = world.bake(&plan, CancellationToken::new()).await.unwrap();
    assert_eq!(manifest.name, "image");
    assert_eq!(manifest.packages, ["iptables-1.8.4"]);
    assert_eq!(manifest.tags["team"], "platform");
    world.assert_nothing_but_a_published_image("a good bake");
    let records = Record::read_all(world.ledgers()).unwrap();
    assert!(records[0].ended && records[0].live.is_empty());
    assert_eq!(records[0].kept, [Resource::Image(manifest.image.as_str().into())]);
    // The image's own sweep finds nothing, today and after the expiry.
    assert_eq!(world.sweep().await.released, []);
    world.assert_nothing_but_a_published_image("after a sweep");
}

#[tokio::test]
async fn a_failure_at_any_call_leaves_nothing() {
    let (planned, all) = calls_of_a_bake().await;
    for fault in [Fault::Before, Fault::After] {
        for call in planned..all {
            let world = World::new();
            let plan = world.plan().await;
            world.cloud.fail_at(call, fault);
            let outcome = world.bake(&plan, CancellationToken::new()).await;
            let context = format!("{fault:?} call {}: {outcome:?}", world.cloud.calls()[call]);
            if let Err(error) = &outcome {
                assert_eq!(error.exit(), Exit::Cloud, "{context}");
            }
            world.assert_nothing_but_a_published_image(&context);
        }
    }
}

#[tokio::test]
async fn after_a_kill_at_any_call_a_sweep_leaves_nothing() {
    let (planned, all) = calls_of_a_bake().await;
    for fault in [Fault::Before, Fault::After] {
        for call in planned..all {
            let world = World::new();
            let plan = world.plan().await;
            world.cloud.kill_at(call, fault);
            let outcome = world
                .cloud
                .until_killed(world.bake(&plan, CancellationToken::new()))
                .await;
            assert!(outcome.is_none(), "call {call} of {all} did not kill");
            world.cloud.heal();
            let report = world.sweep().await;
            let context = format!("killed {fault:?} call {}", world.cloud.calls()[call]);
            assert_eq!(report.leftovers, [], "{context}");
            world.assert_nothing_but_a_published_image(&context);
            let records = Record::read_all(world.ledgers()).unwrap();
            assert!(
                records.iter().all(|record| record.ended),
                "{context}: a ledger is open"
            );
        }
    }
}

#[tokio::test]
async fn a_cancel_at_any_call_leaves_nothing() {
    let (planned, all) = calls_of_a_bake().await;
    for call in planned..all {
        let world = World::new();
        let plan = world.plan().await;
        let cancel = CancellationToken::new();
        let at_call = cancel.clone();
        world.cloud.on_call(move |seen| {
            if seen.index == call {
                at_call.cancel();
            }
        });
        let outcome = world.bake(&plan, cancel).await;
        let context = format!("cancelled at call {}: {outcome:?}", world.cloud.calls()[call]);
        if let Err(error) = &outcome {
            assert_eq!(error.exit(), Exit::Interrupted, "{context}");
        }
        world.assert_nothing_but_a_published_image(&context);
    }
}

#[tokio::test]
async fn when_the_cloud_goes_dark_leftovers_are_named_and_a_later_sweep_takes_them() {
    let (planned, all) = calls_of_a_bake().await;
    for call in planned..all {
        let world = World::new();
        let plan = world.plan().await;
        let dark = world.cloud.clone();
        world.cloud.on_call(move |seen| {
            if seen.index == call {
                dark.go_dark();
            }
        });
        let outcome = world.bake(&plan, CancellationToken::new()).await;
        let context = format!("dark from call {call}: {outcome:?}");
        let ledger_knows = Record::read_all(world.ledgers())
            .unwrap()
            .iter()
            .any(|record| !record.live.is_empty());
        if ledger_knows {
            assert_eq!(outcome.unwrap_err().exit(), Exit::Leftovers, "{context}");
        }
        world.cloud.heal();
        world.sweep().await;
        world.assert_nothing_but_a_published_image(&context);
    }
}

#[tokio::test]
async fn a_step_that_fails_has_its_own_exit_code_and_leaves_nothing() {
    let output = |status: i32, words: &str| cos_bake::remote::ScriptOutput {
        status: Some(status),
        stdout: String::new(),
        stderr: words.to_owned(),
    };
    for (step, status, exit) in [
        ("install", 6, Exit::Step),
        ("install", 4, Exit::Verification),
        ("verify", 4, Exit::Verification),
        ("seal", 6, Exit::Step),
        ("boot test", 7, Exit::BootTest),
        ("boot test", 4, Exit::BootTest),
    ] {
        let mut world = World::new();
        world.remote = world
            .remote
            .clone()
            .answers(step, output(status, "/opt/nomad/bin/nomad differs"));
        let plan = world.plan().await;
        let error = world.bake(&plan, CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.exit(), exit, "{step} {status}");
        assert!(
            error.to_string().contains("/opt/nomad/bin/nomad differs"),
            "{error}"
        );
        assert_eq!(world.cloud.live(), [], "{step} {status}");
    }
}

#[tokio::test]
async fn a_report_that_is_none_fails_its_step() {
    for step in ["install", "seal"] {
        let mut world = World::new();
        world.remote = world.remote.clone().prints(step, r#"{"packages":[]}"#);
        let plan = world.plan().await;
        let error = world.bake(&plan, CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Step, "{step}");
        assert!(error.to_string().contains("missing field"), "{error}");
        assert_eq!(world.cloud.live(), [], "{step}");
    }
}

#[tokio::test]
async fn an_image_that_does_not_boot_has_failed_its_boot_test() {
    let world = World::new();
    let plan = world.plan().await;
    let cloud = world.cloud.clone();
    world.cloud.on_call(move |seen| {
        let machine = InstanceId::from(seen.subject.as_str());
        let booted = cloud.launched(&machine);
        let is_boot_test = booted.is_some_and(|spec| spec.tags["cos:purpose"] == "boot-test");
        if is_boot_test && seen.operation == "ssm:DescribeInstanceInformation" {
            cloud.shut_down_inside(&machine);
        }
    });
    let error = world.bake(&plan, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::BootTest, "{error}");
    assert_eq!(world.cloud.live(), []);
}

#[tokio::test]
async fn everything_made_carries_its_tags_from_the_start() {
    let world = World::new();
    let plan = world.plan().await;
    let seen = world.cloud.clone();
    world.cloud.on_call(move |_| {
        for resource in seen.live() {
            let tags = seen.tags(&resource).unwrap_or_default();
            assert!(tags.contains_key("cos:bake-id"), "{resource} is untagged");
        }
    });
    world.bake(&plan, CancellationToken::new()).await.unwrap();
}
