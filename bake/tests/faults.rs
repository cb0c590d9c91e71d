//! Fault loops over a whole bake on the fakes: fail at every call, lose the reply of every call, kill at every call,
//! cancel at every call. One loop covers every way out, also of stages that are not written yet.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::large_futures, reason = "a test's future may live on its stack")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cos_bake::base::Base;
use cos_bake::bundle::{AgentBinary, AgentOrigin, Bundle};
use cos_bake::cleanup::{CleanupReport, Patience};
use cos_bake::cloud::fake::{FakeCloud, Fault};
use cos_bake::cloud::{CloudErrorKind, InstanceId, Resource};
use cos_bake::error::{BakeError, Exit};
use cos_bake::events::Events;
use cos_bake::ledger::{Begin, Ledger, Record};
use cos_bake::lock::Lock;
use cos_bake::manifest::Manifest;
use cos_bake::pipeline;
use cos_bake::plan::{self, Plan, TAG_EXPIRES_AT};
use cos_bake::recipe::Recipe;
use cos_bake::release::signature::{HASHICORP_FINGERPRINT, TrustedKeys};
use cos_bake::release::{Arch, ArchiveCache, Fetcher, Upstream};
use cos_bake::remote::fake::FakeRemote;
use cos_bake::run::Run;
use cos_bake::stages::payload::{Ingredients, ToBuild};
use cos_bake::sweep;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

mod support;

const REGION: &str = "eu-central-1";

/// Time between two polls: nothing takes time on the fakes.
const PAUSE: Duration = Duration::from_millis(1);

struct World {
    cloud: FakeCloud,
    remote: FakeRemote,
    folder: tempfile::TempDir,
    bundle: Arc<Bundle>,
    lock: Lock,
    dead_process: u32,
}

impl World {
    fn new() -> Self {
        let cloud = FakeCloud::standard();
        let remote = FakeRemote::new(&cloud)
            .prints("install", &support::installed("iptables-1.8.4"))
            .prints("seal", &support::sealed());
        let folder = tempfile::tempdir().unwrap();
        let bundle = Arc::new(support::bundle(folder.path()));
        // A process that is over: a sweep must take the bake for dead.
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        Self {
            cloud,
            remote,
            folder,
            bundle,
            lock: support::lock(),
            dead_process: ended.id(),
        }
    }

    fn ledgers(&self) -> &Path {
        self.folder.path()
    }

    async fn plan(&self) -> Plan {
        self.plan_of(&recipe("image")).await
    }

    async fn plan_of(&self, recipe: &Recipe) -> Plan {
        plan::resolve(recipe, &self.lock, REGION, Timestamp::now(), &self.cloud)
            .await
            .unwrap()
    }

    async fn bake(&self, plan: &Plan, cancel: CancellationToken) -> Result<Manifest, BakeError> {
        let ingredients = Ingredients::Built(Arc::clone(&self.bundle));
        self.bake_from(plan, &ingredients, cancel).await
    }

    async fn bake_from(
        &self,
        plan: &Plan,
        ingredients: &Ingredients,
        cancel: CancellationToken,
    ) -> Result<Manifest, BakeError> {
        let begin = Begin {
            bake_id: plan.bake_id.clone(),
            account: plan.account.clone(),
            region: REGION.into(),
            process: self.dead_process,
            process_start: 1,
            image_name: plan.name.clone(),
            started_at: Timestamp::now().to_string(),
        };
        let ledger = Ledger::begin(self.ledgers(), begin).unwrap();
        let logs = self.ledgers().join("logs");
        let run = Run::new(
            &self.cloud,
            &self.remote,
            Events::new(|_| {}),
            cancel,
            ledger,
            logs,
        )
        .with_pause(PAUSE);
        pipeline::bake(plan, ingredients, &run).await
    }

    async fn sweep(&self) -> CleanupReport {
        let remains = self.remains().await;
        self.remove(&remains).await
    }

    async fn remains(&self) -> Vec<sweep::Remains> {
        let request = sweep::Request::default();
        let now = Timestamp::now();
        sweep::find(&self.cloud, REGION, self.ledgers(), &request, now)
            .await
            .unwrap()
    }

    async fn remove(&self, remains: &[sweep::Remains]) -> CleanupReport {
        let patience = Patience {
            pause: PAUSE,
            ..Patience::default()
        };
        sweep::remove(
            &self.cloud,
            self.ledgers(),
            remains,
            patience,
            &Events::new(|_| {}),
        )
        .await
    }

    /// Nothing, or one whole published image.
    fn assert_nothing_but_a_published_image(&self, context: &str) {
        let live = self.cloud.live();
        let images = live
            .iter()
            .filter(|resource| matches!(resource, Resource::Image(_)))
            .count();
        if images == 0 {
            assert_eq!(live, [], "{context}");
            return;
        }
        assert_eq!(images, 1, "{context}: {live:?}");
        for resource in &live {
            assert!(
                matches!(resource, Resource::Image(_) | Resource::Snapshot(_)),
                "{context}: {live:?}"
            );
            let tags = self.cloud.tags(resource).unwrap();
            assert!(
                !tags.contains_key(TAG_EXPIRES_AT),
                "{context}: {resource} would be swept"
            );
        }
    }
}

