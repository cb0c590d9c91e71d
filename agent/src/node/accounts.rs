//! Owns users and groups of the machine: numbers, primary group, home.
//! Touches /etc/passwd and /etc/group (reading).

use std::collections::BTreeMap;

use crate::host::{FileError, Files};

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Number of its primary group.
    pub gid: u32,
    /// Home.
    pub home: String,
}

/// Users and groups by name, from the machine's own files: system accounts are never elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Users.
    pub users: BTreeMap<String, User>,
    /// Numbers of groups.
    pub groups: BTreeMap<String, u32>,
}

impl Accounts {
    /// Reads passwd(5) and group(5); where a name stands twice, the first line counts, as in glibc.
    pub fn read(files: &Files) -> Result<Self, FileError> {
        let mut accounts = Self::default();
        for fields in lines(files, "/etc/passwd")? {
            if let [name, _, uid, gid, _, home, ..] = fields.as_slice()
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                let home = home.clone();
                let user = User { uid, gid, home };
                accounts.users.entry(name.clone()).or_insert(user);
            }
        }
        for fields in lines(files, "/etc/group")? {
            if let [name, _, gid, ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                accounts.groups.entry(name.clone()).or_insert(gid);
            }
        }
        Ok(accounts)
    }

    /// Name of a user's primary group.
    pub fn primary_group(&self, user: &User) -> Option<&str> {
        let mut groups = self.groups.iter();
        groups
            .find(|(_, gid)| **gid == user.gid)
            .map(|(name, _)| name.as_str())
    }
}

fn lines(files: &Files, path: &str) -> Result<Vec<Vec<String>>, FileError> {
    let content = files.read(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let fields = |line: &str| line.split(':').map(str::to_owned).collect();
    Ok(text.lines().map(fields).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_home_and_a_primary_group() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let passwd = "root:x:0:0:root:/root:/bin/sh\nec2-user:x:1000:1001::/home/ec2-user:/bin/bash\nodd line\n\
                      root:x:7:7::/other:/bin/sh\n";
        files
            .write_atomic("/etc/passwd", passwd.as_bytes(), 0o644)
            .unwrap();
        files
            .write_atomic("/etc/group", b"root:x:0:\nstaff:x:1001:a,b\n", 0o644)
            .unwrap();
        let accounts = Accounts::read(&files).unwrap();
        let user = &accounts.users["ec2-user"];
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (1000, 1001, "/home/ec2-user")
        );
        assert_eq!(accounts.primary_group(user), Some("staff"));
        assert_eq!(accounts.users["root"].uid, 0);
        assert_eq!(accounts.users.len(), 2);
    }
}
