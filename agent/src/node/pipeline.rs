//! Owns one pass over a node: sources, configuration, rendering, comparison, judgement, changes.
//! Touches only what the rooms it calls touch.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::accounts::Accounts;
use super::apply::{
    self, Change, ChangeSet, Conditions, ExecuteError, Executor, JudgeError, Judgement, Listeners, Observed,
    Ports, Verdicts, diff, judge, observe_after,
};
use super::bootstrap::{self, Discovery, Neighbours};
use super::cloud::{ParameterStore, group_size};
use super::config::{self, NodeConfig, NodeSpec, Roles};
use super::disks;
use super::error::NodeError;
use super::health::ConsulApi;
use super::notes::notes;
use super::render::{self, DesiredState, Init, Installed, Known, Recognised, Unit, Versions, dns};
use super::report::Timeline;
use super::secrets::{Fetched, Secrets};
use super::services::ServiceManager;
use super::sources::resolver::{self, ResolverFacts};
use super::sources::{Gathered, Imds, InstanceFacts, Sources, gather};
use crate::aws::{self, Client};
use crate::host::{FileError, Files, ProgramError, Programs};

/// What can be learnt of a machine while the metadata service has yet to answer.
#[derive(Debug)]
pub struct Outlook {
    /// What it has to resolve names with.
    pub resolver: ResolverFacts,
    conditions: Option<Conditions>,
    versions: Known,
}

/// Looks at the machine.
pub fn look_ahead(
    files: &Files,
    manager: Option<&dyn ServiceManager>,
    programs: &dyn Programs,
    timeline: &Timeline,
) -> Result<Outlook, FileError> {
    timeline.measure("look at the machine", || {
        // A manager that does not answer is told of where its answer is needed.
        let conditions = manager.and_then(|manager| apply::conditions(manager).ok());
        let of = |unit| conditions.as_ref().and_then(|conditions| conditions.get(&unit));
        let local = [of(Unit::Resolved), of(Unit::Dnsmasq)];
        let versions = render::known(files, programs);
        let systemd = match versions.init {
            Some(Init::Systemd(version)) => Some(version.major()),
            _ => None,
        };
        Ok(Outlook {
            resolver: resolver::observe(files, local, systemd, &dns::FILES)?,
            versions,
            conditions,
        })
    })
}

/// Reads the node's configuration from its sources, and what the instance is. `adapt` may lay something over what the
/// sources say.
pub fn configure(
    sources: &Sources,
    timeline: &Timeline,
    adapt: &mut dyn FnMut(&mut Gathered) -> Result<(), NodeError>,
) -> Result<(NodeConfig, Gathered), NodeError> {
    let mut running = timeline.begin("documents");
    let gathered = gather(sources);
    running.retried(sources.imds.map_or(0, Imds::retries));
    if gathered.is_err() {
        running.fail();
    }
    drop(running);
    let mut gathered = gathered?;
    adapt(&mut gathered)?;
    if gathered.documents.is_empty() {
        return Err(NodeError::NoConfiguration {
            others: gathered.others,
        });
    }
    Ok((config::read(&gathered.documents)?, gathered))
}

/// What `apply` needs of the machine.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Files.
    pub files: &'a Files,
    /// Programs: the products' binaries.
    pub programs: &'a (dyn Programs + Sync),
    /// Service manager; none only where nothing is to be changed.
    pub manager: Option<&'a dyn ServiceManager>,
    /// Consul's API on this machine.
    pub consul: &'a dyn ConsulApi,
    /// Other servers, for one that would elect itself; without them it is not looked for any.
    pub neighbours: Option<&'a dyn Neighbours>,
    /// Where the node's secrets are kept.
    pub secrets: &'a dyn Secrets,
    /// How long all waits together may take.
    pub deadline: Duration,
    /// Records what takes how long.
    pub timeline: &'a Timeline,
    /// What was seen of the machine before, if anything was.
    pub outlook: Option<&'a Outlook>,
}

