//! Owns the folder of bundles: how many are kept, and which.
//! Touches that folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::release::remove_remains;

/// Bundles that are kept however old they are: one for each architecture, and the ones before.
const KEPT: usize = 4;

/// A bundle that was used so lately may have been found by a bake that has not opened it yet. Once it is open it
/// outlives its name.
const IN_USE: Duration = Duration::from_hours(1);

/// Notes that a bundle is used now. Where the cache may only be read, nobody prunes it either.
pub(super) fn used(tar: &Path) {
    let _ = File::options()
        .append(true)
        .open(tar)
        .and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes the bundles that were not used for longest, and what killed bakes left half-way. What cannot be removed
/// stays: a cache that cannot be tidied fails no bake.
pub(super) fn prune(folder: &Path, now: SystemTime) {
    let _ = remove_remains(folder);
    let mut bundles = bundles(folder);
    bundles.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    for (used, tar) in bundles.into_iter().skip(KEPT) {
        if now.duration_since(used).is_ok_and(|age| age > IN_USE) {
            // The tar goes last: as long as it is there it is found here again.
            let _ = fs::remove_file(tar.with_extension("sha256"));
            let _ = fs::remove_file(tar);
        }
    }
}

/// All bundles, each with the time of its last use.
fn bundles(folder: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let tars = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "tar"));
    tars.filter_map(|tar| Some((tar.metadata().ok()?.modified().ok()?, tar.path())))
        .collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// A folder with one bundle for each number of hours since its last use.
    fn shelf(hours: impl IntoIterator<Item = u32>) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for age in hours {
            let tar = folder.path().join(format!("{age}.tar"));
            fs::write(tar.with_extension("sha256"), "digest").unwrap();
            let file = File::create(tar).unwrap();
            file.set_modified(SystemTime::now() - HOUR * age).unwrap();
        }
        folder
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_bundles_that_were_used_last_are_kept() {
        let folder = shelf([2, 3, 4, 5, 6, 7]);
        prune(folder.path(), SystemTime::now());
        let kept = ["2", "3", "4", "5"].map(|age| [format!("{age}.sha256"), format!("{age}.tar")]);
        assert_eq!(names(&folder), kept.concat());
    }

    #[test]
    fn a_bundle_that_may_be_in_use_is_never_removed() {
        let folder = shelf([2, 3, 4, 5, 6, 7]);
        used(&folder.path().join("7.tar"));
        prune(folder.path(), SystemTime::now());
        assert!(names(&folder).contains(&"7.tar".to_owned()));
        let now = SystemTime::now();
        let folder = shelf([0; 1]);
        for name in 0..9 {
            fs::write(folder.path().join(format!("new-{name}.tar")), "").unwrap();
        }
        prune(folder.path(), now);
        assert_eq!(names(&folder).len(), 2 + 9);
    }

    #[test]
    fn a_bundle_without_its_digest_is_removed_as_well() {
        let folder = shelf([2, 3, 4, 5, 6]);
        fs::remove_file(folder.path().join("6.sha256")).unwrap();
        prune(folder.path(), SystemTime::now());
        assert!(!names(&folder).contains(&"6.tar".to_owned()));
    }
}
