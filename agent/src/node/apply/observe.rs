//! Owns looking at a node: files by digest, mode and owner, units by condition and stamp.
//! Touches files (reading) and the service manager (asking).

use std::collections::BTreeMap;

use thiserror::Error;

use super::stamp;
use crate::host::{FileError, Files, ProgramError};
use crate::node::render::{self, DesiredFile, DesiredState, Unit};
use crate::node::services::{Activity, Condition, ServiceManager};

/// A file as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedFile {
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub digest: String,
    /// Permission bits.
    pub mode: u32,
    /// User by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
}

/// A unit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedUnit {
    /// What the service manager says.
    pub condition: Condition,
    /// Digest of what it was started with, if that is known.
    pub started_with: Option<String>,
}

/// What a node is, as far as a desired state asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Files that exist, by path.
    pub files: BTreeMap<String, ObservedFile>,
    /// Targets of symbolic links that exist, by path.
    pub links: BTreeMap<String, String>,
    /// Units, by name. Empty where there is no service manager to ask.
    pub units: BTreeMap<Unit, ObservedUnit>,
    /// Numbers of the users that exist, by name.
    pub users: BTreeMap<String, u32>,
    /// Numbers of the groups that exist, by name.
    pub groups: BTreeMap<String, u32>,
}

/// A node could not be looked at.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The service manager did not answer.
    #[error("the service manager did not tell how {unit} fares")]
    Service {
        /// Services.
        unit: Box<str>,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A service that the role needs is not on the machine.
    #[error("this machine has no service {unit}")]
    NoService {
        /// Service.
        unit: &'static str,
    },
    /// A group that a file needs is not on the machine.
    #[error("this machine has no group {group}")]
    NoGroup {
        /// Group.
        group: String,
    },
    /// A user that a file needs is not on the machine.
    #[error("this machine has no user {user}")]
    NoUser {
        /// User.
        user: String,
    },
}

/// Looks at everything that `desired` speaks of. Without a manager no unit is looked at.
pub fn observe(
    desired: &DesiredState,
    files: &Files,
    manager: Option<&dyn ServiceManager>,
) -> Result<Observed, ObserveError> {
    let mut observed = Observed {
        users: numbers(files, "/etc/passwd")?,
        groups: numbers(files, "/etc/group")?,
        ..Observed::default()
    };
    for (path, file) in &desired.files {
        if let Some(file) = file {
            owned(file, &observed)?;
        }
        let (content, mode, owner) = (files.read(path)?, files.mode(path)?, files.owner(path)?);
        if let (Some(content), Some(mode), Some((uid, gid))) = (content, mode, owner) {
            let digest = render::digest(&content);
            let seen = ObservedFile {
                digest,
                mode,
                uid,
                gid,
            };
            observed.files.insert(path.clone(), seen);
        }
    }
    for path in desired.links.keys() {
        if let Some(target) = files.link_target(path)? {
            observed.links.insert(path.clone(), target);
        }
    }
    let Some(manager) = manager else {
        return Ok(observed);
    };
    let names: Vec<&str> = desired.units.keys().map(|unit| unit.name()).collect();
    let conditions = manager
        .conditions(&names)
        .map_err(|source| ObserveError::Service {
            unit: names.join(", ").into(),
            source,
        })?;
    for ((unit, wanted), condition) in desired.units.iter().zip(conditions) {
        if condition.activity == Activity::Absent && matches!(wanted, render::DesiredUnit::Running(_)) {
            return Err(ObserveError::NoService { unit: unit.name() });
        }
        let started_with = files.read(stamp(*unit))?;
        let started_with = started_with.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        observed.units.insert(
            *unit,
            ObservedUnit {
                condition,
                started_with,
            },
        );
    }
    Ok(observed)
}

fn owned(file: &DesiredFile, observed: &Observed) -> Result<(), ObserveError> {
    if !observed.users.contains_key(&file.user) {
        let user = file.user.clone();
        return Err(ObserveError::NoUser { user });
    }
    if !observed.groups.contains_key(&file.group) {
        let group = file.group.clone();
        return Err(ObserveError::NoGroup { group });
    }
    Ok(())
}

/// Names and numbers of passwd(5) or group(5).
fn numbers(files: &Files, path: &str) -> Result<BTreeMap<String, u32>, FileError> {
    let content = files.read(path)?.unwrap_or_default();
    let lines = String::from_utf8_lossy(&content).into_owned();
    Ok(lines
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
        })
        .collect())
}