/// Whether changes are carried out or only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carry them out.
    Execute,
    /// Tell them.
    DryRun,
}

/// What `apply` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// What the node is for.
    pub roles: Roles,
    /// Name in Consul and Nomad.
    pub name: String,
    /// COS's datacenter.
    pub datacenter: String,
    /// Whether the changes were carried out.
    pub executed: bool,
    /// The changes, in order; none if the node was as it should be.
    pub changes: ChangeSet,
    /// What the reader should know though it is no fault.
    pub notes: Vec<String>,
    /// Milliseconds for all of it.
    pub milliseconds: u128,
}

/// What a node should be, what it is, and what must be done.
#[derive(Debug)]
pub struct Planned {
    /// What it should be.
    pub desired: DesiredState,
    /// What it is.
    pub observed: Observed,
    /// What must be done, in order.
    pub changes: ChangeSet,
    /// What happens to disks before all of that; none where the configuration names no disk.
    pub disks: Option<disks::Plan>,
    /// What the reader should know though it is no fault.
    pub notes: Vec<String>,
    versions: Versions,
    secrets: Fetched,
    verdicts: Verdicts,
    recognised: Recognised,
}

/// Finds out what must be done to make the node what `spec` says, and has judged what must be judged before. A dry run
/// has everything judged.
pub fn plan_spec(spec: &NodeSpec, environment: &Environment, mode: Mode) -> Result<Planned, NodeError> {
    let Environment {
        files,
        programs,
        manager,
        secrets,
        timeline,
        outlook,
        ..
    } = *environment;
    if let Some(plan) = &spec.dns.plan {
        timeline.decide("names below .consul", plan.resolver, &plan.reason);
    }
    let known = outlook.map_or_else(|| render::known(files, programs), |outlook| outlook.versions);
    let recognised = render::recognise(known, files, programs, timeline)?;
    let versions = recognised.versions;
    let accounts = Accounts::read(files)?;
    let installed = Installed { versions, accounts };
    // A dry run needs them too: only with them can it tell what would change, and have it judged.
    let secrets = timeline.measure("secrets", || Fetched::fetch(spec, secrets, files))?;
    let desired = timeline.measure("render", || render::render(spec, &installed, &secrets))?;
    let observed = timeline.measure("observe", || {
        let before = outlook.and_then(|outlook| outlook.conditions.as_ref());
        observe_after(before, &desired, files, manager)
    })?;
    let changes = diff(&desired, &observed);
    let disks = plan_disks(spec, environment, mode)?;
    let verdicts = Verdicts::find(&desired, &observed, files, mode == Mode::DryRun)?;
    let mut notes = notes(spec, &desired, &observed, &changes, files)?;
    if !changes.0.is_empty() {
        for (product, judgement) in verdicts.judgements() {
            timeline.decide(
                format!("{product} judges its configuration"),
                judgement.word(),
                judgement.reason(),
            );
        }
        let before = verdicts.products(Judgement::Before);
        if !before.is_empty() {
            let judged = timeline.measure("judge", || {
                judge(&desired, &versions, &secrets, files, programs, &before)
            });
            notes.extend(judged?);
        }
    }
    Ok(Planned {
        desired,
        observed,
        changes,
        disks,
        notes,
        versions,
        secrets,
        verdicts,
        recognised,
    })
}

/// Looks at the disks and decides. Only a dry run tells it beforehand: what waits for a disk to come waits once.
fn plan_disks(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
) -> Result<Option<disks::Plan>, NodeError> {
    if mode == Mode::Execute || spec.disks.is_empty() {
        return Ok(None);
    }
    let environment = of_disks(environment);
    let (_, plan) = disks::dry_run(&spec.disks, &environment)?;
    Ok(Some(plan))
}

fn of_disks<'a>(environment: &Environment<'a>) -> disks::Environment<'a> {
    disks::Environment {
        files: environment.files,
        programs: environment.programs,
        deadline: environment.deadline,
    }
}

