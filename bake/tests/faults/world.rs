//! Owns the world of these tests: both fakes, a folder for ledgers, and a bundle that is made already.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cos_bake::base::Base;
use cos_bake::bundle::Bundle;
use cos_bake::cleanup::{CleanupReport, Patience};
use cos_bake::cloud::Resource;
use cos_bake::cloud::fake::FakeCloud;
use cos_bake::error::BakeError;
use cos_bake::events::Events;
use cos_bake::ledger::{Begin, Ledger};
use cos_bake::lock::Lock;
use cos_bake::manifest::Manifest;
use cos_bake::pipeline;
use cos_bake::plan::{self, Plan, TAG_EXPIRES_AT};
use cos_bake::recipe::Recipe;
use cos_bake::release::Arch;
use cos_bake::remote::fake::FakeRemote;
use cos_bake::run::Run;
use cos_bake::stages::payload::Ingredients;
use cos_bake::sweep;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::support;

pub(crate) const REGION: &str = "eu-central-1";

/// Time between two polls: nothing takes time on the fakes.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct World {
    pub(crate) cloud: FakeCloud,
    pub(crate) remote: FakeRemote,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) lock: Lock,
    pub(crate) dead_process: u32,
}

impl World {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn ledgers(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn plan(&self) -> Plan {
        self.plan_of(&recipe("image")).await
    }

    pub(crate) async fn plan_of(&self, recipe: &Recipe) -> Plan {
        plan::resolve(recipe, &self.lock, REGION, Timestamp::now(), &self.cloud)
            .await
            .unwrap()
    }

    pub(crate) async fn bake(&self, plan: &Plan, cancel: CancellationToken) -> Result<Manifest, BakeError> {
        let ingredients = Ingredients::Built(Arc::clone(&self.bundle));
        self.bake_from(plan, &ingredients, cancel).await
    }

    pub(crate) async fn bake_from(
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

    pub(crate) async fn sweep(&self) -> CleanupReport {
        let remains = self.remains().await;
        self.remove(&remains).await
    }

    pub(crate) async fn remains(&self) -> Vec<sweep::Remains> {
        let request = sweep::Request::default();
        let now = Timestamp::now();
        sweep::find(&self.cloud, REGION, self.ledgers(), &request, now)
            .await
            .unwrap()
    }

    pub(crate) async fn remove(&self, remains: &[sweep::Remains]) -> CleanupReport {
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
    pub(crate) fn assert_nothing_but_a_published_image(&self, context: &str) {
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

pub(crate) fn recipe(name: &str) -> Recipe {
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

/// The number of the call of this operation in a bake that goes well.
pub(crate) async fn call_of(operation: &str) -> usize {
    let world = World::new();
    let plan = world.plan().await;
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    let calls = world.cloud.calls();
    calls
        .iter()
        .rposition(|call| call.operation == operation)
        .unwrap()
}
