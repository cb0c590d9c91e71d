//! Owns reading and writing below one root path: atomic, mode before name, synced.
//! Touches the file system below that root.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use thiserror::Error;

use super::owned::{self, Plain};

/// An operation on a file failed.
#[derive(Debug, Error)]
#[error("could not {action} {}", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The path as seen from the host, root included.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// The files of one machine, seen through a root path: `/` on a node, a temporary folder in tests.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// The files below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root path itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an absolute path of the machine lies on the host.
    pub fn locate(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Content of a file; none if it does not exist.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.locate(path);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError {
                action: "read",
                path,
                source,
            }),
        }
    }

    /// Permission bits of a file or directory; none if it does not exist.
    pub fn mode(&self, path: impl AsRef<Path>) -> Result<Option<u32>, FileError> {
        let path = self.locate(path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.permissions().mode() & 0o7777)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError {
                action: "look at",
                path,
                source,
            }),
        }
    }

    /// User and group number of a file, directory or link; none if it does not exist.
    pub fn owner(&self, path: impl AsRef<Path>) -> Result<Option<(u32, u32)>, FileError> {
        let path = self.locate(path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some((metadata.uid(), metadata.gid()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError {
                action: "look at",
                path,
                source,
            }),
        }
    }

    /// Gives a file, directory or link to a user and group; does nothing if they own it, so that only a
    /// real change needs privileges.
    pub fn set_owner(&self, path: impl AsRef<Path>, user: u32, group: u32) -> Result<(), FileError> {
        if self.owner(&path)? == Some((user, group)) {
            return Ok(());
        }
        let path = self.locate(path);
        std::os::unix::fs::lchown(&path, Some(user), Some(group)).map_err(|source| FileError {
            action: "change the owner of",
            path,
            source,
        })
    }

    /// Names in a directory, sorted; none of them if it does not exist or is no directory.
    pub fn entries(&self, path: impl AsRef<Path>) -> Result<Vec<String>, FileError> {
        let path = self.locate(path);
        let listed = fs::read_dir(&path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        });
        match listed {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Vec::new())
            }
            Err(source) => Err(FileError {
                action: "list",
                path,
                source,
            }),
            Ok::<Vec<String>, _>(mut names) => {
                names.sort();
                Ok(names)
            }
        }
    }

    /// What a symbolic link points to; none if there is no link of that name.
    pub fn link_target(&self, path: impl AsRef<Path>) -> Result<Option<String>, FileError> {
        let path = self.locate(path);
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(FileError {
                action: "read the link",
                path,
                source,
            }),
        }
    }

    /// Cuts an existing file to nothing in place, so that a program that has it open goes on writing to it.
    pub fn truncate(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = self.locate(path);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(0))
            .map_err(|source| FileError {
                action: "truncate",
                path,
                source,
            })
    }

    /// Opens a file to write at its end, and makes it if there is none; it gets the mode in both cases.
    pub fn open_to_append(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, FileError> {
        let path = self.locate(path);
        let opened = (|| {
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(mode)
                .open(&path)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(file)
        })();
        opened.map_err(|source| FileError {
            action: "open",
            path,
            source,
        })
    }

    /// Opens a terminal to write to it; none if there is none. Writing never waits for whoever reads it, and it does
    /// not become the terminal of this process.
    pub fn open_terminal(&self, path: impl AsRef<Path>) -> Result<Option<File>, FileError> {
        let path = self.locate(path);
        let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        match OpenOptions::new()
            .append(true)
            .custom_flags(flags.bits())
            .open(&path)
        {
            Ok(terminal) => Ok(Some(terminal)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError {
                action: "open",
                path,
                source,
            }),
        }
    }

    /// Makes a directory and its parents; an existing one gets the mode.
    pub fn make_directory(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), FileError> {
        let path = self.locate(path);
        fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(|source| FileError {
                action: "make directory",
                path,
                source,
            })
    }

    /// Writes a file so that a reader, or a crash, sees the old content or the new, never a mixture:
    /// temporary file with the final mode, data synced, renamed, directory synced.
    pub fn write_atomic(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<(), FileError> {
        self.write_atomic_with(path, mode, |file| file.write_all(content))
    }

    /// As [`Files::write_atomic`], for content that does not fit in memory. If `fill` fails nothing is left.
    pub fn write_atomic_with(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let path = self.locate(path);
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.cos-new"));
        let written = (|| {
            fs::create_dir_all(&directory)?;
            // Left by a run that died, or put there by a service that owns the directory, perhaps as a link to
            // a file that is not its own: never opened, only replaced.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            fill(&mut file)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&directory)?.sync_all()
        })();
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            FileError {
                action: "write",
                path,
                source,
            }
        })
    }

    /// Writes a file into a directory that belongs to `owner`, by number: atomic, with the owner set before the name.
    /// Whatever the owner did there meanwhile, nothing outside the directory is touched: the directory, and what lies
    /// at the name of the file, are never followed as links. The directory itself is made if it is absent; its
    /// parent must exist.
    pub fn write_for(
        &self,
        path: impl AsRef<Path>,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), FileError> {
        let path = self.locate(path);
        owned::write(&path, content, mode, owner).map_err(|source| FileError {
            action: "write",
            path,
            source,
        })
    }

    /// Content, mode and owner of a plain file in a directory that belongs to a user; none if there is none, or if
    /// something else lies there: a link is not followed, and a pipe not waited for.
    pub fn read_for(&self, path: impl AsRef<Path>) -> Result<Option<Plain>, FileError> {
        let path = self.locate(path);
        owned::read(&path).map_err(|source| FileError {
            action: "read",
            path,
            source,
        })
    }

    /// Makes a directory and its parents; it gets mode and owner (numbers of user and group), an existing one too.
    /// With `contents`, so does everything in it, before the directory itself: a run that died in between begins
    /// again. Links are given away themselves, never what they point to.
    pub fn make_directory_for(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        owner: (u32, u32),
        contents: bool,
    ) -> Result<(), FileError> {
        let path = self.locate(path);
        owned::make_directory(&path, mode, owner, contents).map_err(|source| FileError {
            action: "make directory",
            path,
            source,
        })
    }

    /// Makes a symbolic link, replacing whatever link or file has the name.
    pub fn link(&self, path: impl AsRef<Path>, target: &str) -> Result<(), FileError> {
        let path = self.locate(path);
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.cos-new"));
        let linked = (|| {
            fs::create_dir_all(&directory)?;
            let _ = fs::remove_file(&temporary);
            std::os::unix::fs::symlink(target, &temporary)?;
            fs::rename(&temporary, &path)
        })();
        linked.map_err(|source| FileError {
            action: "link",
            path,
            source,
        })
    }

    /// Removes a file, link or whole directory; it is no error if there is none.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = self.locate(path);
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| FileError {
                action: "remove",
                path,
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_the_old_content_and_no_temporary() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write_atomic("/etc/a", b"old", 0o600).unwrap();
        let failed = files.write_atomic_with("/etc/a", 0o600, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(files.read("/etc/a").unwrap().unwrap(), b"old");
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_of_the_temporary_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write_atomic("/shadow", b"secret", 0o600).unwrap();
        fs::create_dir(root.path().join("config")).unwrap();
        std::os::unix::fs::symlink("../shadow", root.path().join("config/.a.cos-new")).unwrap();
        files.write_atomic("/config/a", b"new", 0o600).unwrap();
        assert_eq!(files.read("/shadow").unwrap().unwrap(), b"secret");
        assert_eq!(files.read("/config/a").unwrap().unwrap(), b"new");
        assert_eq!(files.link_target("/config/a").unwrap(), None);
    }

    #[test]
    fn mode_is_set_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write_atomic("/a", b"", 0o640).unwrap();
        assert_eq!(files.mode("/a").unwrap(), Some(0o640));
    }
}
