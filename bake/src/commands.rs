//! Owns what each command does: from parsed arguments to ports, one call into the library, and its output.
//! Touches everything through the modules that own it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::bundle;
use crate::cleanup::Patience;
use crate::cli::{BakeArguments, LedgerArgument, LockArguments, ReleaseArguments, SweepArguments};
use crate::cloud::aws::AwsCloud;
use crate::display;
use crate::error::BakeError;
use crate::events::{Events, Stage};
use crate::folders;
use crate::ledger::{Begin, Ledger, process_start};
use crate::lock::{self, Lock, LockRequest, Source};
use crate::pipeline;
use crate::plan::{self, Plan};
use crate::recipe::Recipe;
use crate::release::signature::TrustedKeys;
use crate::release::{Arch, ArchiveCache, FetchEvent, Fetcher, Product, ReleaseError, Upstream};
use crate::remote::ssm::SsmRemote;
use crate::run::Run;
use crate::stages::payload::{Ingredients, ToBuild};
use crate::sweep;

/// `cos-bake ami`.
pub async fn ami(arguments: BakeArguments, cancel: CancellationToken) -> Result<(), BakeError> {
    let events = display::on_standard_error();
    let json = arguments.json;
    let ledgers = ledger_folder(&arguments.ledger)?;
    let releases = Releases::open(&arguments.releases, &events)?;
    let recipe = recipe(&arguments);
    recipe.check()?;
    let (cloud, plan, lock) = interruptible(
        &cancel,
        Box::pin(planned(&arguments, &recipe, &releases, NewLock::Written, &events)),
    )
    .await?;
    for warning in &plan.warnings {
        events.warn(warning.clone());
    }
    let agent =
        bundle::agent_binary(recipe.arch, arguments.agent.as_deref()).map_err(failed("find cos-agent"))?;
    if let Some(notice) = agent.notice() {
        events.note(notice);
    }
    let ledger = Ledger::begin(&ledgers, begin(&plan))?;
    let remote = SsmRemote::new(&cloud);
    let logs = ledgers.join(format!("{}.logs", plan.bake_id));
    // A stage that fails cancels the others through a token of the bake's own.
    let run = Run::new(&cloud, &remote, events, cancel.child_token(), ledger, logs);
    let ingredients = Ingredients::ToBuild(Box::new(ToBuild {
        lock,
        upstream: releases.upstream,
        fetcher: releases.fetcher,
        archives: releases.archives,
        keys: releases.keys,
        agent,
        bundles: releases.cache.join("bundles"),
    }));
    let manifest = Box::pin(pipeline::bake(&plan, &ingredients, &run)).await?;
    if json {
        display::data(&to_json(&manifest));
    } else {
        display::data(&format!(
            "{}  {}  {}",
            manifest.image, manifest.region, manifest.name
        ));
    }
    Ok(())
}

/// `cos-bake plan`.
pub async fn plan(arguments: BakeArguments, cancel: CancellationToken) -> Result<(), BakeError> {
    let events = display::on_standard_error();
    let releases = Releases::open(&arguments.releases, &events)?;
    let recipe = recipe(&arguments);
    recipe.check()?;
    let (_, plan, _) = interruptible(
        &cancel,
        Box::pin(planned(
            &arguments,
            &recipe,
            &releases,
            NewLock::Forgotten,
            &events,
        )),
    )
    .await?;
    if arguments.json {
        display::data(&to_json(&plan));
        return Ok(());
    }
    for warning in &plan.warnings {
        events.warn(warning.clone());
    }
    display::data(&plan.table());
    Ok(())
}

