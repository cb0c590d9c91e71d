//! Owns the record of all that a fleet holds on this host, written before each thing is made, and its end.
//! Touches one folder of records; and the namespaces, mounts, cgroups and processes that they name.
//!
//! Processes are found by a mark in their environment as well as by number and start time: a fleet that was
//! killed between making a process and recording its number still finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::command::run;

/// Environment variable that marks a fleet's processes; its value is the fleet's folder of records.
const MARK: &str = "COS_SANDBOX_HELD";

/// One thing that a fleet holds on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Held {
    /// A network namespace, with all interfaces in it.
    Namespace {
        /// Its name for `ip netns`.
        name: String,
    },
    /// A mount, with its loop device if it has one.
    Mount {
        /// Where it is mounted.
        target: PathBuf,
    },
    /// One cgroup of this name in each hierarchy.
    Cgroups {
        /// Name of the group below each hierarchy's root.
        name: String,
    },
    /// A process that serves the fleet.
    Process {
        /// What it does, such as `qemu i-0123`.
        role: String,
        /// Its number; none while it is being started.
        pid: Option<i32>,
        /// Its start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
        started: Option<u64>,
    },
}

/// The folder of records of one fleet.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Opens the folder, and makes it if it is not there.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.canonicalize()?,
        })
    }

    /// Writes that `key` is about to be held. To be called before the thing is made.
    pub(crate) fn hold(&self, key: &str, held: &Held) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{key}"));
        fs::write(&temporary, serde_json::to_vec(held)?)?;
        fs::rename(&temporary, self.folder.join(format!("{key}.json")))
    }

    /// Writes which process it became, after it was started.
    pub(crate) fn hold_process(&self, key: &str, role: &str, pid: Option<u32>) -> io::Result<()> {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        let started = pid.and_then(start_time);
        self.hold(
            key,
            &Held::Process {
                role: role.to_owned(),
                pid,
                started,
            },
        )
    }

    /// Forgets `key`, after the thing is gone.
    pub(crate) fn release(&self, key: &str) {
        let _gone = fs::remove_file(self.folder.join(format!("{key}.json")));
    }

    /// All that is held now, by key.
    pub(crate) fn all(&self) -> Vec<(String, Held)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut all: Vec<(String, Held)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let key = name.strip_suffix(".json")?.to_owned();
                Some((key, serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?))
            })
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// The mark that every process of this fleet carries in its environment.
    pub(crate) fn mark(&self) -> (&'static str, PathBuf) {
        (MARK, self.folder.clone())
    }

    /// Ends and removes everything that is held; returns what there was, in words. Safe to repeat.
    pub(crate) async fn clean(&self) -> anyhow::Result<Vec<String>> {
        let all = self.all();
        let mut told = Vec::new();
        let patience = Instant::now() + Duration::from_secs(15);
        loop {
            let mut pids = self.marked();
            for (_, held) in &all {
                match held {
                    Held::Process {
                        pid: Some(pid),
                        started,
                        ..
                    } if started.is_some() && start_time(*pid) == *started => {
                        pids.push(*pid);
                    }
                    Held::Namespace { name } => pids.extend(in_namespace(name).await),
                    Held::Cgroups { name } => pids.extend(in_cgroups(name)),
                    _ => {}
                }
            }
            pids.retain(|pid| *pid != own_pid() && !is_zombie(*pid));
            pids.sort_unstable();
            pids.dedup();
            if pids.is_empty() {
                break;
            }
            anyhow::ensure!(Instant::now() < patience, "processes {pids:?} do not end");
            for pid in pids {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Mounts before the namespaces and groups that their processes lived in.
        for (key, held) in &all {
            match held {
                Held::Mount { target } => {
                    unmount(target).await?;
                    told.push(format!("mount {}", target.display()));
                }
                Held::Process { role, .. } => told.push(format!("process {role}")),
                Held::Namespace { name } => {
                    delete_namespace(name).await?;
                    told.push(format!("network namespace {name}"));
                }
                Held::Cgroups { name } => {
                    remove_cgroups(name)?;
                    told.push(format!("cgroups {name}"));
                }
            }
            self.release(key);
        }
        Ok(told)
    }

    fn marked(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.folder.display()).into_bytes();
        numbers_in("/proc")
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|item| item == mark))
            })
            .collect()
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

