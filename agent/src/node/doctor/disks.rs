//! Owns whether the node's file systems have room, and can be written.
//! Touches the file systems (asking for their state).

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Case, Finding};

/// What a node writes to.
const PLACES: [&str; 9] = [
    "/",
    "/etc",
    "/var",
    "/var/log",
    "/var/lib/docker",
    "/var/lib/cos-agent",
    "/opt/consul/data",
    "/opt/nomad/data",
    "/tmp",
];

/// A file system as statvfs(3) tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    bytes: u64,
    available: u64,
    /// Zero where a file system makes them as it needs them.
    inodes: u64,
    inodes_available: u64,
    read_only: bool,
}

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let mounts = case
        .record
        .iter()
        .flat_map(|record| &record.mounts)
        .map(|mount| mount.point.as_str());
    // Several places may be one file system: it is told once, by its first.
    let mut seen: BTreeMap<u64, (String, Space)> = BTreeMap::new();
    for place in PLACES.into_iter().chain(mounts) {
        let path = case.files().locate(place);
        if let (Some(device), Some(space)) = (device(&path), space(&path)) {
            seen.entry(device).or_insert_with(|| (place.to_owned(), space));
        }
    }
    seen.into_values()
        .flat_map(|(place, space)| judge(&place, space))
        .collect()
}

fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

fn space(path: &Path) -> Option<Space> {
    let told = statvfs(path).ok()?;
    Some(Space {
        bytes: told.blocks() * told.fragment_size(),
        available: told.blocks_available() * told.fragment_size(),
        inodes: told.files(),
        inodes_available: told.files_available(),
        read_only: told.flags().contains(FsFlags::ST_RDONLY),
    })
}

fn judge(place: &str, space: Space) -> Vec<Finding> {
    let mut findings = Vec::new();
    if space.read_only {
        findings.push(Finding::fault(
            format!("the file system of {place} cannot be written"),
            format!("{place} is mounted read-only"),
            "dmesg | grep -iE 'remount|i/o error|xfs|ext4'; a volume that failed must be replaced",
        ));
    }
    let fix = "du -xh --max-depth 2 DIRECTORY | sort -h; docker system prune; journalctl --vacuum-size 200M";
    for (what, available, all) in [
        ("room", space.available, space.bytes),
        ("inodes", space.inodes_available, space.inodes),
    ] {
        if all == 0 || available >= all / 20 {
            continue;
        }
        let fact = format!("the file system of {place} has little {what} left");
        let evidence = match what {
            "room" => format!("{} of {} MiB are free", available >> 20, all >> 20),
            _ => format!("{available} of {all} are free"),
        };
        let fix = fix.replace("DIRECTORY", place);
        findings.push(if available < all / 100 {
            Finding::fault(fact.replace("little", "no"), evidence, fix)
        } else {
            Finding::warning(fact, evidence, fix)
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn room_and_inodes_are_told_apart() {
        let good = Space {
            bytes: 100 << 30,
            available: 50 << 30,
            inodes: 1000,
            inodes_available: 900,
            read_only: false,
        };
        let told = |space: Space| -> Vec<(Severity, String)> {
            let findings = judge("/var", space);
            findings
                .into_iter()
                .map(|finding| (finding.severity, finding.fact))
                .collect()
        };
        assert_eq!(told(good), []);
        // A file system without a fixed number of inodes.
        assert_eq!(
            told(Space {
                inodes: 0,
                inodes_available: 0,
                ..good
            }),
            []
        );
        let words = |severity, text: &str| vec![(severity, format!("the file system of /var {text}"))];
        let low = Space {
            available: 4 << 30,
            ..good
        };
        assert_eq!(told(low), words(Severity::Warning, "has little room left"));
        let full = Space {
            inodes_available: 9,
            ..good
        };
        assert_eq!(told(full), words(Severity::Fault, "has no inodes left"));
        let read_only = Space {
            read_only: true,
            ..good
        };
        assert_eq!(told(read_only), words(Severity::Fault, "cannot be written"));
    }

    #[test]
    fn this_machines_root_has_a_size() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.bytes > space.available);
    }
}