/// `cos-bake lock`.
pub async fn lock(arguments: LockArguments, cancel: CancellationToken) -> Result<(), BakeError> {
    let events = display::on_standard_error();
    let releases = Releases::open(&arguments.releases, &events)?;
    let path = &arguments.releases.lock;
    let existing = Lock::read(path).map_err(failed("read the lock"))?;
    let named = [
        (Product::Nomad, &arguments.nomad),
        (Product::Consul, &arguments.consul),
        (Product::Docker, &arguments.docker),
        (Product::Cni, &arguments.cni),
    ];
    let mut versions: BTreeMap<Product, String> = named
        .into_iter()
        .filter_map(|(product, version)| Some((product, version.clone()?)))
        .collect();
    if !arguments.update {
        for archive in existing.iter().flat_map(Lock::archives) {
            versions
                .entry(archive.component)
                .or_insert_with(|| archive.version.clone());
        }
    }
    let lock = interruptible(&cancel, releases.resolve(versions, existing.as_ref())).await?;
    lock.write(path).map_err(failed("write the lock"))?;
    tell_added_keys(&lock, &events);
    if arguments.json {
        display::data(&to_json(&lock.archives()));
        return Ok(());
    }
    let mut table = String::new();
    for archive in lock.archives() {
        let trust = if archive.signed_by.is_some() {
            "signed"
        } else {
            "trusted on first use"
        };
        let _ = writeln!(
            table,
            "{:<8} {:<12} {:<7} {} {trust}",
            archive.component, archive.version, archive.arch, archive.sha256
        );
    }
    display::data(&table);
    events.note(format!("wrote {}", path.display()));
    Ok(())
}

/// `cos-bake sweep`.
pub async fn sweep(arguments: SweepArguments, cancel: CancellationToken) -> Result<(), BakeError> {
    let events = display::on_standard_error();
    let ledgers = ledger_folder(&arguments.ledger)?;
    let cloud = connect(arguments.region.as_deref()).await?;
    let request = sweep::Request {
        bake_id: arguments.bake_id.clone(),
        dry_run: arguments.dry_run,
    };
    let region = cloud.region().to_owned();
    let remains = interruptible(
        &cancel,
        sweep::find(&cloud, &region, &ledgers, &request, Timestamp::now()),
    )
    .await?;
    let mut table = String::new();
    for bake in &remains {
        let _ = writeln!(table, "{}: {}", bake.bake_id, bake.reason);
        for resource in &bake.resources {
            let _ = writeln!(table, "  {resource}");
        }
    }
    if arguments.json {
        display::data(&to_json(&remains));
    } else if remains.is_empty() {
        display::data(&format!("nothing to sweep in {region}"));
    } else {
        display::data(&table);
    }
    if arguments.dry_run {
        return Ok(());
    }
    // From here on nothing is interrupted: a sweep that stops half-way has still done good, but says less.
    let report = sweep::remove(&cloud, &ledgers, &remains, Patience::default(), &events).await;
    let count = report.leftovers.len();
    if count > 0 {
        let hint = "run `cos-bake sweep` again in a few minutes".to_owned();
        return Err(BakeError::Leftovers {
            count,
            hint,
            cause: None,
        });
    }
    Ok(())
}

/// What becomes of a lock that did not exist before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewLock {
    /// It is written, for the next bake.
    Written,
    /// It is not: `plan` changes nothing.
    Forgotten,
}

/// Where releases come from, opened.
struct Releases {
    upstream: Upstream,
    fetcher: Fetcher,
    archives: ArchiveCache,
    keys: TrustedKeys,
    cache: PathBuf,
}

impl Releases {
    fn open(arguments: &ReleaseArguments, events: &Events) -> Result<Self, BakeError> {
        let settings = failed("read the settings of releases");
        let open = || {
            let cache = match &arguments.cache {
                Some(cache) => cache.clone(),
                None => ArchiveCache::default_root()?,
            };
            Ok(Self {
                upstream: Upstream::from_option(arguments.mirror.as_deref())?,
                fetcher: Fetcher::new(observer(events))?,
                archives: ArchiveCache::open(&cache)?,
                keys: TrustedKeys::with_file(arguments.trust_key.as_deref())?,
                cache,
            })
        };
        open().map_err(settings)
    }

    async fn resolve(
        &self,
        versions: BTreeMap<Product, String>,
        existing: Option<&Lock>,
    ) -> Result<Lock, BakeError> {
        let request = LockRequest {
            versions,
            arches: BTreeSet::from(Arch::ALL),
        };
        let source = Source {
            upstream: &self.upstream,
            fetcher: &self.fetcher,
            cache: &self.archives,
            keys: &self.keys,
        };
        lock::resolve(&request, &source, existing)
            .await
            .map_err(failed("lock the versions"))
    }

