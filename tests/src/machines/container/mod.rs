//! Owns one systemd-nspawn container: its root mounted from a raw disk, systemd as PID 1, commands in it.
//! Touches a loop mount, a network namespace, cgroups of its own, and one nspawn process.
//!
//! A container has its root disk only: volumes cannot be plugged into a machine without a kernel of its own.

mod leader;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::command::run;
use super::held::{Held, Records, cgroup_roots, end_cgroups, remove_cgroups, unmount};
use super::namespace::Namespace;
use super::network::Network;
use super::{ExecOutput, MachineSpec};

/// Exit status by which nspawn says that the container asked for a reboot.
pub(super) const REBOOT: i32 = 133;

/// Joins the cgroups whose process lists are the arguments before `--`, then becomes the program after it.
const JOIN: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@""#;

/// Runs the arguments as a child and ends as it did. Outside the container's process namespace, because `nsenter`
/// itself stops as soon as its child is stopped, which systemd does to all processes at the end of a shutdown. Nobody
/// would wake it, so it would not reap the child, and the shutdown would wait minutes for a zombie.
const WAIT: &str = r#""$@"; exit $?"#;

/// How long nspawn may take until PID 1 runs; less than a second on a machine with nothing else to do.
const PID_ONE: Duration = Duration::from_mins(1);

/// Hides the product data of a missing machine from cloud-init: it asks the metadata service all the same.
const CLOUD_INIT: &str = "datasource_list: [Ec2]\ndatasource:\n  Ec2:\n    strict_id: false\n    \
                          metadata_urls: [\"http://169.254.169.254\"]\n";

/// A container whose nspawn was started.
pub(super) struct Container {
    nspawn: i32,
    group: String,
}

impl Container {
    /// Mounts the root disk of `spec` and starts systemd in it.
    pub(super) async fn launch(
        spec: &MachineSpec,
        folder: &Path,
        network: &Network,
        records: &Records,
    ) -> anyhow::Result<(Self, Child)> {
        if let Some(disk) = spec.volumes.first() {
            anyhow::bail!(
                "a container has its root disk only: {} needs a virtual machine",
                disk.volume
            );
        }
        Self::release(spec, folder, network, records).await?;
        let root = root(folder);
        fs::create_dir_all(&root)?;
        records.hold(
            &format!("mount-{}", spec.id),
            &Held::Mount { target: root.clone() },
        )?;
        run(
            "mount",
            [
                "-o".as_ref(),
                "loop".as_ref(),
                spec.root.path.as_os_str(),
                root.as_os_str(),
            ],
        )
        .await?;
        let drop_ins = root.join("etc/cloud/cloud.cfg.d");
        if drop_ins.is_dir() {
            fs::write(drop_ins.join("99-sandbox.cfg"), CLOUD_INIT)?;
        }
        let namespace = network.add_container(spec.address, &spec.id).await?;

        let group = group(network, &spec.id);
        records.hold(
            &format!("cgroups-{}", spec.id),
            &Held::Cgroups { name: group.clone() },
        )?;
        let roots = make_cgroups(&group)?;

        let (key, role) = (
            format!("process-{}", spec.id),
            format!("systemd-nspawn {}", spec.id),
        );
        records.hold_process(&key, &role, None)?;
        let (mark, value) = records.mark();
        let console = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(console(folder))?;
        let mut child = Command::new("sh")
            .args(["-c", JOIN, "sh"])
            .args(process_lists(&group))
            .args([
                "--",
                "systemd-nspawn",
                "--register=no",
                "--keep-unit",
                "--boot",
                "--quiet",
            ])
            .args([
                "--capability=all",
                "--private-users=no",
                "--resolv-conf=off",
                "--timezone=off",
            ])
            // Docker's runc asks for keyrings and BPF; nspawn's own list leaves them out.
            .args([
                "--system-call-filter=@keyring bpf perf_event_open",
                "--link-journal=no",
            ])
            .args(["--console=read-only", "--kill-signal=SIGRTMIN+4"])
            .arg(format!("--machine={}", spec.id))
            .arg(format!("--network-namespace-path={}", namespace.path().display()))
            .arg(format!("--directory={}", root.display()))
            .args(version_one(&roots).then_some("systemd.unified_cgroup_hierarchy=0"))
            .env(mark, value)
            // Docker and Nomad set addresses and forwarding: /proc/sys/net must be writable.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start systemd-nspawn")?;
        records.hold_process(&key, &role, child.id())?;
        let nspawn = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("nspawn ended at once")?;
        let container = Self { nspawn, group };
        container.prepare(&mut child, folder, &spec.id).await?;
        Ok((container, child))
    }

