//! Owns looking at a node: directories and files by digest, mode and owner, units by condition and stamp.
//! Touches files (reading) and the service manager (asking).

use std::collections::BTreeMap;

use thiserror::Error;

use super::stamp::{self, Stamp};
use crate::host::{FileError, Files, Plain, ProgramError};
use crate::node::accounts::Accounts;
use crate::node::render::{self, DesiredState, DesiredUnit, Unit};
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

/// A directory as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDirectory {
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
    /// Digest of what it read again since, if that is known.
    pub reloaded: Option<String>,
}

/// What a node is, as far as a desired state asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Directories that exist, by path.
    pub directories: BTreeMap<String, ObservedDirectory>,
    /// Files that exist, by path.
    pub files: BTreeMap<String, ObservedFile>,
    /// Targets of symbolic links that exist, by path.
    pub links: BTreeMap<String, String>,
    /// Units, by name. Empty where there is no service manager to ask.
    pub units: BTreeMap<Unit, ObservedUnit>,
    /// Users and groups that exist.
    pub accounts: Accounts,
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

/// How units fared some moments ago.
pub(crate) type Conditions = BTreeMap<Unit, Condition>;

/// Asks the service manager for every unit at once.
pub(crate) fn conditions(manager: &dyn ServiceManager) -> Result<Conditions, ProgramError> {
    let conditions = manager.conditions(&Unit::ALL.map(Unit::name))?;
    Ok(Unit::ALL.into_iter().zip(conditions).collect())
}

/// Whether nothing can have started since: none of COS's own services was running or would start by itself. So it is on
/// a first boot. On any other the service manager may have started one between two looks, with files that are not the
/// ones that it should have.
fn still_hold(conditions: &Conditions) -> bool {
    let mut own = conditions.iter().filter(|(unit, _)| !unit.of_the_base());
    own.all(|(_, condition)| {
        !condition.enabled && matches!(condition.activity, Activity::Inactive | Activity::Absent)
    })
}

/// Looks at everything that `desired` speaks of. Without a manager no unit is looked at.
pub fn observe(
    desired: &DesiredState,
    files: &Files,
    manager: Option<&dyn ServiceManager>,
) -> Result<Observed, ObserveError> {
    observe_after(None, desired, files, manager)
}