/// Mounts the node's disks, before anything is started that could write into the folders below.
fn bring_up_disks(
    spec: &NodeSpec,
    environment: &Environment,
    tell: &mut dyn FnMut(Effect),
) -> Result<(), NodeError> {
    // A node without disks may have had some: those mounts go with the next boot.
    if spec.disks.is_empty() && environment.files.mode(disks::REPORT)?.is_none() {
        return Ok(());
    }
    let brought_up = environment.timeline.measure("disks", || {
        disks::bring_up(&spec.disks, &of_disks(environment), |step| {
            tell(Effect::Disk(step));
        })
        .and_then(disks::Report::verdict)
    });
    Ok(brought_up.map(drop)?)
}

/// Something that is about to be done.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'a> {
    /// With a disk.
    Disk(&'a disks::Planned),
    /// With a file or a unit.
    Change(&'a Change),
}

impl fmt::Display for Effect<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(planned) => planned.step.fmt(formatter),
            Self::Change(change) => change.fmt(formatter),
        }
    }
}

/// Makes the node what `spec` says. `tell` hears of each effect before it happens.
pub fn apply_spec(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
    tell: impl FnMut(Effect),
) -> Result<Applied, NodeError> {
    apply_spec_with_last_words(spec, environment, mode, tell).0
}

/// As [`apply_spec`], with the last that a unit said if it does not do its work: lines for people, without any of the
/// node's secrets.
pub fn apply_spec_with_last_words(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
    mut tell: impl FnMut(Effect),
) -> (Result<Applied, NodeError>, Vec<String>) {
    let start = Instant::now();
    let planned = match plan_spec(spec, environment, mode) {
        Ok(planned) => planned,
        Err(error) => return (Err(error), Vec::new()),
    };
    let done = match mode {
        Mode::Execute => bring_up_disks(spec, environment, &mut tell)
            .and_then(|()| carry_out(spec, &planned, environment, &mut tell)),
        Mode::DryRun => Ok(()),
    };
    let Err(error) = done else {
        return (Ok(Applied::new(spec, planned, mode, start)), Vec::new());
    };
    let last_words = last_words(&error, &planned, environment);
    (Err(error), last_words)
}

/// The last that a unit said if it does not do its work, without any of the node's secrets.
fn last_words(error: &NodeError, planned: &Planned, environment: &Environment) -> Vec<String> {
    let NodeError::Execute(ExecuteError::Unit { unit, .. }) = error else {
        return Vec::new();
    };
    let said = environment.manager.map(|manager| manager.last_words(unit.name()));
    let told = |line: &String| format!("{}: {}", unit.name(), planned.secrets.redact(line));
    said.unwrap_or_default().iter().map(told).collect()
}

/// Carries out what was planned.
fn carry_out(
    spec: &NodeSpec,
    planned: &Planned,
    environment: &Environment,
    tell: &mut dyn FnMut(Effect),
) -> Result<(), NodeError> {
    let Environment {
        files,
        manager,
        consul,
        deadline,
        timeline,
        ..
    } = *environment;
    if planned.changes.0.is_empty() {
        return Ok(());
    }
    let ports = Ports {
        files,
        manager: manager.ok_or(NodeError::NoServiceManager)?,
        consul,
    };
    let refusal = |unit| refusal(unit, planned, environment);
    let guard = |unit| guard(unit, spec, environment);
    let mut listeners = Listeners {
        tell: &mut |change| tell(Effect::Change(change)),
        refusal: &refusal,
        guard: &guard,
        timeline,
    };
    Executor::new(ports, deadline).carry_out(&planned.changes, &mut listeners)?;
    // Only notes: without them the next run asks and has judged once more.
    for kept in [planned.verdicts.keep(files), planned.recognised.keep(files)] {
        if let Err(error) = kept {
            timeline.decide("note for the next run", "not kept", error);
        }
    }
    Ok(())
}

