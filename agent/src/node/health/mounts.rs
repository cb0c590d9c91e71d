//! Owns whether a file system is mounted where it should be, and whether it is the right one.
//! Touches `/proc/self/mountinfo` and device nodes (asking for their numbers).

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::host::Files;
use crate::node::render::ExpectedMount;

use super::failure::Failure;

/// One line of mountinfo, as proc(5) has it.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    /// Major and minor number of the device.
    device: String,
    point: String,
    source: String,
}

/// Checks all of them; the first that is wrong is told.
pub(super) fn check(expected: &[ExpectedMount], files: &Files) -> Result<String, Failure> {
    let mountinfo = files
        .read("/proc/self/mountinfo")
        .map_err(|error| Failure::passing(format!("{error}: {}", error.source)))?
        .unwrap_or_default();
    let mounted: Vec<Mounted> = String::from_utf8_lossy(&mountinfo)
        .lines()
        .filter_map(parse)
        .collect();
    for mount in expected {
        // What was mounted last at a place is what is seen there.
        let Some(seen) = mounted.iter().rev().find(|seen| seen.point == mount.point) else {
            let reason = format!("nothing is mounted at {}", mount.point);
            return Err(Failure::passing(reason).hint("lsblk --fs; systemctl list-units --type mount --all"));
        };
        if let Some(source) = &mount.source {
            same(source, seen, files).map_err(|found| {
                let reason = format!("{} has {found}, not {source}", mount.point);
                Failure::hard(reason).hint("umount it; cos-agent apply mounts what the configuration names")
            })?;
        }
    }
    let points: Vec<&str> = expected.iter().map(|mount| mount.point.as_str()).collect();
    Ok(format!("mounted: {}", points.join(", ")))
}

/// A device is the same whatever its name; what is no device goes by its name. The error is what was found.
fn same(expected: &str, seen: &Mounted, files: &Files) -> Result<(), String> {
    if expected == seen.source {
        return Ok(());
    }
    let metadata = std::fs::metadata(files.locate(expected)).ok();
    let device = metadata.filter(|metadata| metadata.file_type().is_block_device());
    let device = device.map(|metadata| numbers(metadata.rdev()));
    if device.as_ref() == Some(&seen.device) {
        return Ok(());
    }
    Err(format!("{} ({})", seen.source, seen.device))
}

/// Major and minor number as mountinfo writes them; how they are packed is the C library's.
fn numbers(device: u64) -> String {
    format!(
        "{}:{}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    )
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let device = before.nth(2)?.to_owned();
    let point = unescape(before.nth(1)?);
    let source = unescape(after.split(' ').nth(1)?);
    Some(Mounted {
        device,
        point,
        source,
    })
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let octal = others.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(*first));
        rest = if value.is_some() { &others[3..] } else { others };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 259:1 / / rw,relatime shared:1 - xfs /dev/nvme0n1p1 rw
40 22 259:3 / /srv/data rw,noatime shared:2 - xfs /dev/nvme1n1 rw
41 22 0:52 / /efs rw shared:3 - nfs4 127.0.0.1:/ rw
42 22 7:3 / /srv/a\\040b rw - ext4 /dev/loop3 rw
43 40 259:9 / /srv/data rw - ext4 /dev/nvme2n1 rw
";

    fn machine() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        files
            .write_atomic("/proc/self/mountinfo", MOUNTINFO.as_bytes(), 0o444)
            .unwrap();
        (folder, files)
    }

    fn expected(point: &str, source: Option<&str>) -> ExpectedMount {
        ExpectedMount {
            point: point.to_owned(),
            source: source.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_mounted_is_found_and_what_hides_it_is_seen() {
        let (_folder, files) = machine();
        for (point, source) in [
            ("/efs", Some("127.0.0.1:/")),
            ("/efs", None),
            ("/srv/a b", Some("/dev/loop3")),
            ("/srv/data", Some("/dev/nvme2n1")),
        ] {
            check(&[expected(point, source)], &files)
                .unwrap_or_else(|failure| panic!("{point}: {failure:?}"));
        }
        let failure = check(&[expected("/srv/data", Some("/dev/nvme1n1"))], &files).unwrap_err();
        assert_eq!(
            failure.reason,
            "/srv/data has /dev/nvme2n1 (259:9), not /dev/nvme1n1"
        );
        assert!(failure.hard);
        let failure = check(&[expected("/efs", None), expected("/none", None)], &files).unwrap_err();
        assert_eq!(failure.reason, "nothing is mounted at /none");
        assert!(!failure.hard);
    }

    #[test]
    fn this_machines_own_root_is_known_by_its_numbers() {
        let files = Files::new("/");
        let told = check(&[expected("/", None)], &files).unwrap();
        assert_eq!(told, "mounted: /");
        assert_eq!(numbers(nix::sys::stat::makedev(259, 300)), "259:300");
    }
}
