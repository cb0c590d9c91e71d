//! Owns what can go wrong while the parts are made, and the way out of each.
//! Touches nothing.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A part that could not be made.
#[derive(Debug, Error)]
pub enum PartsError {
    /// The parts are for the sandbox's machines, and built on their architecture.
    #[error("the parts can only be made on x86_64, and this is {0}")]
    Machine(&'static str),
    /// A program that is needed could not be started.
    #[error("could not start {program}")]
    Tool {
        /// Name of the program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{what} failed ({status}): {tail}")]
    Failed {
        /// What it was to do.
        what: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        tail: String,
    },
    /// A file or folder could not be read or written.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive could not be written.
    #[error("could not write the archive {path}")]
    Zip {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// The test key could not be made, read or used.
    #[error("could not {action} the test key")]
    Key {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: pgp::errors::Error,
    },
    /// A part is not what it should be.
    #[error("{0}")]
    Unfit(String),
}

impl PartsError {
    /// For `map_err`: what was tried on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Tool { program, .. } => match program.as_str() {
                "go" => Some("install Go from https://go.dev/dl/ and put its `bin` into PATH"),
                "apt-get" | "dpkg-deb" => Some("the parts are made on Debian or Ubuntu"),
                "readelf" => Some("apt-get install binutils"),
                _ => None,
            },
            Self::Failed { what, .. } if what.contains("apt-get") => {
                Some("deb.debian.org must be reachable, and the package debian-archive-keyring installed")
            }
            Self::Failed { what, .. } if what.contains("go build") => {
                Some("Go's module proxy must be reachable, and gcc and libc6-dev installed")
            }
            Self::Key { action: "read", .. } => {
                Some("remove the folder `test-key` of the parts' cache: it is made anew")
            }
            _ => None,
        }
    }
}
