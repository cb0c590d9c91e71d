//! Owns taking kernel and initial file system out of a root disk, as a boot loader would.
//! Touches the disk file with `debugfs`, which only reads, and writes two files beside the machine's sockets.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::super::command::run;

/// Kernel and initial file system of a disk.
pub(super) struct BootFiles {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

/// Copies the newest kernel in the disk's `/boot`, and its initial file system, into `folder`.
pub(super) async fn extract(disk: &Path, folder: &Path) -> anyhow::Result<BootFiles> {
    let listed = debugfs("ls -p /boot", disk).await?;
    let version = newest(&listed)
        .with_context(|| format!("{} has no kernel with an initrd in /boot", disk.display()))?;
    let files = BootFiles {
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.img"),
    };
    for (name, target) in [("vmlinuz", &files.kernel), ("initrd.img", &files.initrd)] {
        debugfs(&format!("dump /boot/{name}-{version} {}", quoted(target)), disk).await?;
        let size = std::fs::metadata(target).map_or(0, |metadata| metadata.len());
        anyhow::ensure!(
            size > 0,
            "/boot/{name}-{version} could not be read from {}",
            disk.display()
        );
    }
    Ok(files)
}

async fn debugfs(request: &str, disk: &Path) -> anyhow::Result<String> {
    // `-c` does not read the bitmaps: a disk that lost its power is readable all the same.
    let output = run(
        "debugfs",
        ["-c".as_ref(), "-R".as_ref(), request.as_ref(), disk.as_os_str()],
    )
    .await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// The highest version of which a `ls -p` listing has both files; lines are `/inode/mode/uid/gid/name/size/`.
fn newest(listed: &str) -> Option<String> {
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('/').nth(5)).collect();
    let key = |version: &str| -> Vec<u64> {
        version
            .split(|sign: char| !sign.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    names
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-"))
        .filter(|version| names.contains(&format!("initrd.img-{version}").as_str()))
        .max_by_key(|version| key(version))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_kernel_is_taken() {
        let listed = "/12/040755/0/0/.//\n\
            /13/100644/0/0/vmlinuz-6.1.0-9-cloud-amd64/10/\n\
            /14/100644/0/0/initrd.img-6.1.0-9-cloud-amd64/10/\n\
            /15/100644/0/0/vmlinuz-6.1.0-56-cloud-amd64/10/\n\
            /16/100644/0/0/initrd.img-6.1.0-56-cloud-amd64/10/\n\
            /17/100644/0/0/vmlinuz-6.1.0-57-cloud-amd64/10/\n";
        assert_eq!(newest(listed).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("/12/040755/0/0/.//\n"), None);
    }
}