fn numbers_in(folder: &str) -> impl Iterator<Item = i32> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` after the program's name; the first is the state.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

async fn in_namespace(name: &str) -> Vec<i32> {
    if !namespace_path(name).exists() {
        return Vec::new();
    }
    let listed = run("ip", ["netns", "pids", name]).await.unwrap_or_default();
    String::from_utf8_lossy(&listed)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Where `ip netns` keeps a namespace of this name.
pub(crate) fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Removes a network namespace if it is there.
pub(crate) async fn delete_namespace(name: &str) -> anyhow::Result<()> {
    if namespace_path(name).exists() {
        run("ip", ["netns", "delete", name]).await?;
    }
    Ok(())
}

/// Unmounts what is mounted at `target`, lazily if something still uses it, and waits until its disk is free: a process
/// with a mount namespace of its own keeps the file system alive until it has ended, however soon `umount` returned.
pub(crate) async fn unmount(target: &Path) -> anyhow::Result<()> {
    let device = mounted(target);
    let backing = device.as_deref().and_then(backing_file);
    for attempt in 0..50 {
        if mounted(target).is_none() {
            break;
        }
        if run("umount", [target]).await.is_err() && attempt > 20 {
            run("umount", [Path::new("--lazy"), target]).await?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::ensure!(mounted(target).is_none(), "{} stays mounted", target.display());
    let (Some(device), Some(file)) = (device, backing) else {
        return Ok(());
    };
    for _ in 0..500 {
        // The kernel lets go of the file with the last mount; the device may serve another one by now.
        if backing_file(&device).as_ref() != Some(&file) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("{file} is unmounted here, and stays in use in another mount namespace")
}

/// What is mounted at `target`: a device, or the name of what is none.
fn mounted(target: &Path) -> Option<String> {
    let wanted = target.to_string_lossy().into_owned();
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let here = before.split(' ').nth(4) == Some(wanted.as_str());
        let source = after.split(' ').nth(1)?;
        here.then(|| source.to_owned())
    })
}

/// The file behind a loop device; none if it serves none.
fn backing_file(device: &str) -> Option<String> {
    let name = device.strip_prefix("/dev/")?;
    let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(file.trim_end().to_owned())
}

/// The root of each cgroup hierarchy of this host; one for version 2, several for version 1.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut roots: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let target = before.split(' ').nth(4)?;
            (matches!(kind, "cgroup" | "cgroup2") && target.starts_with("/sys/fs/cgroup"))
                .then(|| PathBuf::from(target))
        })
        .collect();
    roots.sort();
    roots.dedup();
    roots
}

/// All processes in the group `name` and the groups below it.
fn in_cgroups(name: &str) -> Vec<i32> {
    fn collect(folder: &Path, found: &mut Vec<i32>) {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for root in cgroup_roots() {
        collect(&root.join(name), &mut found);
    }
    found.sort_unstable();
    found.dedup();
    // A process of a pid namespace that this one cannot see is listed as 0.
    found.retain(|pid| *pid > 0);
    found
}

/// Kills all processes in the group `name` and waits until they are gone, at most ten seconds.
pub(crate) async fn end_cgroups(name: &str) -> anyhow::Result<()> {
    for _ in 0..200 {
        let mut pids = in_cgroups(name);
        pids.retain(|pid| !is_zombie(*pid));
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("processes of the cgroup {name} do not end");
}

/// Removes the group `name` and all groups below it, in each hierarchy. Its processes must be gone.
pub(crate) fn remove_cgroups(name: &str) -> anyhow::Result<()> {
    fn remove(folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        let mut last = Ok(());
        // The kernel needs a moment after the last process of a group has gone.
        for _ in 0..50 {
            last = fs::remove_dir(folder);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        last
    }
    for root in cgroup_roots() {
        let folder = root.join(name);
        if folder.is_dir() {
            remove(&folder).with_context(|| format!("cannot remove the cgroup {}", folder.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_held_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let held = Held::Mount {
            target: PathBuf::from("/x"),
        };
        records.hold("mount-x", &held).unwrap();
        assert_eq!(records.all(), [("mount-x".to_owned(), held)]);
        records.release("mount-x");
        assert!(records.all().is_empty());
    }

    #[tokio::test]
    async fn a_marked_process_that_was_never_recorded_is_found_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let (name, value) = records.mark();
        let mut child = Command::new("sleep")
            .arg("600")
            .env(name, value)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        records.hold_process("process-x", "sleep", None).unwrap();
        let told = records.clean().await.unwrap();
        assert_eq!(told, ["process sleep"]);
        assert!(!child.wait().unwrap().success(), "it was killed");
        assert!(records.all().is_empty());
    }

    #[tokio::test]
    async fn a_disk_is_free_only_when_no_mount_namespace_has_it() {
        if !nix::unistd::Uid::effective().is_root() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this as root: it mounts"
            );
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (disk, target) = (folder.path().join("disk"), folder.path().join("root"));
        let file = fs::File::create(&disk).unwrap();
        file.set_len(4 << 20).unwrap();
        fs::create_dir(&target).unwrap();
        let disk = disk.as_os_str();
        run("mke2fs", ["-q".as_ref(), "-t".as_ref(), "ext4".as_ref(), disk])
            .await
            .unwrap();
        run(
            "mount",
            ["-o".as_ref(), "loop".as_ref(), disk, target.as_os_str()],
        )
        .await
        .unwrap();
        let mut other = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sleep", "1"])
            .spawn()
            .unwrap();
        // Until it has its own namespace.
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        while fs::read_link(format!("/proc/{}/ns/mnt", other.id())).unwrap() == own {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        unmount(&target).await.unwrap();
        let waited = start.elapsed();
        assert!(
            waited > Duration::from_millis(500),
            "it was told free after {waited:?}"
        );
        run("e2fsck", ["-f".as_ref(), "-n".as_ref(), disk]).await.unwrap();
        assert!(other.wait().unwrap().success());
    }

    #[tokio::test]
    async fn a_process_number_that_another_process_has_now_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let mut child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let held = Held::Process {
            role: "other".to_owned(),
            pid: Some(pid),
            started: Some(1),
        };
        records.hold("process-x", &held).unwrap();
        records.clean().await.unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
