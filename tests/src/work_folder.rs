//! Owns folders that something is made in before it gets its name in a cache: a killed maker's goes with the next.
//! Touches the cache folder.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// A new folder in `parent` whose name begins with `prefix`; it goes when it is dropped. Earlier ones with the prefix are
/// removed: their makers were killed, because the caller holds the lock under which they are made.
pub(crate) fn make(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    tempfile::Builder::new().prefix(prefix).tempdir_in(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_maker_left_goes_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["base-al2-building-x/tree", "base-al2-finished"] {
            std::fs::create_dir_all(parent.path().join(name)).unwrap();
        }
        let made = make(parent.path(), "base-al2-building-").unwrap();
        assert!(made.path().is_dir());
        assert!(!parent.path().join("base-al2-building-x").exists());
        assert!(parent.path().join("base-al2-finished").is_dir());
    }
}
