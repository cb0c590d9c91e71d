//! Owns the bytes of volumes and snapshots: one sparse raw file each, `vol-….raw` and `snap-….raw`.
//! Touches one folder, and reads the base disks that snapshots of base images stand for.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

/// Bytes of one GiB, the unit in which EC2 counts volumes.
pub const GIB: u64 = 1 << 30;

/// The disks of one sandbox.
///
/// A snapshot never changes, so a volume at rest becomes one by a hard link. A volume that shares its file
/// gets bytes of its own (`own`) before anything may write to it.
#[derive(Debug, Clone)]
pub struct DiskStore {
    folder: PathBuf,
    bases: Arc<Mutex<HashMap<String, PathBuf>>>,
}

impl DiskStore {
    /// Opens the folder, and makes it if it is missing.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("disk folder {} cannot be made", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            bases: Arc::default(),
        })
    }

    /// Lets a snapshot id stand for a base disk elsewhere, which is only ever read.
    pub fn add_base(&self, snapshot: &str, disk: &Path) {
        self.bases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(snapshot.to_owned(), disk.to_owned());
    }

    /// The file of a volume or snapshot, whether it exists or not.
    pub fn path(&self, id: &str) -> PathBuf {
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases
            .get(id)
            .cloned()
            .unwrap_or_else(|| self.folder.join(format!("{id}.raw")))
    }

    /// Whether there are bytes for this id.
    pub fn exists(&self, id: &str) -> bool {
        self.path(id).is_file()
    }

    /// Makes an empty disk. It takes no space until it is written.
    pub fn create(&self, id: &str, gib: u64) -> Result<()> {
        let path = self.path(id);
        let file =
            File::create_new(&path).with_context(|| format!("disk {} cannot be made", path.display()))?;
        file.set_len(gib * GIB)
            .with_context(|| format!("disk {} cannot be sized", path.display()))
    }

    /// Makes a volume with a snapshot's bytes, and room up to `gib`.
    pub fn copy(&self, from: &str, to: &str, gib: u64) -> Result<()> {
        copy_file(&self.path(from), &self.path(to))?;
        self.grow(to, gib)
    }

    /// Grows a disk to `gib`; a disk that is larger stays as it is.
    pub fn grow(&self, id: &str, gib: u64) -> Result<()> {
        let path = self.path(id);
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .with_context(|| format!("disk {} cannot be opened", path.display()))?;
        if file.metadata()?.len() < gib * GIB {
            file.set_len(gib * GIB)
                .with_context(|| format!("disk {} cannot grow", path.display()))?;
        }
        Ok(())
    }

    /// Lets `to` have the very bytes of `from`, at once. Only for disks that nothing writes to.
    pub fn share(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.path(from), self.path(to));
        if fs::hard_link(&source, &target).is_ok() {
            return Ok(());
        }
        // A base disk may lie on another file system.
        copy_file(&source, &target)
    }

    /// Gives a disk bytes of its own, if it shares them, so that it can be written to.
    pub fn own(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        let links = fs::metadata(&path)
            .with_context(|| format!("disk {} is missing", path.display()))?
            .nlink();
        if links > 1 {
            copy_file(&path, &path)?;
        }
        Ok(())
    }

    /// Removes a disk; one that is gone already is fine.
    pub fn remove(&self, id: &str) -> Result<()> {
        if self
            .bases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
            .is_some()
        {
            return Ok(());
        }
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("disk {} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Ids of all disks in the folder.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Some(id) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.strip_suffix(".raw"))
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// Copies a disk without its holes, by shared blocks where the file system can, under a name that is never
/// half full. `cp` does both and is on every machine.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let part = to.with_extension("part");
    let output = Command::new("cp")
        .args(["--reflink=auto", "--sparse=always", "--dereference"])
        .args([from, part.as_path()])
        .output()
        .context("cp cannot be run")?;
    if !output.status.success() {
        let _ = fs::remove_file(&part);
        bail!(
            "disk {} cannot be copied: {}",
            from.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    fs::rename(&part, to).with_context(|| format!("disk {} cannot be named", to.display()))?;
    ensure!(to.is_file(), "disk {} is missing after its copy", to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_disk_gets_its_own_bytes_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path()).unwrap();
        store.create("vol-1", 1).unwrap();
        fs::write(store.path("vol-1"), b"old").unwrap();
        store.share("vol-1", "snap-1").unwrap();
        store.own("vol-1").unwrap();
        fs::write(store.path("vol-1"), b"new").unwrap();
        assert_eq!(fs::read(store.path("snap-1")).unwrap(), b"old");
        assert_eq!(fs::read(store.path("vol-1")).unwrap(), b"new");
    }

    #[test]
    fn a_copy_grows_and_stays_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path()).unwrap();
        store.create("snap-1", 1).unwrap();
        store.copy("snap-1", "vol-1", 8).unwrap();
        let metadata = fs::metadata(store.path("vol-1")).unwrap();
        assert_eq!(metadata.len(), 8 * GIB);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        assert_eq!(store.ids().unwrap(), ["snap-1", "vol-1"]);
    }

    #[test]
    fn removing_a_base_snapshot_leaves_the_base() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(&folder.path().join("disks")).unwrap();
        let base = folder.path().join("base.raw");
        fs::write(&base, b"base").unwrap();
        store.add_base("snap-base", &base);
        assert!(store.exists("snap-base"));
        store.remove("snap-base").unwrap();
        assert!(base.is_file());
        assert!(!store.exists("snap-base"));
    }
}