    /// The lock on disk; where there is none, one of the newest versions, written for the next time.
    async fn locked(&self, path: &Path, new: NewLock, events: &Events) -> Result<Lock, BakeError> {
        if let Some(lock) = Lock::read(path).map_err(failed("read the lock"))? {
            return Ok(lock);
        }
        events.note(format!(
            "{} does not exist: locking the newest versions",
            path.display()
        ));
        let lock = self.resolve(BTreeMap::new(), None).await?;
        if new == NewLock::Written {
            lock.write(path).map_err(failed("write the lock"))?;
            events.note(format!("wrote {}; keep it in version control", path.display()));
        }
        Ok(lock)
    }
}

/// Connects, locks and plans: all that comes before anything is launched.
async fn planned(
    arguments: &BakeArguments,
    recipe: &Recipe,
    releases: &Releases,
    new_lock: NewLock,
    events: &Events,
) -> Result<(AwsCloud, Plan, Lock), BakeError> {
    events.emit(crate::events::Event::StageStarted { stage: Stage::Plan });
    let start = std::time::Instant::now();
    let cloud = connect(arguments.region.as_deref()).await?;
    let lock = releases
        .locked(&arguments.releases.lock, new_lock, events)
        .await?;
    lock.check_signers(&releases.keys)
        .map_err(failed("believe the lock"))?;
    tell_added_keys(&lock, events);
    let region = cloud.region().to_owned();
    let plan = Box::pin(plan::resolve(recipe, &lock, &region, Timestamp::now(), &cloud)).await?;
    let seconds = start.elapsed().as_secs_f64();
    let outcome = format!("{} on {} in {region}", plan.name, plan.base_image.id);
    events.emit(crate::events::Event::StageFinished {
        stage: Stage::Plan,
        seconds,
        outcome,
    });
    Ok((cloud, plan, lock))
}

async fn connect(region: Option<&str>) -> Result<AwsCloud, BakeError> {
    AwsCloud::connect(region)
        .await
        .map_err(BakeError::cloud("connect to AWS"))
}

/// Reads and downloads may be dropped half-way; nothing was made yet.
async fn interruptible<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, BakeError>>,
) -> Result<T, BakeError> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(BakeError::Interrupted),
    }
}

fn recipe(arguments: &BakeArguments) -> Recipe {
    Recipe {
        base: arguments.base,
        arch: arguments.arch,
        name: arguments.name.clone(),
        tags: arguments.tags.iter().cloned().collect(),
        instance_type: arguments.instance_type.clone(),
        subnet: arguments.subnet.clone(),
        security_groups: arguments.security_groups.clone(),
        profile: arguments.instance_profile.clone(),
        root_size_gib: arguments.root_size,
        keep_payload: arguments.keep_payload,
    }
}

fn begin(plan: &Plan) -> Begin {
    let process = std::process::id();
    Begin {
        bake_id: plan.bake_id.clone(),
        account: plan.account.clone(),
        region: plan.region.clone(),
        process,
        process_start: process_start(process).unwrap_or_default(),
        image_name: plan.name.clone(),
        started_at: Timestamp::now().to_string(),
    }
}

/// Folder of ledgers: named, else in the user's state folder.
fn ledger_folder(argument: &LedgerArgument) -> Result<PathBuf, BakeError> {
    argument.ledger.clone().or_else(folders::state).ok_or_else(|| {
        BakeError::usage(
            "there is no folder for the ledger: HOME is not set",
            "name one with --ledger or COS_LEDGER",
        )
    })
}

fn observer(events: &Events) -> crate::release::Observer {
    let events = events.clone();
    std::sync::Arc::new(move |event: FetchEvent| match event {
        FetchEvent::Finished { url, bytes } => {
            events.note(format!("downloaded {url} ({} KiB)", bytes.div_ceil(1024)));
        }
        FetchEvent::Started { .. } | FetchEvent::Progress { .. } => {}
        other => events.note(other.to_string()),
    })
}

fn tell_added_keys(lock: &Lock, events: &Events) {
    for archive in lock
        .archives()
        .iter()
        .filter(|archive| archive.is_signed_by_added_key())
    {
        let signer = archive.signed_by.as_deref().unwrap_or_default();
        events.warn(format!(
            "{} {} is signed by {signer}, which only --trust-key admits, not by HashiCorp",
            archive.component, archive.version
        ));
    }
}

fn failed(action: &'static str) -> impl FnOnce(ReleaseError) -> BakeError {
    move |source| BakeError::Release { action, source }
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Only maps with keys that are no strings cannot be written, and these types have none.
    serde_json::to_string_pretty(value).unwrap_or_default()
}
