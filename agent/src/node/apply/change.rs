//! Owns a change as data: one effect each, how it is told, and a set of them in order.
//! Touches nothing.

use std::fmt;

use serde::Serialize;

use crate::node::render::{self, Unit};

/// Content of a file on its way to the disk. It may be secret: `Debug` tells its length and digest only.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        render::Content(&self.0).fmt(formatter)
    }
}

/// One step. Each has one effect, so that a run can die only between steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Forget what a unit was started with.
    Forget {
        /// Unit.
        unit: Unit,
    },
    /// Stop a unit and wait until it has stopped.
    Stop {
        /// Unit.
        unit: Unit,
    },
    /// Keep a unit from starting at boot.
    Disable {
        /// Unit.
        unit: Unit,
    },
    /// Make a directory, or give it other permissions.
    MakeDirectory {
        /// Path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// User.
        user: String,
        /// Group.
        group: String,
        /// Whether what is in it gets the same owner.
        contents: bool,
        #[serde(skip)]
        /// Number of the user.
        uid: u32,
        #[serde(skip)]
        /// Number of the group.
        gid: u32,
    },
    /// Mark the node as one that has yet to prove that it is ready.
    MarkArriving,
    /// Write a file.
    Write {
        /// Path.
        path: String,
        /// Digest of the new content.
        sha256: String,
        /// Permission bits.
        mode: u32,
        /// User.
        user: String,
        /// Group.
        group: String,
        #[serde(skip)]
        /// Number of the user.
        uid: u32,
        #[serde(skip)]
        /// Number of the group.
        gid: u32,
        #[serde(skip)]
        /// Content.
        content: Content,
    },
    /// Make a symbolic link.
    Link {
        /// Path.
        path: String,
        /// What it points to.
        target: String,
    },
    /// Remove a file.
    Remove {
        /// Path.
        path: String,
    },
    /// Let the service manager read its definitions anew.
    ReloadDefinitions,
    /// Make a unit start at boot.
    Enable {
        /// Unit.
        unit: Unit,
    },
    /// Let the service manager forget how often a unit failed: it refuses to start it otherwise.
    ResetFailures {
        /// Unit.
        unit: Unit,
    },
    /// Begin to start a unit.
    Start {
        /// Unit.
        unit: Unit,
    },
    /// Begin to restart a unit.
    Restart {
        /// Unit.
        unit: Unit,
    },
    /// Let a running unit read again what it can.
    Reload {
        /// Unit.
        unit: Unit,
    },
    /// Wait until a unit does its work.
    Await {
        /// Unit.
        unit: Unit,
    },
    /// Keep the digests of what a unit was started with, and of what it read again since.
    Stamp {
        /// Unit.
        unit: Unit,
        /// Digest of what it was started with.
        sha256: String,
        /// Digest of what it reads again when it reloads; none if that is about to change, or if it cannot reload.
        reloaded_sha256: Option<String>,
    },
}

impl Change {
    /// The file that it changes.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::Write { path, .. } | Self::Remove { path } => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forget { unit } => write!(formatter, "forget what {} was started with", unit.name()),
            Self::Stop { unit } => write!(formatter, "stop {}", unit.name()),
            Self::Disable { unit } => write!(formatter, "disable {}", unit.name()),
            Self::MakeDirectory {
                path,
                mode,
                user,
                group,
                contents,
                ..
            } => {
                let all = if *contents { ", with what is in it" } else { "" };
                write!(
                    formatter,
                    "make directory {path} ({mode:04o} {user}:{group}{all})"
                )
            }
            Self::MarkArriving => formatter.write_str("mark the node as not ready yet"),
            Self::Write {
                path,
                mode,
                user,
                group,
                ..
            } => write!(formatter, "write {path} ({mode:04o} {user}:{group})"),
            Self::Link { path, target } => write!(formatter, "link {path} to {target}"),
            Self::Remove { path } => write!(formatter, "remove {path}"),
            Self::ReloadDefinitions => formatter.write_str("reload the service manager's definitions"),
            Self::Enable { unit } => write!(formatter, "enable {}", unit.name()),
            Self::ResetFailures { unit } => write!(formatter, "reset the failures of {}", unit.name()),
            Self::Start { unit } => write!(formatter, "start {}", unit.name()),
            Self::Restart { unit } => write!(formatter, "restart {}", unit.name()),
            Self::Reload { unit } => write!(formatter, "reload {}", unit.name()),
            Self::Await { unit } => write!(formatter, "wait for {}", unit.name()),
            Self::Stamp { unit, .. } => write!(formatter, "note what {} runs with", unit.name()),
        }
    }
}

/// Steps in order; empty if the node is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ChangeSet(pub Vec<Change>);
