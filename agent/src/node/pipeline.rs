//! Owns one pass over a node: sources, configuration, rendering, comparison, judgement, changes.
//! Touches only what the rooms it calls touch.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use super::apply::{
    self, Change, ChangeSet, Conditions, ExecuteError, Executor, JudgeError, Judgement, Listeners,
    ObserveError, Ports, Verdicts, diff, judge, observe_after,
};
use super::config::{self, DnsMode, Faults, NodeSpec, ResolveError, Roles};
use super::health::ConsulApi;
use super::render::dns::{self, DnsRefusal, Resolver};
use super::render::{self, DesiredState, RenderError, Unit, Version, VersionError};
use super::report::Timeline;
use super::services::ServiceManager;
use super::sources::resolver::{self, ResolverFacts};
use super::sources::{CONFIGURATION, Document, Imds, ImdsError};
use super::warm;
use crate::host::{FileError, Files, ProgramError, Programs};

/// `apply`, `check` or `health` came to a bad end.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The document has faults; each was told before.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// Nobody said what this node is for.
    #[error("this node has no configuration: neither {} nor the instance's user-data holds one", path.display())]
    NoConfiguration {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file that was named does not exist.
    #[error("there is no file {}", .0.display())]
    NoFile(PathBuf),
    /// Some of the documents given to `check` have faults; each was told before.
    #[error("{faulty} of {all} documents have faults")]
    Check {
        /// How many have faults.
        faulty: usize,
        /// How many were given.
        all: usize,
    },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The configuration leaves to AWS what AWS does not tell.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The configuration asks for what the installed version cannot do.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The configuration asks for a resolver that the machine does not have.
    #[error(transparent)]
    Dns(#[from] DnsRefusal),
    /// The metadata service could not be asked.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// What is installed cannot be told.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The node could not be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The products refuse the configuration.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A change failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing starts services here.
    #[error("this machine runs neither systemd nor System V scripts")]
    NoServiceManager,
    /// The record of the last `apply` is not readable.
    #[error("{} is not readable", render::RECORD)]
    Record(#[source] serde_json::Error),
    /// The report of the last `apply` is not readable.
    #[error("{} is not readable", path.display())]
    Report {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// `apply` never came to its end here.
    #[error("this node was never configured: there is no {}", render::RECORD)]
    NeverApplied,
    /// Checks of the node failed; each was told before.
    #[error("{failed} of {all} checks failed within {:.0} s", deadline.as_secs_f64())]
    Unhealthy {
        /// How many failed.
        failed: usize,
        /// How many there are for this role.
        all: usize,
        /// The deadline.
        deadline: Duration,
    },
    /// Something is wrong with the node; each finding was told before.
    #[error("{wrong} {} wrong with this node", if *wrong == 1 { "thing is" } else { "things are" })]
    Unwell {
        /// Findings that are no notes.
        wrong: usize,
    },
    /// The result could not be written.
    #[error("could not write the output")]
    Output(#[from] std::io::Error),
}

impl NodeError {
    /// Exit code: 2 where the user's words or arguments are at fault, 6 where a step on the node failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_)
            | Self::NoConfiguration { .. }
            | Self::NoFile(_)
            | Self::Check { .. }
            | Self::Usage(_)
            | Self::Render(_)
            | Self::Dns(_)
            | Self::Judge(JudgeError::Refused {
                source: ProgramError::Failed { .. },
                ..
            })
            | Self::Execute(ExecuteError::Refused(_)) => 2,
            _ => 6,
        }
    }

    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Configuration(_) | Self::Check { .. } => {
                Some("templates/user-data/ of COS has a complete document for each role".to_owned())
            }
            Self::NoConfiguration { path } => Some(format!(
                "let user-data write {} (templates/user-data/ of COS), or name a file by --config",
                path.display()
            )),
            Self::Imds(error) => error.hint(),
            Self::Version(_)
            | Self::Observe(
                ObserveError::NoService { .. } | ObserveError::NoGroup { .. } | ObserveError::NoUser { .. },
            ) => Some("cos-agent configures instances of images that cos-bake made".to_owned()),
            Self::Execute(ExecuteError::Unit { unit, .. }) => {
                Some(format!("journalctl --unit {} --lines 50", unit.name()))
            }
            Self::Dns(_) => Some("dns.consul: automatic takes what the machine has".to_owned()),
            Self::NeverApplied => Some("run cos-agent apply first".to_owned()),
            Self::Report { .. } => Some("the next cos-agent apply writes it anew".to_owned()),
            Self::Unhealthy { .. } => {
                Some("journalctl --unit consul --unit nomad --unit docker --lines 50".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads the node's configuration and the facts of the instance, and settles what is left open.
///
/// Without `named`, the file that cloud-init writes comes first, then user-data that is a bare document.
pub fn configure(
    files: &Files,
    named: Option<&Path>,
    imds: &mut Imds,
    timeline: &Timeline,
) -> Result<NodeSpec, NodeError> {
    let config = timeline.measure("documents", || {
        // A file is at hand and may be wrong; the metadata service may be slow.
        let document = match named {
            Some(path) => {
                let absent = || NodeError::NoFile(path.to_owned());
                // A name on the command line is the caller's, not below the root.
                Some(Document::from_file(&Files::new("/"), &absolute(path)?)?.ok_or_else(absent)?)
            }
            None => Document::from_file(files, Path::new(CONFIGURATION))?,
        };
        let document = match document {
            Some(document) => document,
            None => asked(imds, timeline, "imds user-data", Imds::user_data)?
                .and_then(Document::from_user_data)
                .ok_or_else(|| NodeError::NoConfiguration {
                    path: PathBuf::from(CONFIGURATION),
                })?,
        };
        Ok::<_, NodeError>(config::read(&[document])?)
    })?;
    warm::others(files, &config.role);
    let facts = asked(imds, timeline, "imds facts", Imds::facts)?;
    Ok(config::resolve(&config, &facts, None)?)
}

/// What can be learnt of a machine while the metadata service has yet to answer.
#[derive(Debug)]
pub struct Outlook {
    /// What it has to resolve names with.
    pub resolver: ResolverFacts,
    conditions: Option<Conditions>,
    versions: Option<[(Version, &'static str); 2]>,
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
        Ok(Outlook {
            resolver: resolver::observe(files, local, programs, &dns::FILES)?,
            versions: render::known(files),
            conditions,
        })
    })
}

/// Asks the metadata service, and records how often it had to be asked again.
fn asked<T>(
    imds: &mut Imds,
    timeline: &Timeline,
    name: &str,
    ask: impl FnOnce(&mut Imds) -> Result<T, ImdsError>,
) -> Result<T, ImdsError> {
    let mut running = timeline.begin(name);
    let before = imds.retries();
    let answer = ask(imds);
    running.retried(imds.retries() - before);
    if answer.is_err() {
        running.fail();
    }
    answer
}

fn absolute(path: &Path) -> Result<PathBuf, NodeError> {
    Ok(std::path::absolute(path)?)
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

/// Makes the node what `spec` says. `tell` hears of each change before it is carried out.
pub fn apply_spec(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
    mut tell: impl FnMut(&Change),
) -> Result<Applied, NodeError> {
    let start = Instant::now();
    let Environment {
        files,
        programs,
        manager,
        consul,
        deadline,
        timeline,
        outlook,
    } = *environment;
    if let Some(plan) = &spec.dns.plan {
        timeline.decide("names below .consul", plan.resolver, &plan.reason);
    }
    let known = outlook.map_or_else(|| render::known(files), |outlook| outlook.versions);
    let installed = render::recognise(known, files, programs, timeline)?;
    let desired = timeline.measure("render", || render::render(spec, &installed.versions))?;
    let observed = timeline.measure("observe", || {
        let before = outlook.and_then(|outlook| outlook.conditions.as_ref());
        observe_after(before, &desired, files, manager)
    })?;
    let changes = diff(&desired, &observed);
    let verdicts = Verdicts::find(&desired, &observed, files, mode == Mode::DryRun)?;
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
            timeline.measure("judge", || judge(&desired, files, programs, &before))?;
        }
    }
    if mode == Mode::Execute && !changes.0.is_empty() {
        let ports = Ports {
            files,
            manager: manager.ok_or(NodeError::NoServiceManager)?,
            consul,
        };
        let refusal = |unit| refusal(unit, &verdicts, &desired, files, programs);
        let mut listeners = Listeners {
            tell: &mut tell,
            refusal: &refusal,
            timeline,
        };
        Executor::new(ports, deadline).carry_out(&changes, &mut listeners)?;
        // Only notes: without them the next run asks and has judged once more.
        for kept in [verdicts.keep(files), installed.keep(files)] {
            if let Err(error) = kept {
                timeline.decide("note for the next run", "not kept", error);
            }
        }
    }
    Ok(Applied {
        roles: spec.roles.clone(),
        name: spec.name.clone(),
        datacenter: spec.datacenter.clone(),
        executed: mode == Mode::Execute,
        changes,
        notes: notes(spec, &desired, files)?,
        milliseconds: start.elapsed().as_millis(),
    })
}

/// What `apply` would change, without anybody judging it.
pub(super) fn drift(
    files: &Files,
    manager: Option<&dyn ServiceManager>,
    programs: &(dyn Programs + Sync),
    imds: &mut Imds,
) -> Result<ChangeSet, NodeError> {
    let timeline = Timeline::new();
    let outlook = look_ahead(files, manager, programs, &timeline)?;
    let mut spec = configure(files, None, imds, &timeline)?;
    spec.settle_dns(&outlook.resolver)?;
    let installed = render::recognise(outlook.versions, files, programs, &timeline)?;
    let desired = render::render(&spec, &installed.versions)?;
    let observed = observe_after(outlook.conditions.as_ref(), &desired, files, manager)?;
    Ok(diff(&desired, &observed))
}

/// Why a product that judges by its start did not come up, if the reason is its configuration: its validator says it in
/// words. What its validator takes, and a validator that does not answer, is no refusal.
fn refusal(
    unit: Unit,
    verdicts: &Verdicts,
    desired: &DesiredState,
    files: &Files,
    programs: &(dyn Programs + Sync),
) -> Option<JudgeError> {
    let product = verdicts.judged_by_start(unit)?;
    match judge(desired, files, programs, &[product]) {
        Err(JudgeError::Refused {
            product,
            source: source @ ProgramError::Failed { .. },
        }) => Some(JudgeError::RefusedAtStart { product, source }),
        _ => None,
    }
}

/// What works less well than it could, and is no fault.
fn notes(spec: &NodeSpec, desired: &DesiredState, files: &Files) -> Result<Vec<String>, FileError> {
    const HELPER: &str = "docker-credential-ecr-login";
    let mut notes = Vec::new();
    // The image may be without the helper that the Docker configuration names; every other registry works then.
    let wanted = desired
        .files
        .get(render::DOCKER_CLIENT_CONFIGURATION)
        .is_some_and(Option::is_some);
    let mut there = false;
    for folder in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"] {
        there |= files.mode(format!("{folder}/{HELPER}"))?.is_some();
    }
    if wanted && !there {
        notes.push(format!(
            "{HELPER} is not installed: images cannot be pulled from ECR"
        ));
    }
    let plan = spec.dns.plan.as_ref();
    if let Some(plan) = plan.filter(|plan| plan.resolver == Resolver::Off && spec.dns.mode != DnsMode::Off) {
        notes.push(format!(
            "names below .consul do not resolve here: {}",
            plan.reason
        ));
    }
    Ok(notes)
}
