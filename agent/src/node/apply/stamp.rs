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

/// What a running unit was started with, if that is known. It holds only while the unit's files are what they were.
pub(super) fn read(files: &Files, unit: Unit) -> Result<Option<String>, FileError> {
    if let Some(stamp) = text(files, &of_this_boot(unit))? {
        return Ok(Some(stamp.trim().to_owned()));
    }
    let Some(boot) = text(files, BOOT_ID)? else {
        return Ok(None);
    };
    let stamp = text(files, &lasting(unit))?.unwrap_or_default();
    let mut lines = stamp.lines();
    let earlier = lines
        .next()
        .is_some_and(|then| !then.is_empty() && then != boot.trim());
    Ok(lines.next().filter(|_| earlier).map(str::to_owned))
}

/// Keeps it.
pub(super) fn write(files: &Files, unit: Unit, digest: &str) -> Result<(), FileError> {
    // The lasting one first: without the other it says nothing in this boot.
    if let Some(boot) = text(files, BOOT_ID)? {
        let text = format!("{}\n{digest}\n", boot.trim());
        files.write_atomic(lasting(unit), text.as_bytes(), 0o644)?;
    }
    files.write_atomic(of_this_boot(unit), digest.as_bytes(), 0o644)
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
        let stamp = || read(&files, Unit::Consul).unwrap();
        boot("first");
        assert_eq!(stamp(), None);
        write(&files, Unit::Consul, "digest").unwrap();
        assert_eq!(stamp().as_deref(), Some("digest"));
        // Somebody took away the note of this boot: what ran since is not known.
        files.remove("/run").unwrap();
        assert_eq!(stamp(), None);
        boot("second");
        assert_eq!(stamp().as_deref(), Some("digest"));
        forget(&files, Unit::Consul).unwrap();
        assert_eq!(stamp(), None);
        // A machine that does not tell its boots has the one note only.
        files.remove(BOOT_ID).unwrap();
        write(&files, Unit::Consul, "digest").unwrap();
        assert_eq!(stamp().as_deref(), Some("digest"));
        files.remove("/run").unwrap();
        assert_eq!(stamp(), None);
    }
}
