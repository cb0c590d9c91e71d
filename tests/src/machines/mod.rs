//! Owns the port to machines: what the EC2 half of the sandbox asks for, and what a machine answers.
//! Touches nothing itself; the rooms below it touch namespaces, QEMU and systemd-nspawn.

mod authority;
mod command;
mod container;
mod endpoint;
mod fleet;
mod held;
mod imds;
mod machine;
mod namespace;
mod network;
mod virtual_machine;

pub use authority::Authority;
pub use fleet::{Fleet, Options};
pub use held::Held;
pub use namespace::Namespace;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// A machine to start: an EC2 instance with no choice left open.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Instance id, `i-…`.
    pub id: String,
    /// What it is made of.
    pub kind: Kind,
    /// Private address in the VPC, given by DHCP (virtual machine) or set from outside (container).
    pub address: Ipv4Addr,
    /// Root disk: a raw file that holds one ext4 file system, without a partition table.
    pub root: Disk,
    /// Further disks, attached from the start.
    pub volumes: Vec<Disk>,
    /// What the metadata service tells it.
    pub metadata: Metadata,
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A QEMU virtual machine: its own kernel, real boot.
    VirtualMachine,
    /// A systemd-nspawn container with systemd as PID 1: starts in seconds, shares the kernel.
    Container,
}

/// A volume as a file on the host.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Volume id, `vol-…`.
    pub volume: String,
    /// Device name in EC2's words, such as `/dev/sdf`.
    pub device: String,
    /// The raw file that holds its bytes; the machine writes to it.
    pub path: PathBuf,
}

/// What the instance metadata service answers about one machine.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// AMI id.
    pub image: String,
    /// Account id, twelve digits.
    pub account: String,
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Availability zone, such as `us-east-1a`.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// Architecture in EC2's words.
    pub architecture: String,
    /// Raw user data; none answers 404.
    pub user_data: Option<Vec<u8>>,
    /// Tags, served under `tags/instance` only if `instance_tags` is set.
    pub tags: BTreeMap<String, String>,
    /// Whether the launch asked for tags in metadata.
    pub instance_tags: bool,
    /// Whether requests without a session token answer 401 (IMDSv2 only).
    pub token_required: bool,
    /// Name of the instance profile's role, if it has one.
    pub role: Option<String>,
    /// What is told from outside, by path below `meta-data/`, such as `spot/instance-action`.
    pub notices: BTreeMap<String, String>,
}

/// What a machine does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// It was asked to start and does not run commands yet.
    Starting,
    /// It runs commands (the guest answers), as an SSM agent that is online.
    Online,
    /// It powered off, from inside or from outside; its disks are at rest.
    Off,
}

/// What a command on a machine left behind.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Exit status.
    pub status: i32,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

/// The machines of one sandbox. `Fleet` is the real one; the tests of the EC2 half use a fake.
pub trait Machines: Send + Sync + 'static {
    /// Starts a machine and returns once it was started, not once it is up.
    fn start(&self, spec: MachineSpec) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// What a machine does now; none if it was never started or was forgotten.
    fn state(&self, id: &str) -> impl Future<Output = Option<MachineState>> + Send;

    /// Shuts a machine down as the power button does, by force after `patience`, and waits until it is off.
    fn stop(&self, id: &str, patience: Duration) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Starts the same machine again (reboot from outside).
    fn reboot(&self, id: &str) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Attaches a disk to a machine that runs.
    fn attach(&self, id: &str, disk: Disk) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Detaches a volume from a machine that runs.
    fn detach(&self, id: &str, volume: &str) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Runs a script with `sh` as root; an error if it did not end within `deadline`, and then it is killed.
    fn exec(
        &self,
        id: &str,
        script: &str,
        deadline: Duration,
    ) -> impl Future<Output = anyhow::Result<ExecOutput>> + Send;

    /// Replaces the tags that the metadata service shows.
    fn set_tags(&self, id: &str, tags: BTreeMap<String, String>) -> impl Future<Output = ()> + Send;

    /// Replaces what the metadata service tells of the machine's end.
    fn set_notices(&self, id: &str, notices: BTreeMap<String, String>) -> impl Future<Output = ()> + Send;

    /// What the machine wrote to its console so far.
    fn console(&self, id: &str) -> impl Future<Output = anyhow::Result<Vec<u8>>> + Send;

    /// Ends the machine at once if it runs and frees all that the host holds for it, but for the disk files.
    fn forget(&self, id: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
}