fn recipe(name: &str) -> Recipe {
    Recipe {
        base: Base::Al2,
        arch: Arch::X86_64,
        name: Some(name.into()),
        tags: BTreeMap::from([("team".into(), "platform".into())]),
        instance_type: None,
        subnet: None,
        security_groups: vec![],
        profile: None,
        root_size_gib: None,
        keep_payload: false,
    }
}

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
    use cos_bake::cloud::{Cloud, SnapshotSpec, SnapshotState};
    let world = World::new();
    let other = world.plan_of(&recipe("other")).await;
    let digest = world.bundle.sha256.to_string();
    let mut tags = other.tags_for("payload");
    tags.insert(cos_bake::plan::TAG_PAYLOAD.into(), digest);
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

/// The number of the call of this operation in a bake that goes well.
async fn call_of(operation: &str) -> usize {
    let world = World::new();
    let plan = world.plan().await;
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    let calls = world.cloud.calls();
    calls
        .iter()
        .rposition(|call| call.operation == operation)
        .unwrap()
}

#[tokio::test]
async fn an_image_whose_answer_was_lost_is_found_by_its_name() {
    let create = call_of("ec2:CreateImage").await;
    let world = World::new();
    let plan = world.plan().await;
    // What the port says when its retry meets its own work.
    world
        .cloud
        .fail_at_with(create, Fault::After, CloudErrorKind::Duplicate);
    let manifest = world.bake(&plan, CancellationToken::new()).await.unwrap();
    world.assert_nothing_but_a_published_image("an image that was found");
    assert_eq!(
        world.cloud.live().last(),
        Some(&Resource::Image(manifest.image.as_str().into()))
    );
}

#[tokio::test]
async fn an_image_of_another_that_took_the_name_is_left_alone() {
    let create = call_of("ec2:CreateImage").await;
    let mut taken = FakeCloud::base_image("ami-00000000000000009", "image", "x86_64");
    taken.owner = "111122223333".into();
    let world = World::new();
    let plan = world.plan().await;
    let cloud = world.cloud.clone();
    world.cloud.on_call(move |seen| {
        if seen.index == create {
            let _ = cloud.clone().with_image(taken.clone());
        }
    });
    let error = world.bake(&plan, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Cloud);
    let others = Resource::Image("ami-00000000000000009".into());
    assert_eq!(world.cloud.live(), [others]);
}

#[tokio::test]
async fn a_name_among_the_tags_is_the_users() {
    let world = World::new();
    let mut recipe = recipe("image");
    recipe.tags.insert("Name".into(), "golden".into());
    let plan = world.plan_of(&recipe).await;
    let manifest = world.bake(&plan, CancellationToken::new()).await.unwrap();
    assert_eq!(manifest.tags["Name"], "golden");
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

#[tokio::test]
async fn plan_changes_nothing_and_refuses_what_would_fail() {
    let world = World::new();
    let plan = world.plan().await;
    assert_eq!(world.cloud.live(), []);
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    let refused = async |base, arch| {
        let recipe = Recipe {
            base,
            arch,
            subnet: Some("subnet-none".into()),
            root_size_gib: Some(1),
            ..recipe("image")
        };
        plan::resolve(&recipe, &world.lock, REGION, Timestamp::now(), &world.cloud)
            .await
            .unwrap_err()
    };
    let error = refused(Base::Al2, Arch::X86_64).await;
    assert_eq!(error.exit(), Exit::Refused);
    for part in ["`image` is taken", "subnet-none", "1 GiB is smaller"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    let error = refused(Base::Al1, Arch::Arm64).await;
    assert_eq!(error.exit(), Exit::Refused);
    assert!(error.to_string().contains("never made for arm64"), "{error}");
}

#[tokio::test]
async fn a_base_is_amazons_by_account_or_by_alias() {
    let owned = async |owner: &str, alias: Option<&str>| {
        let mut base = FakeCloud::base_image("ami-0000000000000002a", "amzn2-ami-hvm-x86_64-gp2", "x86_64");
        base.owner = owner.into();
        base.owner_alias = alias.map(str::to_owned);
        let cloud = FakeCloud::standard().with_image(base);
        plan::resolve(
            &recipe("image"),
            &support::lock(),
            REGION,
            Timestamp::now(),
            &cloud,
        )
        .await
    };
    owned("137112412989", None).await.unwrap();
    // In the partitions of China and of the government Amazon has other accounts.
    owned("141808717104", Some("amazon")).await.unwrap();
    for alias in [None, Some("aws-marketplace")] {
        let error = owned("141808717104", alias).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused, "{alias:?}");
    }
}

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
    use cos_bake::cloud::{Cloud, SnapshotSpec};
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
