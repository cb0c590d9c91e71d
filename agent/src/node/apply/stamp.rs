//! Owns the note of what a unit was started with, on which rests that nothing is restarted that need not be.
//! Touches two files for each unit.
//!
//! One is in `/run`, which a boot empties. The other outlives it and holds the boot in which it was written: in any later
//! boot the service manager started the unit by itself, with what lay on disk, which was that very content.

use crate::host::{FileError, Files};
use crate::node::render::Unit;

/// The kernel makes another one at each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn of_this_boot(unit: Unit) -> String {
    format!("/run/cos-agent/started/{}", unit.name())
}

fn lasting(unit: Unit) -> String {
    format!("/var/lib/cos-agent/started/{}", unit.name())
}

/// What a running unit was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Digest of it; none if it is not known.
    pub(super) started_with: Option<String>,
    /// Digest of what it read again since.
    pub(super) reloaded: Option<String>,
}

impl Stamp {
    fn of<'a>(mut lines: impl Iterator<Item = &'a str>) -> Self {
        let mut digest = || {
            lines
                .next()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
        };
        Self {
            started_with: digest(),
            reloaded: digest(),
        }
    }
}

/// What a unit that runs was started with. It holds only while the unit's files are what they were.
pub(super) fn read(files: &Files, unit: Unit) -> Result<Stamp, FileError> {
    if let Some(stamp) = text(files, &of_this_boot(unit))? {
        return Ok(Stamp::of(stamp.lines()));
    }
    let Some(boot) = text(files, BOOT_ID)? else {
        return Ok(Stamp::default());
    };
    let stamp = text(files, &lasting(unit))?.unwrap_or_default();
    let mut lines = stamp.lines();
    let earlier = lines
        .next()
        .is_some_and(|then| !then.is_empty() && then != boot.trim());
    Ok(if earlier {
        Stamp::of(lines)
    } else {
        Stamp::default()
    })
}

/// Keeps it.
pub(super) fn write(files: &Files, unit: Unit, stamp: &Stamp) -> Result<(), FileError> {
    let digests: Vec<&str> = stamp
        .started_with
        .iter()
        .chain(&stamp.reloaded)
        .map(String::as_str)
        .collect();
    let digests = digests.join("\n");
    // The lasting one first: without the other it says nothing in this boot.
    if let Some(boot) = text(files, BOOT_ID)? {
        let text = format!("{}\n{digests}\n", boot.trim());
        files.write_atomic(lasting(unit), text.as_bytes(), 0o644)?;
    }
    files.write_atomic(of_this_boot(unit), digests.as_bytes(), 0o644)
}

/// Forgets it.
pub(super) fn forget(files: &Files, unit: Unit) -> Result<(), FileError> {
    // The lasting one first, for the same reason.
    files.remove(lasting(unit))?;
    files.remove(of_this_boot(unit))
}

fn text(files: &Files, path: &str) -> Result<Option<String>, FileError> {
    Ok(files
        .read(path)?
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_outlives_a_boot_and_says_nothing_more_in_its_own() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let boot = |id: &str| {
            files.remove("/run").unwrap();
            files
                .write_atomic(BOOT_ID, format!("{id}\n").as_bytes(), 0o444)
                .unwrap();
        };
        let read = || read(&files, Unit::Consul).unwrap();
        let stamp = Stamp {
            started_with: Some("digest".to_owned()),
            reloaded: Some("another".to_owned()),
        };
        let nothing = Stamp::default();
        boot("first");
        assert_eq!(read(), nothing);
        write(&files, Unit::Consul, &stamp).unwrap();
        assert_eq!(read(), stamp);
        // Somebody took away the note of this boot: what ran since is not known.
        files.remove("/run").unwrap();
        assert_eq!(read(), nothing);
        boot("second");
        assert_eq!(read(), stamp);
        forget(&files, Unit::Consul).unwrap();
        assert_eq!(read(), nothing);
        // A machine that does not tell its boots has the one note only.
        files.remove(BOOT_ID).unwrap();
        let without = Stamp {
            reloaded: None,
            ..stamp
        };
        write(&files, Unit::Consul, &without).unwrap();
        assert_eq!(read(), without);
        files.remove("/run").unwrap();
        assert_eq!(read(), nothing);
    }
}