/// The node that a configuration makes of this instance.
pub(super) fn spec_of(
    config: &NodeConfig,
    facts: &InstanceFacts,
    aws: &Client,
    outlook: &Outlook,
) -> Result<NodeSpec, NodeError> {
    let mut spec = config::resolve(config, facts, group_size(config, facts, aws)?)?;
    spec.settle_dns(&outlook.resolver)?;
    Ok(spec)
}

/// What a node should be and what it is, without anybody having judged it.
pub(super) struct Compared {
    /// What it should be.
    pub(super) desired: DesiredState,
    /// What it is.
    pub(super) observed: Observed,
    /// What is installed.
    pub(super) versions: Versions,
    /// What must not be told.
    pub(super) secrets: Fetched,
}

/// Compares a node that was configured before with its configuration.
pub(super) fn compare(
    files: &Files,
    manager: Option<&dyn ServiceManager>,
    programs: &(dyn Programs + Sync),
    imds: &Imds,
) -> Result<Compared, NodeError> {
    let timeline = Timeline::new();
    let parameters = ParameterStore::new(imds.base(), aws::DEADLINE);
    let sources = Sources {
        files,
        named: &[],
        imds: Some(imds),
        parameters: Some(&parameters),
    };
    let (config, gathered) = configure(&sources, &timeline, &mut |_| Ok(()))?;
    // Without a metadata service there was an error above.
    let facts = gathered.facts.unwrap_or_else(InstanceFacts::sample);
    let aws = parameters.client(&facts);
    let outlook = look_ahead(files, manager, programs, &timeline)?;
    let spec = spec_of(&config, &facts, aws, &outlook)?;
    let installed = Installed {
        versions: render::recognise(outlook.versions, files, programs, &timeline)?.versions,
        accounts: Accounts::read(files)?,
    };
    let secrets = Fetched::fetch(&spec, aws, files)?;
    let desired = render::render(&spec, &installed, &secrets)?;
    let observed = observe_after(outlook.conditions.as_ref(), &desired, files, manager)?;
    Ok(Compared {
        desired,
        observed,
        versions: installed.versions,
        secrets,
    })
}

impl Planned {
    /// Strikes the node's secrets out of a text.
    pub(super) fn redact(&self, text: &str) -> String {
        self.secrets.redact(text)
    }
}

impl Applied {
    /// What came of a plan.
    pub(super) fn new(spec: &NodeSpec, planned: Planned, mode: Mode, start: Instant) -> Self {
        Self {
            roles: spec.roles.clone(),
            name: spec.name.clone(),
            datacenter: spec.datacenter.clone(),
            executed: mode == Mode::Execute,
            changes: planned.changes,
            notes: planned.notes,
            milliseconds: start.elapsed().as_millis(),
        }
    }
}

/// Refuses to start a server that would begin a second cluster.
fn guard(unit: Unit, spec: &NodeSpec, environment: &Environment) -> Result<(), ExecuteError> {
    let Some(neighbours) = environment.neighbours else {
        return Ok(());
    };
    match bootstrap::look(unit, spec, environment.files, neighbours)? {
        Discovery::Free => Ok(()),
        Discovery::Taken(address) => Err(ExecuteError::SecondCluster { unit, address }),
        Discovery::Unknown(reason) => {
            let what = format!("other servers of {}", unit.name());
            environment.timeline.decide(what, "not known", reason);
            Ok(())
        }
    }
}

/// Why a product that judges by its start did not come up, if the reason is its configuration: its validator says it in
/// words. What its validator takes, and a validator that does not answer, is no refusal.
fn refusal(unit: Unit, planned: &Planned, environment: &Environment) -> Option<JudgeError> {
    let product = planned.verdicts.judged_by_start(unit)?;
    let Environment { files, programs, .. } = *environment;
    let Planned {
        desired,
        versions,
        secrets,
        ..
    } = planned;
    match judge(desired, versions, secrets, files, programs, &[product]) {
        Err(JudgeError::Refused {
            product,
            source: source @ ProgramError::Failed { .. },
        }) => Some(JudgeError::RefusedAtStart { product, source }),
        _ => None,
    }
}
