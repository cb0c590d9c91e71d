//! Owns what can go wrong on the builder, each case with what was expected and what was found.
//! Touches nothing.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::host::{FileError, ProgramError};

/// A command on the builder, or in the boot test, did not reach its end.
#[derive(Debug, Error)]
pub enum BuilderError {
    /// The volume does not begin as a payload does.
    #[error("{} is no payload volume: it does not begin with COS-PAYLOAD-1", device.display())]
    NotAPayload {
        /// The device that was read.
        device: PathBuf,
    },
    /// Something has another digest, size or value than the chain of trust says.
    #[error("{what} differs: expected {expected}, found {found}")]
    Differs {
        /// What was compared, such as `sha256 of /opt/nomad/bin/nomad`.
        what: String,
        /// What the link before in the chain says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Something cannot be read as what it must be.
    #[error("{what} cannot be read as what it must be")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something that the manifest names is not there.
    #[error("{what} is missing in {container}")]
    Missing {
        /// What is missing.
        what: String,
        /// Where it should be.
        container: String,
    },
    /// Something is there that the manifest does not name.
    #[error("the bundle carries `{entry}`, which its manifest does not name or names once only")]
    Unexpected {
        /// Name of the entry.
        entry: String,
    },
    /// The device, or a file on it, could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file of the machine could not be read or changed.
    #[error("could not {step}")]
    File {
        /// What the file was needed for.
        step: String,
        /// Why it failed.
        #[source]
        source: FileError,
    },
    /// A program that is needed failed.
    #[error("could not {step}")]
    Program {
        /// What the program was needed for.
        step: String,
        /// Why it failed.
        #[source]
        source: ProgramError,
    },
    /// A step failed for a reason that is neither a file nor a program.
    #[error("could not {step}: {reason}")]
    Step {
        /// What was tried.
        step: String,
        /// Why it failed.
        reason: String,
    },
    /// `--sealed-identity` is not what `seal` printed.
    #[error("the sealed identity is not the report that `cos-agent seal` printed")]
    SealedIdentity(#[source] serde_json::Error),
    /// Checks failed; each was reported by its name.
    #[error("{} of {total} checks failed: {}", failed.len(), failed.join(", "))]
    Checks {
        /// Names of the checks that failed.
        failed: Vec<String>,
        /// How many were run.
        total: usize,
        /// Whether the machine was booted from the new image (`--booted`).
        booted: bool,
    },
}

impl BuilderError {
    /// For `map_err`: a file operation failed while doing `step`.
    pub(crate) fn file(step: &str) -> impl FnOnce(FileError) -> Self {
        move |source| Self::File {
            step: step.to_owned(),
            source,
        }
    }

    /// For `map_err`: a program failed while doing `step`.
    pub(crate) fn program(step: &str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program {
            step: step.to_owned(),
            source,
        }
    }

    /// For `map_err`: `what` is not readable as what it must be.
    pub(crate) fn malformed<E: Into<Box<dyn Error + Send + Sync>>>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Malformed {
            what: what.into(),
            source: source.into(),
        }
    }
}
