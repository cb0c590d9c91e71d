//! Owns the stand-in for Docker's static archive: the binaries of Debian 12's own packages.
//! Touches a cache folder and Debian's archive, through apt-get with a state of its own: nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{PartsError, Say, hex, run};
use crate::work_folder;

/// Packages whose binaries make up the archive.
const PACKAGES: &[&str] = &["containerd", "docker.io", "runc", "tini"];

/// Packages that a machine must have for these binaries: they are linked dynamically, unlike Docker's own.
/// Debian's `systemd` depends on all three.
pub const NEEDED_PACKAGES: &[&str] = &["libdevmapper1.02.1", "libseccomp2", "libsystemd0"];

/// Libraries of [`NEEDED_PACKAGES`] and of the C library. Another one would be missing on a machine.
const LIBRARIES: &[&str] = &[
    "libc.so.6",
    "libdevmapper.so.1.02.1",
    "libseccomp.so.2",
    "libsystemd.so.0",
    "ld-linux-x86-64.so.2",
];

/// Members of Docker's archive, and where Debian's packages have them.
const BINARIES: &[(&str, &str)] = &[
    ("containerd", "usr/bin/containerd"),
    ("containerd-shim-runc-v2", "usr/bin/containerd-shim-runc-v2"),
    ("ctr", "usr/bin/ctr"),
    ("docker", "usr/bin/docker"),
    ("docker-init", "usr/bin/tini-static"),
    ("docker-proxy", "usr/sbin/docker-proxy"),
    ("dockerd", "usr/sbin/dockerd"),
    ("runc", "usr/sbin/runc"),
];

/// The machines of the sandbox are Debian 12, whatever this machine is.
const SOURCES: &str = "\
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security \
bookworm-security main
";

/// Docker's binaries, ready for an archive.
#[derive(Debug)]
pub(super) struct Docker {
    /// Upstream's version, such as `20.10.24`.
    pub version: String,
    /// Folder with nothing but the executables.
    pub executables: PathBuf,
}

/// Fetches and unpacks the packages; `cache` gets a folder that is removed again on failure.
pub(super) fn docker(cache: &Path, say: Say<'_>) -> Result<Docker, PartsError> {
    let folder = cache.join(format!("docker-debian-12-{}", &digest()[..16]));
    let note = folder.join("version");
    if !folder.is_dir() {
        let work = work_folder::make(cache, "docker-fetching-");
        let work = work.map_err(PartsError::io("make a folder in", cache))?;
        fetch(work.path(), say)?;
        std::fs::rename(work.path().join("out"), &folder).map_err(PartsError::io("publish", &folder))?;
    }
    let version = std::fs::read_to_string(&note).map_err(PartsError::io("read", &note))?;
    Ok(Docker {
        version,
        executables: folder.join("bin"),
    })
}

/// Digest of what is fetched and taken.
pub(super) fn digest() -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{PACKAGES:?}{BINARIES:?}{SOURCES}"));
    hex(&hash.finalize())
}

/// Debian 11's Consul, the oldest whose keys the agent knows.
pub(super) const OLD_CONSUL: &str = "1.8.7";

const OLD_SOURCES: &str = "\
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main
";

/// Digest of what [`old_consul`] fetches.
pub(super) fn old_digest() -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{OLD_CONSUL}{OLD_SOURCES}"));
    hex(&hash.finalize())
}

/// Fetches Debian 11's package of Consul and puts its binary at `to`.
pub(super) fn old_consul(cache: &Path, to: &Path, say: Say<'_>) -> Result<(), PartsError> {
    say("consul: fetching Debian 11's package");
    let work = work_folder::make(cache, "consul-fetching-");
    let work = work.map_err(PartsError::io("make a folder in", cache))?;
    let (work, binary) = (work.path(), work.path().join("root/usr/bin/consul"));
    download(work, OLD_SOURCES, &["consul"])?;
    for package in packages(work)? {
        unpack(&package, work)?;
    }
    let said = run::output("consul version", Command::new(&binary).arg("version"))?;
    if !said.contains(OLD_CONSUL) {
        let said = said.lines().next().unwrap_or_default();
        return Err(PartsError::Unfit(format!("Debian 11's Consul says `{said}`")));
    }
    std::fs::copy(&binary, to).map_err(PartsError::io("take", &binary))?;
    Ok(())
}

