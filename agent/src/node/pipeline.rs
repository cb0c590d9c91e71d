//! Owns one pass over a node: sources, configuration, rendering, comparison, judgement, changes.
//! Touches only what the rooms it calls touch.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use super::apply::{
    Change, ChangeSet, ExecuteError, Executor, JudgeError, ObserveError, Observed, Ports, diff, judge,
    observe,
};
use super::config::{self, Faults, NodeConfig, NodeSpec, ResolveError, Roles};
use super::health::ConsulApi;
use super::render::{self, DesiredState, RenderError, VersionError, Versions};
use super::services::ServiceManager;
use super::sources::{
    CONFIGURATION, DROP_INS, Gathered, ImdsError, ParametersError, SourceError, Sources, gather,
};
use crate::host::{FileError, Files, ProgramError, Programs};

/// `apply`, `check` or `health` came to a bad end.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The document has faults; each was told before.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// Nobody said what this node is for.
    #[error(
        "this node has no configuration: there is none in its tags, in its user-data{}, at {CONFIGURATION} or in \
         {DROP_INS}",
        held(others)
    )]
    NoConfiguration {
        /// What user-data holds, in words.
        others: Vec<String>,
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
    /// The metadata service could not be asked.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// Systems Manager could not be asked for what `include` names.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// `include` names parameters where nobody can be asked for them.
    #[error("include names parameter {0}, and Systems Manager cannot be asked here")]
    NoParameters(String),
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
    /// What `run-consul` and `run-nomad` keep is not what they wrote.
    #[error("{} is not readable", super::shims::KEPT)]
    Kept(#[source] serde_json::Error),
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
    /// The result could not be written.
    #[error("could not write the output")]
    Output(#[from] std::io::Error),
}

impl From<SourceError> for NodeError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::File(error) => Self::File(error),
            SourceError::NoFile(path) => Self::NoFile(path),
            SourceError::Imds(error) => Self::Imds(error),
            SourceError::Parameters(error) => Self::Parameters(error),
            SourceError::NoParameters { name } => Self::NoParameters(name),
            SourceError::Faults(faults) => Self::Configuration(faults),
        }
    }
}

/// ` (a #cloud-config)`, or nothing.
fn held(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!(" ({})", others.join(", "))
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
            | Self::Kept(_)
            | Self::Render(_)
            | Self::Judge(JudgeError::Refused {
                source: ProgramError::Failed { .. },
                ..
            }) => 2,
            _ => 6,
        }
    }

    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Configuration(_) | Self::Check { .. } => {
                Some("templates/user-data/ of COS has a complete document for each role".to_owned())
            }
            Self::NoConfiguration { .. } => Some(format!(
                "let user-data write {CONFIGURATION} (templates/user-data/ of COS), or name a file by --config"
            )),
            Self::NoParameters(name) => Some(format!("give it by --parameter {name}=FILE")),
            Self::Imds(error) => error.hint(),
            Self::Version(_)
            | Self::Observe(
                ObserveError::NoService { .. } | ObserveError::NoGroup { .. } | ObserveError::NoUser { .. },
            ) => Some("cos-agent configures instances of images that cos-bake made".to_owned()),
            Self::Execute(ExecuteError::Unit { unit, .. }) => {
                Some(format!("journalctl --unit {} --lines 50", unit.name()))
            }
            Self::Kept(_) => Some("remove it, and call run-consul and run-nomad again".to_owned()),
            Self::NeverApplied => Some("run cos-agent apply first".to_owned()),
            Self::Unhealthy { .. } => {
                Some("journalctl --unit consul --unit nomad --unit docker --lines 50".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads the node's configuration from its sources, and what the instance is. `adapt` may lay something over what
/// the sources say.
pub fn configure(
    sources: &Sources,
    adapt: &mut dyn FnMut(&mut Gathered) -> Result<(), NodeError>,
) -> Result<(NodeConfig, Gathered), NodeError> {
    let mut gathered = gather(sources)?;
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
    /// How long all waits together may take.
    pub deadline: Duration,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it should be.
    pub desired: DesiredState,
    /// What it is.
    pub observed: Observed,
    /// What must be done, in order.
    pub changes: ChangeSet,
}

/// Finds out what must be done to make the node what `spec` says, and has it judged by the products.
pub fn plan_spec(spec: &NodeSpec, environment: &Environment) -> Result<Planned, NodeError> {
    let Environment {
        files,
        programs,
        manager,
        ..
    } = *environment;
    let versions = Versions::detect(files, programs)?;
    let desired = render::render(spec, &versions)?;
    let observed = observe(&desired, files, manager)?;
    let changes = diff(&desired, &observed);
    if !changes.0.is_empty() {
        judge(&desired, files, programs)?;
    }
    Ok(Planned {
        desired,
        observed,
        changes,
    })
}

/// Makes the node what `spec` says. `tell` hears of each change before it is carried out.
pub fn apply_spec(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
    mut tell: impl FnMut(&Change),
) -> Result<Applied, NodeError> {
    let start = Instant::now();
    let planned = plan_spec(spec, environment)?;
    carry_out(spec, environment, mode, planned, start, &mut tell)
}

/// Carries out what was planned, or only tells what came of it.
pub(super) fn carry_out(
    spec: &NodeSpec,
    environment: &Environment,
    mode: Mode,
    planned: Planned,
    start: Instant,
    tell: &mut dyn FnMut(&Change),
) -> Result<Applied, NodeError> {
    let Environment {
        files,
        manager,
        consul,
        deadline,
        ..
    } = *environment;
    let Planned { desired, changes, .. } = planned;
    if mode == Mode::Execute {
        let ports = Ports {
            files,
            manager: manager.ok_or(NodeError::NoServiceManager)?,
            consul,
        };
        let executor = Executor::new(ports, deadline);
        for change in &changes.0 {
            tell(change);
            executor.execute(change)?;
        }
    }
    Ok(Applied {
        roles: spec.roles.clone(),
        name: spec.name.clone(),
        datacenter: spec.datacenter.clone(),
        executed: mode == Mode::Execute,
        changes,
        notes: notes(&desired, files)?,
        milliseconds: start.elapsed().as_millis(),
    })
}

/// The image may be without the helper that the Docker configuration names; every other registry works then.
fn notes(desired: &DesiredState, files: &Files) -> Result<Vec<String>, FileError> {
    const HELPER: &str = "docker-credential-ecr-login";
    let wanted = desired
        .files
        .get(render::DOCKER_CLIENT_CONFIGURATION)
        .is_some_and(Option::is_some);
    let mut there = false;
    for folder in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"] {
        there |= files.mode(format!("{folder}/{HELPER}"))?.is_some();
    }
    let note = || format!("{HELPER} is not installed: images cannot be pulled from ECR");
    Ok((wanted && !there).then(note).into_iter().collect())
}
