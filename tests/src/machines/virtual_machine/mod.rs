//! Owns one QEMU virtual machine: its launch, its disks while it runs, the power button, commands in it.
//! Touches a QEMU process in the VPC's namespace, its sockets, and the machine's disk files.
//!
//! Emulated (TCG): the processor's virtualisation is not used, because it hangs guests where it is nested badly.
//! A reboot keeps the kernel that was in `/boot` when QEMU started.

mod boot_files;
mod guest;
mod monitor;
mod socket;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use self::guest::Guest;
use self::monitor::{Monitor, wait_for_device_event};
use super::held::Records;
use super::network::{Network, mac};
use super::{Disk, ExecOutput, MachineSpec};

/// Root disk and volumes that a machine can have at one time: one PCIe port each.
const PORTS: usize = 8;
const MEMORY_MIB: u32 = 1536;
const MONITOR: &str = "monitor.sock";
const AGENT: &str = "agent.sock";

/// A virtual machine whose QEMU was started.
pub(super) struct VirtualMachine {
    monitor: Monitor,
    guest: Guest,
    /// The volume in each PCIe port that is taken.
    ports: Mutex<BTreeMap<usize, String>>,
}

impl VirtualMachine {
    /// Starts QEMU for `spec`; the guest boots from then on.
    pub(super) async fn launch(
        spec: &MachineSpec,
        folder: &Path,
        network: &Network,
        records: &Records,
    ) -> anyhow::Result<(Self, Child)> {
        anyhow::ensure!(
            spec.volumes.len() < PORTS,
            "a machine has at most {} volumes",
            PORTS - 1
        );
        let files = boot_files::extract(&spec.root.path, folder).await?;
        for socket in [MONITOR, AGENT] {
            let _absent = std::fs::remove_file(folder.join(socket));
        }
        let tap = network.add_tap(spec.address).await?;

        let (key, role) = (format!("process-{}", spec.id), format!("qemu {}", spec.id));
        records.hold_process(&key, &role, None)?;
        let (mark, value) = records.mark();
        let log = std::fs::File::create(folder.join("qemu.log"))?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.namespace.path().display()))
            .arg("qemu-system-x86_64")
            .args(arguments(spec, &files, &tap))
            .current_dir(folder)
            .env(mark, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().context("cannot start QEMU")?;
        records.hold_process(&key, &role, child.id())?;

        let monitor = connect(folder, &mut child).await?;
        let ports = std::iter::once(&spec.root)
            .chain(&spec.volumes)
            .map(|disk| disk.volume.clone());
        let machine = Self {
            monitor,
            guest: Guest::new(folder.to_owned(), AGENT),
            ports: Mutex::new(ports.enumerate().collect()),
        };
        Ok((machine, child))
    }

    /// Whether the guest runs commands now.
    pub(super) async fn answers(&self) -> bool {
        self.guest.answers().await
    }

    /// Waits until the machine is reset, by the guest or from outside.
    pub(super) async fn wait_for_reset(&self) {
        let mut messages = self.monitor.messages();
        loop {
            match messages.recv().await {
                Ok(message) if message["event"] == "RESET" => return,
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                // QEMU is gone: its process tells, not this.
                Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Presses the power button once.
    pub(super) async fn press_power_button(&self) -> anyhow::Result<()> {
        self.monitor
            .execute("system_powerdown", json!({}))
            .await
            .map(drop)
    }

    /// Reboots: the guest is asked first, and reset hard if it does not within `patience`.
    pub(super) async fn reboot(&self, patience: Duration) -> anyhow::Result<()> {
        let reset = self.wait_for_reset();
        if self.guest.reboot().await.is_ok() && tokio::time::timeout(patience, reset).await.is_ok() {
            return Ok(());
        }
        self.monitor.execute("system_reset", json!({})).await.map(drop)
    }

    /// Runs a script in the guest.
    pub(super) async fn exec(&self, script: &str, deadline: Duration) -> anyhow::Result<ExecOutput> {
        self.guest.exec(script, deadline).await
    }

    /// Plugs a disk into a free port.
    pub(super) async fn attach(&self, disk: &Disk) -> anyhow::Result<()> {
        let mut ports = self.ports.lock().await;
        anyhow::ensure!(
            !ports.values().any(|volume| *volume == disk.volume),
            "{} is attached",
            disk.volume
        );
        let port = (0..PORTS)
            .find(|port| !ports.contains_key(port))
            .context("all ports of the machine are taken")?;
        for node in block_nodes(disk) {
            self.monitor.execute("blockdev-add", node).await?;
        }
        if let Err(error) = self.monitor.execute("device_add", nvme(disk, port)).await {
            self.remove_nodes(&disk.volume).await?;
            return Err(error);
        }
        ports.insert(port, disk.volume.clone());
        Ok(())
    }

    /// Unplugs a volume and waits until the guest has let go of it.
    pub(super) async fn detach(&self, volume: &str) -> anyhow::Result<()> {
        let mut ports = self.ports.lock().await;
        let port = ports
            .iter()
            .find(|(_, held)| *held == volume)
            .map(|(port, _)| *port);
        let port = port.with_context(|| format!("{volume} is not attached"))?;
        let mut messages = self.monitor.messages();
        let device = device_name(volume);
        self.monitor
            .execute("device_del", json!({ "id": device }))
            .await?;
        wait_for_device_event(&mut messages, "DEVICE_DELETED", &device, Duration::from_mins(1)).await?;
        ports.remove(&port);
        self.remove_nodes(volume).await
    }

    async fn remove_nodes(&self, volume: &str) -> anyhow::Result<()> {
        for node in [format!("d-{volume}"), format!("f-{volume}")] {
            self.monitor
                .execute("blockdev-del", json!({ "node-name": node }))
                .await?;
        }
        Ok(())
    }
}

/// Connects to the monitor as soon as QEMU listens; tells what QEMU said if it ended instead.
async fn connect(folder: &Path, child: &mut Child) -> anyhow::Result<Monitor> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            anyhow::bail!("QEMU ended with {status}: {}", said.trim());
        }
        if folder.join(MONITOR).exists()
            && let Ok(monitor) = Monitor::connect(folder, MONITOR).await
        {
            return Ok(monitor);
        }
        anyhow::ensure!(Instant::now() < patience, "QEMU's monitor does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where a machine's console is written to, below its folder.
pub(super) fn console(folder: &Path) -> PathBuf {
    folder.join("console.log")
}

fn device_name(volume: &str) -> String {
    format!("n-{volume}")
}

/// The serial number that EBS gives a volume: its id without the dash, at most 20 bytes.
fn serial(volume: &str) -> String {
    volume.replace('-', "").chars().take(20).collect()
}

/// The file of a disk and the raw format on it, as QEMU's block nodes. Flushes stay in the host's memory: what
/// QEMU wrote is in the file for every reader of this host, and a host that crashes takes the sandbox with it.
fn block_nodes(disk: &Disk) -> [Value; 2] {
    let cache = json!({"direct": false, "no-flush": true});
    let file = format!("f-{}", disk.volume);
    [
        json!({"driver": "file", "filename": disk.path, "node-name": file, "cache": cache, "discard": "unmap"}),
        json!({"driver": "raw", "file": file, "node-name": format!("d-{}", disk.volume), "cache": cache,
            "discard": "unmap"}),
    ]
}

fn nvme(disk: &Disk, port: usize) -> Value {
    json!({
        "driver": "nvme",
        "id": device_name(&disk.volume),
        "bus": format!("port{port}"),
        "drive": format!("d-{}", disk.volume),
        "serial": serial(&disk.volume),
    })
}

fn arguments(spec: &MachineSpec, files: &boot_files::BootFiles, tap: &str) -> Vec<String> {
    let uuid = uuid_of(&spec.id);
    // The initial file system finds the root by serial number: controllers are numbered as they answer.
    let kernel = format!(
        "root=/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_{} rw console=ttyS0 quiet mitigations=off net.ifnames=0 \
         apparmor=0 random.trust_cpu=on systemd.getty_auto=0 systemd.show_status=1",
        serial(&spec.root.volume)
    );
    let mut all: Vec<String> = [
        "-name",
        &spec.id,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "Nehalem,+rdrand",
        "-smp",
        "2",
        "-m",
        &MEMORY_MIB.to_string(),
        "-uuid",
        &uuid,
        "-smbios",
        &format!(
            "type=1,manufacturer=Amazon EC2,product={},serial={uuid},uuid={uuid}",
            spec.metadata.instance_type
        ),
        "-kernel",
        &files.kernel.display().to_string(),
        "-initrd",
        &files.initrd.display().to_string(),
        "-append",
        &kernel,
        "-netdev",
        &format!("tap,id=net0,ifname={tap},script=no,downscript=no"),
        "-device",
        &format!("virtio-net-pci,netdev=net0,mac={}", mac(spec.address)),
        "-device",
        "virtio-rng-pci",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        &format!("socket,id=agent,path={AGENT},server=on,wait=off"),
        "-device",
        "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-chardev",
        "file,id=console,path=console.log,append=on",
        "-serial",
        "chardev:console",
        "-qmp",
        &format!("unix:{MONITOR},server=on,wait=off"),
    ]
    .map(str::to_owned)
    .into();
    for port in 0..PORTS {
        let number = port + 1;
        all.extend([
            "-device".to_owned(),
            format!("pcie-root-port,id=port{port},chassis={number},slot={number}"),
        ]);
    }
    for (port, disk) in std::iter::once(&spec.root).chain(&spec.volumes).enumerate() {
        for node in block_nodes(disk) {
            all.extend(["-blockdev".to_owned(), node.to_string()]);
        }
        all.extend(["-device".to_owned(), nvme(disk, port).to_string()]);
    }
    all
}

/// A UUID that begins with `ec2`, by which cloud-init knows the platform; the same for the same instance.
pub(super) fn uuid_of(id: &str) -> String {
    let digits: String = id
        .trim_start_matches("i-")
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect();
    let all = format!("ec2{digits:0>29.29}");
    format!(
        "{}-{}-{}-{}-{}",
        &all[..8],
        &all[8..12],
        &all[12..16],
        &all[16..20],
        &all[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_an_ec2_uuid_and_its_volumes_ebs_serials() {
        assert_eq!(
            uuid_of("i-0123456789abcdef0"),
            "ec200000-0000-0000-1234-56789abcdef0"
        );
        assert_eq!(serial("vol-0123456789abcdef0"), "vol0123456789abcdef0");
        assert_eq!(serial("vol-0123456789abcdef0").len(), 20);
    }
}