/// Downloads packages into `work`, with apt-get's lists and archives there too.
fn download(work: &Path, sources: &str, names: &[&str]) -> Result<(), PartsError> {
    for folder in [
        "state/lists/partial",
        "cache/archives/partial",
        "packages",
        "root",
        "out/bin",
    ] {
        let folder = work.join(folder);
        std::fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;
    }
    for (name, text) in [("sources.list", sources), ("state/status", "")] {
        let path = work.join(name);
        std::fs::write(&path, text).map_err(PartsError::io("write", &path))?;
    }
    run::output("apt-get update", apt_get(work).arg("update"))?;
    run::output("apt-get download", apt_get(work).arg("download").args(names))?;
    Ok(())
}

/// Packages that were downloaded.
fn packages(work: &Path) -> Result<Vec<PathBuf>, PartsError> {
    let packages = work.join("packages");
    let entries = std::fs::read_dir(&packages).map_err(PartsError::io("read", &packages))?;
    entries
        .map(|entry| Ok(entry.map_err(PartsError::io("read", &packages))?.path()))
        .collect()
}

/// Unpacks a package into the root of `work`.
fn unpack(package: &Path, work: &Path) -> Result<(), PartsError> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(package).arg(work.join("root"));
    run::output("dpkg-deb", &mut unpack).map(drop)
}

fn fetch(work: &Path, say: Say<'_>) -> Result<(), PartsError> {
    say("docker: fetching Debian 12's packages");
    download(work, SOURCES, PACKAGES)?;
    let mut version = None;
    for package in packages(work)? {
        unpack(&package, work)?;
        let mut show = Command::new("dpkg-deb");
        show.arg("--show")
            .arg("--showformat=${Package} ${Version}")
            .arg(&package);
        if let Some(found) = run::output("dpkg-deb", &mut show)?.strip_prefix("docker.io ") {
            version = Some(upstream_version(found).to_owned());
        }
    }
    let version =
        version.ok_or_else(|| PartsError::Unfit("apt-get downloaded no docker.io package".to_owned()))?;
    for (name, source) in BINARIES {
        let (from, to) = (work.join("root").join(source), work.join("out/bin").join(name));
        check_libraries(&from)?;
        std::fs::rename(&from, &to).map_err(PartsError::io("take", &from))?;
    }
    let note = work.join("out/version");
    std::fs::write(&note, &version).map_err(PartsError::io("write", &note))?;
    say(&format!("docker: {version}"));
    Ok(())
}

/// apt-get with its lists, archives and sources in `work`; the machine's proxy settings still hold.
fn apt_get(work: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(work.join("packages")).env("LC_ALL", "C");
    for (option, value) in [
        (
            "Dir::Etc::sourcelist",
            work.join("sources.list").display().to_string(),
        ),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::State", work.join("state").display().to_string()),
        (
            "Dir::State::status",
            work.join("state/status").display().to_string(),
        ),
        ("Dir::Cache", work.join("cache").display().to_string()),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Architectures", "amd64".to_owned()),
        ("APT::Update::Error-Mode", "any".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
    ] {
        command.arg("-o").arg(format!("{option}={value}"));
    }
    // The folders belong to the caller; apt's own user could not write them.
    if nix::unistd::geteuid().is_root() {
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

/// `20.10.24+dfsg1-1+deb12u1` is upstream's 20.10.24.
fn upstream_version(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

/// Refuses a binary that needs a library which no machine of the sandbox has.
fn check_libraries(binary: &Path) -> Result<(), PartsError> {
    let said = run::output(
        "readelf",
        Command::new("readelf")
            .env("LC_ALL", "C")
            .arg("--dynamic")
            .arg(binary),
    )?;
    let needed = said.lines().filter(|line| line.contains("(NEEDED)"));
    let names = needed.filter_map(|line| line.split_once('[')?.1.split(']').next());
    match names.into_iter().find(|name| !LIBRARIES.contains(name)) {
        None => Ok(()),
        Some(name) => Err(PartsError::Unfit(format!(
            "{} needs {name}: add its package to NEEDED_PACKAGES and to the base disks",
            binary.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_versions_are_cut_to_upstreams() {
        for (debian, upstream) in [
            ("20.10.24+dfsg1-1+deb12u1+b6", "20.10.24"),
            ("1:26.1.5~rc1-2", "26.1.5"),
            ("0.19.0-1+b3", "0.19.0"),
            ("29.0.0", "29.0.0"),
        ] {
            assert_eq!(upstream_version(debian), upstream);
        }
    }
}
