//! Owns the machine that is installed, verified or sealed: files below its root, programs run on it, accounts.
//! Touches `host`; with another root than `/`, programs run inside it by `chroot`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::BuilderError;
use crate::host::{Files, Invocation, Output, ProgramError, Programs};

/// Where programs lie, in the order in which root's `PATH` has them.
const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// The machine under a root path.
pub struct Machine<'a> {
    /// Its files.
    pub files: &'a Files,
    /// Its programs.
    pub programs: &'a (dyn Programs + Sync),
}

impl Machine<'_> {
    /// Whether this is the running machine, not a tree of files somewhere in it.
    pub fn is_running(&self) -> bool {
        self.files.root() == std::path::Path::new("/")
    }

    /// Runs a program on the machine, whatever its status is.
    pub fn run(&self, program: &str, arguments: &[&str], deadline: Duration) -> Result<Output, ProgramError> {
        self.programs.run(&self.invocation(program, arguments, deadline))
    }

    /// Runs a program on the machine; any status but 0 is an error.
    pub fn check(
        &self,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Output, ProgramError> {
        self.programs
            .check(&self.invocation(program, arguments, deadline))
    }

    fn invocation(&self, program: &str, arguments: &[&str], deadline: Duration) -> Invocation {
        if self.is_running() {
            return Invocation::new(program, arguments.iter().copied(), deadline);
        }
        let root = self.files.root().to_string_lossy();
        let chroot = [root.as_ref(), program]
            .into_iter()
            .chain(arguments.iter().copied());
        Invocation::new("chroot", chroot, deadline)
    }

    /// Absolute path of a program on the machine, if it is installed.
    pub fn find_program(&self, name: &str) -> Option<String> {
        PROGRAM_DIRECTORIES
            .iter()
            .map(|directory| format!("{directory}/{name}"))
            .find(|path| self.exists(path))
    }

    /// Whether the path leads to something; a link inside the root counts as what it is, followed or not.
    fn exists(&self, path: &str) -> bool {
        matches!(self.files.mode(path), Ok(Some(_)))
    }

    /// Users and groups of the machine, by name.
    pub fn accounts(&self) -> Result<Accounts, BuilderError> {
        let read = |path| -> Result<BTreeMap<String, u32>, BuilderError> {
            let text = self
                .files
                .read(path)
                .map_err(BuilderError::file("read users and groups"))?;
            Ok(numbers(&String::from_utf8_lossy(&text.unwrap_or_default())))
        };
        Ok(Accounts {
            users: read("/etc/passwd")?,
            groups: read("/etc/group")?,
        })
    }
}

/// Numbers of users and groups by name, from the machine's own files: system accounts are never elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

impl Accounts {
    /// Numbers of the user and of the group of the same name, if both exist.
    pub fn find(&self, name: &str) -> Option<(u32, u32)> {
        Some((*self.users.get(name)?, *self.groups.get(name)?))
    }

    /// Names for numbers, as `user:group`; numbers stay where there is no name. Where several accounts have
    /// one number, the expected one is meant.
    pub fn describe(&self, (user, group): (u32, u32), expected: &str) -> String {
        if self.find(expected) == Some((user, group)) {
            return format!("{expected}:{expected}");
        }
        let name = |accounts: &BTreeMap<String, u32>, number: u32| {
            accounts
                .iter()
                .find(|(_, other)| **other == number)
                .map_or(number.to_string(), |(name, _)| name.clone())
        };
        format!("{}:{}", name(&self.users, user), name(&self.groups, group))
    }
}

/// First field to third field of lines such as `root:x:0:0:…`; the first line of a name counts.
fn numbers(text: &str) -> BTreeMap<String, u32> {
    let mut numbers = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(number))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
        {
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    numbers
}
