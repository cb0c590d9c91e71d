//! Owns how `apply`, `check` and the other commands of a node fail: what it means to the caller, and what may be done.
//! Touches nothing.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::apply::{ExecuteError, JudgeError, ObserveError};
use super::config::{Faults, ResolveError};
use super::disks::DisksError;
use super::lock::LockError;
use super::render::dns::DnsRefusal;
use super::render::{self, RenderError, VersionError};
use super::secrets::SecretsError;
use super::sources::{CONFIGURATION, DROP_INS, ImdsError, ParametersError, SourceError};
use super::watch::WatchError;
use crate::aws::AwsError;
use crate::host::{FileError, ProgramError};

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
    /// The configuration asks for a resolver that the machine does not have.
    #[error(transparent)]
    Dns(#[from] DnsRefusal),
    /// The metadata service could not be asked.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// The secrets that the configuration names cannot be had.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// AWS could not be asked.
    #[error(transparent)]
    Aws(Box<AwsError>),
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
    /// Disks are not as they should be.
    #[error(transparent)]
    Disks(#[from] DisksError),
    /// Watching, draining or leaving came to a bad end.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Another process changes this node.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Nothing starts services here.
    #[error("this machine runs neither systemd nor System V scripts")]
    NoServiceManager,
    /// The record of the last `apply` is not readable.
    #[error("{} is not readable", render::RECORD)]
    Record(#[source] serde_json::Error),
    /// What `run-consul` and `run-nomad` keep is not what they wrote.
    #[error("{} is not readable", super::shims::KEPT)]
    Kept(#[source] serde_json::Error),
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

impl From<AwsError> for NodeError {
    fn from(error: AwsError) -> Self {
        Self::Aws(Box::new(error))
    }
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
            | Self::Dns(_)
            | Self::Judge(JudgeError::Refused {
                source: ProgramError::Failed { .. },
                ..
            })
            | Self::Execute(ExecuteError::Refused(_) | ExecuteError::SecondCluster { .. }) => 2,
            Self::Disks(error) => error.exit_code(),
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
            Self::Aws(error) => error.hint(),
            Self::Secrets(error) => error.hint(),
            Self::Disks(error) => error.hint(),
            Self::Watch(error) => error.hint(),
            Self::Version(_)
            | Self::Observe(
                ObserveError::NoService { .. } | ObserveError::NoGroup { .. } | ObserveError::NoUser { .. },
            ) => Some("cos-agent configures instances of images that cos-bake made".to_owned()),
            Self::Execute(ExecuteError::Unit { unit, .. }) => {
                Some(format!("journalctl --unit {} --lines 50", unit.name()))
            }
            Self::Execute(ExecuteError::SecondCluster { unit, .. }) => Some(format!(
                "say in {}.bootstrap_expect how many servers there should be: then it joins those that it finds",
                unit.name()
            )),
            Self::Dns(_) => Some("dns.consul: automatic takes what the machine has".to_owned()),
            Self::Kept(_) => Some("remove it, and call run-consul and run-nomad again".to_owned()),
            Self::NeverApplied => Some("run cos-agent apply first".to_owned()),
            Self::Report { .. } => Some("the next cos-agent apply writes it anew".to_owned()),
            Self::Unhealthy { .. } => {
                Some("journalctl --unit consul --unit nomad --unit docker --lines 50".to_owned())
            }
            _ => None,
        }
    }
}