/// As [`observe`], with what was seen of units before, which is used where it must still hold.
pub(crate) fn observe_after(
    before: Option<&Conditions>,
    desired: &DesiredState,
    files: &Files,
    manager: Option<&dyn ServiceManager>,
) -> Result<Observed, ObserveError> {
    let mut observed = Observed {
        accounts: Accounts::read(files)?,
        ..Observed::default()
    };
    for (path, directory) in &desired.directories {
        owned(&directory.user, &directory.group, &observed.accounts)?;
        if let (Some(mode), Some((uid, gid))) = (files.mode(path)?, files.owner(path)?) {
            let seen = ObservedDirectory { mode, uid, gid };
            observed.directories.insert(path.clone(), seen);
        }
    }
    for (path, file) in &desired.files {
        if let Some(file) = file {
            owned(&file.user, &file.group, &observed.accounts)?;
        }
        let of_user = file.as_ref().is_some_and(|file| file.user != "root");
        let seen = if of_user {
            files.read_for(path)?
        } else {
            look_at(files, path)?
        };
        if let Some(Plain {
            content,
            mode,
            owner: (uid, gid),
        }) = seen
        {
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
    let units: Vec<Unit> = desired.units.keys().copied().collect();
    let known = before.filter(|before| still_hold(before));
    let known: Option<Vec<Condition>> =
        known.and_then(|known| units.iter().map(|unit| known.get(unit).cloned()).collect());
    let conditions = if let Some(known) = known {
        known
    } else {
        let names: Vec<&str> = units.iter().map(|unit| unit.name()).collect();
        let asked = manager.conditions(&names);
        asked.map_err(|source| ObserveError::Service {
            unit: names.join(", ").into(),
            source,
        })?
    };
    for ((unit, wanted), condition) in desired.units.iter().zip(conditions) {
        let to_come = comes_with_its_files(*unit, wanted, desired);
        if condition.activity == Activity::Absent && *wanted != DesiredUnit::Stopped && !to_come {
            return Err(ObserveError::NoService { unit: unit.name() });
        }
        let Stamp {
            started_with,
            reloaded,
        } = stamp::read(files, *unit)?;
        observed.units.insert(
            *unit,
            ObservedUnit {
                condition,
                started_with,
                reloaded,
            },
        );
    }
    Ok(observed)
}

/// Whether a unit that is not on the machine will be, once its files are.
fn comes_with_its_files(unit: Unit, wanted: &DesiredUnit, desired: &DesiredState) -> bool {
    let DesiredUnit::Running(Some(with)) = wanted else {
        return false;
    };
    let name = unit.name();
    let definitions = [
        format!("/etc/systemd/system/{name}.service"),
        format!("/etc/init.d/{name}"),
    ];
    let written = |path: &String| matches!(desired.files.get(path), Some(Some(_)));
    with.files
        .iter()
        .any(|path| definitions.contains(path) && written(path))
}

fn look_at(files: &Files, path: &str) -> Result<Option<Plain>, FileError> {
    let (content, mode, owner) = (files.read(path)?, files.mode(path)?, files.owner(path)?);
    let (Some(content), Some(mode), Some(owner)) = (content, mode, owner) else {
        return Ok(None);
    };
    Ok(Some(Plain { content, mode, owner }))
}

fn owned(user: &str, group: &str, accounts: &Accounts) -> Result<(), ObserveError> {
    if !accounts.users.contains_key(user) {
        let user = user.to_owned();
        return Err(ObserveError::NoUser { user });
    }
    if !accounts.groups.contains_key(group) {
        let group = group.to_owned();
        return Err(ObserveError::NoGroup { group });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::render::{DesiredFile, RunsWith};

    #[test]
    fn a_unit_may_come_with_its_own_files() {
        let file = DesiredFile {
            content: Vec::new(),
            mode: 0o644,
            user: "root".to_owned(),
            group: "root".to_owned(),
        };
        let path = "/etc/systemd/system/cos-dns.service".to_owned();
        let with = RunsWith {
            digest: String::new(),
            files: vec!["/etc/cos/dns.nft".to_owned(), path.clone()],
            once: Vec::new(),
            reloads: None,
        };
        let mut desired = DesiredState::default();
        desired.files.insert(path.clone(), Some(file));
        let wanted = DesiredUnit::Running(Some(with));
        assert!(comes_with_its_files(Unit::Dns, &wanted, &desired));
        assert!(!comes_with_its_files(Unit::Consul, &wanted, &desired));
        desired.files.insert(path, None);
        assert!(!comes_with_its_files(Unit::Dns, &wanted, &desired));
        let plain = DesiredUnit::Running(None);
        assert!(!comes_with_its_files(Unit::Dns, &plain, &desired));
    }

    #[test]
    fn what_was_seen_holds_only_where_nothing_starts_by_itself() {
        let seen = |unit, enabled, activity| {
            let condition = Condition { enabled, activity };
            let idle = Unit::ALL.map(|unit| {
                let activity = if unit.of_the_base() {
                    Activity::Active
                } else {
                    Activity::Inactive
                };
                let enabled = unit.of_the_base();
                (unit, Condition { enabled, activity })
            });
            let mut conditions: Conditions = idle.into();
            conditions.insert(unit, condition);
            still_hold(&conditions)
        };
        assert!(seen(Unit::Dns, false, Activity::Absent));
        assert!(seen(Unit::Resolved, true, Activity::Active));
        assert!(!seen(Unit::Consul, true, Activity::Inactive));
        assert!(!seen(Unit::Consul, false, Activity::Active));
        assert!(!seen(
            Unit::Nomad,
            false,
            Activity::Failed("exit-code".to_owned())
        ));
        assert!(!seen(Unit::Docker, false, Activity::Changing));
    }
}