    /// Waits for PID 1, lets cloud-init know EC2, and makes the cgroups inside writable for it, which nspawn mounts
    /// read-only: a Nomad client makes groups of its own there.
    async fn prepare(&self, child: &mut Child, folder: &Path, id: &str) -> anyhow::Result<()> {
        let patience = Instant::now() + PID_ONE;
        let leader = loop {
            if let Some(status) = child.try_wait()? {
                let said = fs::read(console(folder)).unwrap_or_default();
                let said = String::from_utf8_lossy(&said[said.len().saturating_sub(2000)..]).into_owned();
                anyhow::bail!("systemd-nspawn ended with {status}: {}", said.trim());
            }
            if let Some(leader) = leader::of(self.nspawn) {
                break leader;
            }
            anyhow::ensure!(
                Instant::now() < patience,
                "systemd-nspawn of {id} started no PID 1 within {} s",
                PID_ONE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // nspawn's /sys is a small file system of its own: a Xen instance's way to say that it is EC2 fits in,
        // and makes cloud-init use sessions of the metadata service.
        let script = format!(
            "for folder in /sys/fs/cgroup/*/; do mount -o remount,bind,rw \"$folder\"; done\n\
             mount -o remount,bind,rw /sys && mkdir -p /sys/hypervisor && \
             echo {} > /sys/hypervisor/uuid; mount -o remount,bind,ro /sys; true",
            super::virtual_machine::uuid_of(id)
        );
        let target = leader.to_string();
        run("nsenter", ["--target", &target, "--mount", "sh", "-c", &script])
            .await
            .map(drop)
    }

    /// Whether systemd takes orders now.
    pub(super) fn answers(&self) -> bool {
        leader::of(self.nspawn)
            .is_some_and(|leader| Path::new(&format!("/proc/{leader}/root/run/systemd/private")).exists())
    }

    /// Asks systemd to power off; nspawn passes the signal on.
    pub(super) fn press_power_button(&self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.nspawn), Signal::SIGTERM).context("systemd-nspawn is gone")
    }

    /// Asks systemd to reboot, as Ctrl-Alt-Del does.
    pub(super) fn reboot(&self) -> anyhow::Result<()> {
        let leader = leader::of(self.nspawn).context("the container has no PID 1")?;
        kill(Pid::from_raw(leader), Signal::SIGINT).context("PID 1 of the container is gone")
    }

    /// Runs a script in the container's namespaces and groups; kills it and its group at the deadline.
    pub(super) async fn exec(&self, script: &str, deadline: Duration) -> anyhow::Result<ExecOutput> {
        let leader = leader::of(self.nspawn).context("the container has no PID 1")?;
        let mut child = Command::new("sh")
            .args(["-c", JOIN, "sh"])
            .args(process_lists(&self.group))
            .arg("--")
            .args([
                "nsenter",
                "--target",
                &leader.to_string(),
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--cgroup",
                "--no-fork",
            ])
            .args(["sh", "-c", WAIT, "sh"])
            .args(["env", "-i", "HOME=/root", "LANG=C.UTF-8"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-c", "script=$(cat); exec </dev/null; eval \"$script\""])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot enter the container")?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        // Kills what the script started too, at the deadline and when nobody waits any more.
        let _guard = GroupGuard(group);
        let mut input = child
            .stdin
            .take()
            .context("the script's standard input is closed")?;
        let output = async {
            input.write_all(script.as_bytes()).await?;
            drop(input);
            anyhow::Ok(child.wait_with_output().await?)
        };
        let output = tokio::time::timeout(deadline, output).await.with_context(|| {
            format!(
                "the script did not end within {} s and was killed",
                deadline.as_secs()
            )
        })??;
        Ok(ExecOutput {
            status: leader::exit_code(output.status),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    /// Gives back what the host holds for a container that is off: mount, interface, namespace, groups.
    pub(super) async fn release(
        spec: &MachineSpec,
        folder: &Path,
        network: &Network,
        records: &Records,
    ) -> anyhow::Result<()> {
        // PID 1 of a container outlives an nspawn that was killed.
        end_cgroups(&group(network, &spec.id)).await?;
        unmount(&root(folder)).await?;
        records.release(&format!("mount-{}", spec.id));
        network.remove_port(spec.address).await;
        Namespace::named(&network.container_namespace(&spec.id))
            .remove(records)
            .await?;
        remove_cgroups(&group(network, &spec.id))?;
        records.release(&format!("cgroups-{}", spec.id));
        records.release(&format!("process-{}", spec.id));
        Ok(())
    }
}

/// Kills a process group when it is dropped while the group still has its first process.
struct GroupGuard(Option<i32>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A script may leave a daemon behind; one that stayed in the group does not outlive its script.
            let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Where a container's console is written to, below its folder.
pub(super) fn console(folder: &Path) -> PathBuf {
    folder.join("console.log")
}

fn root(folder: &Path) -> PathBuf {
    folder.join("root")
}

fn group(network: &Network, id: &str) -> String {
    network.container_namespace(id)
}

fn version_one(roots: &[PathBuf]) -> bool {
    !roots.iter().any(|root| root == Path::new("/sys/fs/cgroup"))
}

fn process_lists(group: &str) -> Vec<PathBuf> {
    cgroup_roots()
        .into_iter()
        .map(|root| root.join(group).join("cgroup.procs"))
        .collect()
}

/// Makes a group in each hierarchy, so that the container's cgroup namespace hides the host's.
fn make_cgroups(group: &str) -> anyhow::Result<Vec<PathBuf>> {
    let roots = cgroup_roots();
    for root in &roots {
        let folder = root.join(group);
        fs::create_dir(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        // A new group of version 1 has no processor and no memory until it is given some.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if version_one(&roots) && folder.join(file).exists() {
                fs::write(folder.join(file), fs::read(root.join(file))?)?;
            }
        }
    }
    Ok(roots)
}
