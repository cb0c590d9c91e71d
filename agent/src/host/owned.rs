//! Owns writing, reading and giving away where another user than root may have put something in the way.
//! Touches the file system, by open directories: what a name leads to is decided once, and no link is followed.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};

/// A plain file as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Numbers of user and group.
    pub owner: (u32, u32),
}

/// More is not read: whose directory it is decides what lies there, and nothing of ours is that large.
const LARGEST: u64 = 1024 * 1024;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn name(path: Option<&std::ffi::OsStr>) -> io::Result<CString> {
    let name = path.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(CString::new(name.as_bytes())?)
}

/// The directory of a file, opened without following it as a link; its parent is trusted.
fn open_directory(path: &Path, make_for: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = File::open(directory.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    let last = name(directory.file_name())?;
    let open = || openat(&parent, last.as_c_str(), DIRECTORY, Mode::empty());
    match (open(), make_for) {
        (Err(Errno::ENOENT), Some((user, group))) => {
            mkdirat(&parent, last.as_c_str(), Mode::S_IRWXU)?;
            let made = open()?;
            fchown(&made, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
            Ok(made)
        }
        (opened, _) => Ok(opened?),
    }
}

pub(super) fn write(path: &Path, content: &[u8], mode: u32, (user, group): (u32, u32)) -> io::Result<()> {
    let directory = open_directory(path, Some((user, group)))?;
    let last = name(path.file_name())?;
    let temporary = CString::new([b".", last.as_bytes(), b".cos-new"].concat())?;
    match unlinkat(&directory, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let private = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file = File::from(openat(&directory, temporary.as_c_str(), flags, private)?);
    let written = (|| {
        file.set_permissions(Permissions::from_mode(mode))?;
        fchown(
            file.as_fd(),
            Some(Uid::from_raw(user)),
            Some(Gid::from_raw(group)),
        )?;
        file.write_all(content)?;
        file.sync_all()?;
        renameat(&directory, temporary.as_c_str(), &directory, last.as_c_str())?;
        File::from(directory.try_clone()?).sync_all()
    })();
    if written.is_err() {
        let _ = unlinkat(&directory, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

pub(super) fn read(path: &Path) -> io::Result<Option<Plain>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = open_directory(path, None).and_then(|directory| {
        let last = name(path.file_name())?;
        Ok(File::from(openat(
            &directory,
            last.as_c_str(),
            flags,
            Mode::empty(),
        )?))
    });
    let file = match opened {
        Ok(file) => file,
        // Absent, not a directory, a link, or a socket.
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content)?;
    Ok(Some(Plain {
        content,
        mode: metadata.permissions().mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
    }))
}

pub(super) fn make_directory(path: &Path, mode: u32, owner: (u32, u32), contents: bool) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if contents {
        give_contents(directory.as_fd(), owner)?;
    }
    give(&directory, owner)?;
    directory.set_permissions(Permissions::from_mode(mode))
}

/// Only a real change needs privileges.
fn give(directory: &File, (user, group): (u32, u32)) -> io::Result<()> {
    let metadata = directory.metadata()?;
    if (metadata.uid(), metadata.gid()) == (user, group) {
        return Ok(());
    }
    Ok(fchown(
        directory,
        Some(Uid::from_raw(user)),
        Some(Gid::from_raw(group)),
    )?)
}

fn give_contents(directory: impl AsFd, owner @ (user, group): (u32, u32)) -> io::Result<()> {
    let directory = directory.as_fd();
    let listed = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    for entry in listed {
        let entry = name(Some(&entry?.file_name()))?;
        if let Ok(below) = openat(directory, entry.as_c_str(), DIRECTORY, Mode::empty()) {
            give_contents(&below, owner)?;
            give(&File::from(below), owner)?;
            continue;
        }
        // No directory, or gone by now.
        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        match fchownat(
            directory,
            entry.as_c_str(),
            user,
            group,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A test gives files to whom it runs as, so that it needs no privileges.
    fn me() -> (u32, u32) {
        (Uid::current().as_raw(), Gid::current().as_raw())
    }

    #[test]
    fn the_directory_is_made_and_the_file_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".docker/config.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"{}", 0o600, me()).unwrap();
        write(&path, b"{1}", 0o600, me()).unwrap();
        let plain = read(&path).unwrap().unwrap();
        assert_eq!(
            (plain.content.as_slice(), plain.mode, plain.owner),
            (&b"{1}"[..], 0o600, me())
        );
        let folder = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_user_puts_in_the_way_leads_nowhere_else() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("config.json");
        fs::write(&target, "precious").unwrap();
        // The file is a link: it is replaced, what it led to is not.
        let path = home.path().join("a/config.json");
        fs::create_dir(home.path().join("a")).unwrap();
        symlink(&target, &path).unwrap();
        symlink(&target, home.path().join("a/.config.json.cos-new")).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"{}", 0o600, me()).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        // The directory is a link: refused.
        symlink(elsewhere.path(), home.path().join("b")).unwrap();
        let path = home.path().join("b/config.json");
        assert_eq!(read(&path).unwrap(), None);
        assert!(write(&path, b"{}", 0o600, me()).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        // A pipe is not waited for.
        let path = home.path().join("a/pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_directory_is_given_away_with_all_that_is_in_it_but_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        fs::create_dir_all(data.join("raft")).unwrap();
        fs::write(data.join("raft/raft.db"), "").unwrap();
        fs::write(root.path().join("outside"), "").unwrap();
        symlink("../outside", data.join("link")).unwrap();
        if !Uid::current().is_root() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this as root: files change their owner"
            );
            eprintln!("SKIPPED: a_directory_is_given_away_… needs root");
            return;
        }
        make_directory(&data, 0o750, (12345, 54321), true).unwrap();
        let owner = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        for path in ["data", "data/raft", "data/raft/raft.db", "data/link"] {
            assert_eq!(owner(&root.path().join(path)), (12345, 54321), "{path}");
        }
        assert_eq!(owner(&root.path().join("outside")), (0, 0));
        // Without its content: only the directory.
        make_directory(&data, 0o700, (0, 0), false).unwrap();
        assert_eq!(owner(&data), (0, 0));
        assert_eq!(owner(&data.join("raft")), (12345, 54321));
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
