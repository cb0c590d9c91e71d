//! Owns base disks: the raw root file systems that the sandbox registers as Amazon Linux images.
//! Touches a cache folder, and Debian's archive through `mmdebstrap`, which needs root.
//!
//! Amazon's own images cannot be had everywhere, so these are Debian 12 stand-ins that behave alike where it
//! matters: systemd, cloud-init with the Ec2 source, sshd, and packages as the real image has them.
//! `/etc/cos-stand-in` on the disk says so.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::work_folder;

/// Apparent size of a base disk in bytes; the file is sparse.
const SIZE: u64 = 6 << 30;
const SUITE: &str = "bookworm";

/// What every stand-in holds. Amazon Linux 1 and 2 have iptables, 2023 has not.
const PACKAGES: &[&str] = &[
    "adduser",
    "apt-utils",
    "ca-certificates",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "openssh-server",
    "passwd",
    "procps",
    "qemu-guest-agent",
    "systemd",
    "systemd-sysv",
    "udev",
    "zstd",
];

/// Texts that the recipe lays down beside the script.
const FILES: &[(&str, &str)] = &[
    ("cloud.cfg", include_str!("files/cloud.cfg")),
    ("customize.sh", include_str!("files/customize.sh")),
    ("eth.network", include_str!("files/eth.network")),
    ("initramfs.sh", include_str!("files/initramfs.sh")),
];

/// Which image a base disk stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Amazon Linux 1.
    AmazonLinux1,
    /// Amazon Linux 2.
    AmazonLinux2,
    /// Amazon Linux 2023: no iptables, but a package repository (in the disk) that has it.
    AmazonLinux2023,
}

impl Base {
    /// The recipe's name: Amazon Linux 1 and 2 share one disk.
    fn variant(self) -> &'static str {
        match self {
            Self::AmazonLinux1 | Self::AmazonLinux2 => "al2",
            Self::AmazonLinux2023 => "al2023",
        }
    }

    fn packages(self) -> Vec<&'static str> {
        let mut packages = PACKAGES.to_vec();
        if self != Self::AmazonLinux2023 {
            packages.push("iptables");
        }
        packages
    }
}

/// A base disk that is ready to be copied.
#[derive(Debug, Clone)]
pub struct BaseDisk {
    /// Raw file with one ext4 file system and no partition table.
    pub disk: PathBuf,
    /// The kernel that is also in the disk's `/boot`.
    pub kernel: PathBuf,
    /// The initial file system that is also in the disk's `/boot`.
    pub initrd: PathBuf,
    /// Bytes of the disk as a machine sees it.
    pub size: u64,
    /// How long it took to build; none if it came from the cache.
    pub built_in: Option<Duration>,
}

/// Gives the base disk for `base` that trusts the certificate authority `ca_pem`, and builds it if the cache
/// folder has none of these inputs.
///
/// `progress` gets one line for each step. Fails if a tool is missing or Debian's archive cannot be reached.
pub async fn ensure(
    cache: &Path,
    base: Base,
    ca_pem: &str,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<BaseDisk> {
    let key = digest(base, ca_pem);
    let finished = cache.join(format!("base-{}-{}", base.variant(), &key[..16]));
    let found = |built_in| BaseDisk {
        disk: finished.join("disk.raw"),
        kernel: finished.join("vmlinuz"),
        initrd: finished.join("initrd.img"),
        size: SIZE,
        built_in,
    };
    if finished.is_dir() {
        return Ok(found(None));
    }
    std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // One builder at a time: a second caller waits and then finds the finished disk.
    let lock = std::fs::File::create(cache.join(format!("base-{}.lock", base.variant())))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if finished.is_dir() {
        return Ok(found(None));
    }
    let began = Instant::now();
    let work = work_folder::make(cache, &format!("base-{}-building-", base.variant()))?;
    std::fs::set_permissions(work.path(), std::fs::Permissions::from_mode(0o755))?;
    build(work.path(), base, ca_pem, &mut progress).await?;
    match std::fs::rename(work.path().join("out"), &finished) {
        Ok(()) => {}
        Err(_) if finished.is_dir() => {}
        Err(error) => return Err(error).context("cannot publish the base disk"),
    }
    drop(lock);
    progress(&format!("base disk {} is ready", base.variant()));
    Ok(found(Some(began.elapsed())))
}

/// Digest of all that decides the bytes of a disk, but for the state of Debian's archive.
fn digest(base: Base, ca_pem: &str) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(SUITE);
    add(&SIZE.to_string());
    add(base.variant());
    add(&base.packages().join(" "));
    for (name, text) in FILES {
        add(name);
        add(text);
    }
    add(ca_pem);
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _cannot_fail = write!(text, "{byte:02x}");
        text
    })
}

async fn build(work: &Path, base: Base, ca_pem: &str, progress: &mut impl FnMut(&str)) -> anyhow::Result<()> {
    let (files, tree, out) = (work.join("files"), work.join("tree"), work.join("out"));
    std::fs::create_dir(&files)?;
    std::fs::create_dir(&out)?;
    for (name, text) in FILES {
        let path = files.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::write(files.join("sandbox-ca.pem"), ca_pem)?;

    progress("mmdebstrap: Debian 12 packages into a tree");
    // In namespaces of its own, so that a kill leaves neither mounts in the tree nor a half-run dpkg.
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "mmdebstrap",
        ])
        .env("FILES", &files)
        .env("VARIANT", base.variant())
        .args(["--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists"])
        .arg(format!("--include={}", base.packages().join(",")))
        .args([
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "--dpkgopt=force-confold",
        ])
        .args(["man", "doc", "locale"].map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")))
        .arg("--essential-hook=\"$FILES/initramfs.sh\" \"$1\"")
        .arg("--customize-hook=\"$FILES/customize.sh\" \"$1\"")
        .arg(SUITE)
        .arg(&tree);
    run(command).await?;

    progress("mke2fs: the tree into a raw disk");
    let disk = out.join("disk.raw");
    std::fs::File::create(&disk)?.set_len(SIZE)?;
    let mut command = Command::new("mke2fs");
    command
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
        .arg(&tree)
        .arg(&disk);
    run(command).await?;
    for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        let source = std::fs::read_dir(tree.join("boot"))?
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .with_context(|| format!("the tree has no /boot/{prefix}*"))?;
        std::fs::copy(source.path(), out.join(name))?;
    }
    Ok(())
}

/// Runs a tool to its end; its last lines of talk go into the error.
async fn run(mut command: Command) -> anyhow::Result<()> {
    let program: OsString = command.as_std().get_program().to_owned();
    let name = program.to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let talk = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = talk.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    bail!("{name} ended with {}:\n{tail}", output.status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_every_input() {
        let one = digest(Base::AmazonLinux2, "a");
        assert_eq!(
            one,
            digest(Base::AmazonLinux1, "a"),
            "Amazon Linux 1 and 2 share one disk"
        );
        assert_ne!(one, digest(Base::AmazonLinux2023, "a"));
        assert_ne!(one, digest(Base::AmazonLinux2, "b"));
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn only_amazon_linux_2023_lacks_iptables() {
        assert!(Base::AmazonLinux2.packages().contains(&"iptables"));
        assert!(!Base::AmazonLinux2023.packages().contains(&"iptables"));
    }
}
