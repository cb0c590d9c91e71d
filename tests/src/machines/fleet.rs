//! Owns the real machines of one sandbox: their start, supervision and end, and what they share.
//! Touches the rooms beside it; keeps one folder, and a lock on it while it lives.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::held::{Held, Records};
use super::imds::{self, Directory, Subject};
use super::machine::{Machine, Site};
use super::network::Network;
use super::{Disk, ExecOutput, MachineSpec, MachineState, Machines, endpoint};
use crate::api::record::Recorder;

/// What a fleet is told when it is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The plain HTTP API that answers for `*.amazonaws.com` inside the VPC.
    pub api: SocketAddr,
    /// Region of the sandbox; decides the machines' DNS names.
    pub region: String,
    /// The authority that the base disks trust.
    pub authority: Arc<Authority>,
    /// Where requests to the metadata service are recorded.
    pub record: Option<PathBuf>,
}

/// The real machines of one sandbox.
pub struct Fleet {
    site: Arc<Site>,
    machines: Mutex<HashMap<String, Arc<Machine>>>,
    stop: CancellationToken,
    /// Held until the fleet is gone; a process that dies lets go of it.
    _lock: File,
}

impl Fleet {
    /// Makes the sandbox's network and its services. `name` has at most 20 letters, digits or dashes.
    ///
    /// Fails if the sandbox runs already, or left something behind (then see [`Fleet::clean_after_crash`]).
    pub async fn open(state: &Path, name: &str, options: Options) -> anyhow::Result<Self> {
        check_name(name)?;
        let folder = state.join(name);
        let lock = lock(&folder)?;
        let records = Records::open(&folder.join("held"))?;
        if !records.all().is_empty() {
            bail!("sandbox {name} left things behind; clean up first");
        }
        match Self::make(&folder, name, &options, &records).await {
            Ok((site, stop)) => Ok(Self {
                site,
                machines: Mutex::default(),
                stop,
                _lock: lock,
            }),
            Err(error) => {
                records
                    .clean()
                    .await
                    .context("cleanup after a failed start failed too")?;
                Err(error)
            }
        }
    }

    async fn make(
        folder: &Path,
        name: &str,
        options: &Options,
        records: &Records,
    ) -> anyhow::Result<(Arc<Site>, CancellationToken)> {
        let stop = CancellationToken::new();
        let services = stop.clone().drop_guard();
        let folder = folder.canonicalize()?;
        let network = Network::make(records, &format!("cos-{name}"), &folder, &options.region).await?;
        let directory = Arc::new(Directory::default());
        let recorder = Recorder::open(options.record.as_deref())?;
        imds::serve(&network.namespace, Arc::clone(&directory), recorder, stop.clone()).await?;
        let authority = Arc::clone(&options.authority);
        endpoint::serve(&network.namespace, authority, options.api, stop.clone()).await?;
        let site = Site {
            folder: folder.join("machines"),
            records: records.clone(),
            network,
            directory,
        };
        Ok((Arc::new(site), services.disarm()))
    }

    /// Ends all machines at once and removes everything; returns what there was, in words.
    pub async fn shutdown(&self) -> anyhow::Result<Vec<String>> {
        self.stop.cancel();
        let machines: Vec<_> = self.lock_machines().drain().map(|(_, machine)| machine).collect();
        for machine in machines {
            machine.kill().await;
        }
        self.site.records.clean().await
    }

    /// Removes what a sandbox that was killed left: processes, mounts, namespaces, cgroups. Returns what there
    /// was, in words. Fails if the sandbox runs.
    pub async fn clean_after_crash(state: &Path, name: &str) -> anyhow::Result<Vec<String>> {
        check_name(name)?;
        let folder = state.join(name);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let _lock = lock(&folder)?;
        Records::open(&folder.join("held"))?.clean().await
    }

    /// What the sandbox holds on this host now, by key.
    pub fn held(&self) -> Vec<(String, Held)> {
        self.site.records.all()
    }

    /// The namespace of the VPC, for tests and tools that look inside.
    pub fn namespace(&self) -> &super::Namespace {
        &self.site.network.namespace
    }

    /// Connects to a port of an instance, or of anything in the VPC.
    pub async fn connect(&self, address: SocketAddrV4) -> std::io::Result<tokio::net::TcpStream> {
        self.site.network.namespace.connect(address).await
    }

    /// Makes a port of this host's loopback lead to a port of an instance, until shutdown.
    pub async fn forward(&self, address: Ipv4Addr, port: u16) -> anyhow::Result<SocketAddr> {
        let target = SocketAddrV4::new(address, port);
        self.site
            .network
            .namespace
            .forward(target, self.stop.child_token())
            .await
    }

    fn lock_machines(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Machine>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self, id: &str) -> anyhow::Result<Arc<Machine>> {
        self.lock_machines()
            .get(id)
            .cloned()
            .with_context(|| format!("no machine {id}"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Machines for Fleet {
    async fn start(&self, spec: MachineSpec) -> anyhow::Result<()> {
        let id = spec.id.clone();
        anyhow::ensure!(is_word(&id), "'{id}' is no instance id");
        let machine = Arc::new(Machine::new(spec.clone(), Arc::clone(&self.site)));
        {
            let mut machines = self.lock_machines();
            if machines
                .get(&id)
                .is_some_and(|known| known.state() != MachineState::Off)
            {
                bail!("machine {id} is not off");
            }
            machines.insert(id.clone(), Arc::clone(&machine));
        }
        self.site.directory.put(Subject {
            id,
            address: spec.address,
            metadata: spec.metadata,
            pending_time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        machine.start().await
    }

    async fn state(&self, id: &str) -> Option<MachineState> {
        self.lock_machines().get(id).map(|machine| machine.state())
    }

    async fn stop(&self, id: &str, patience: Duration) -> anyhow::Result<()> {
        self.machine(id)?.stop(patience).await
    }

    async fn reboot(&self, id: &str) -> anyhow::Result<()> {
        self.machine(id)?.reboot().await
    }

    async fn attach(&self, id: &str, disk: Disk) -> anyhow::Result<()> {
        self.machine(id)?.attach(disk).await
    }

    async fn detach(&self, id: &str, volume: &str) -> anyhow::Result<()> {
        self.machine(id)?.detach(volume).await
    }

    async fn exec(&self, id: &str, script: &str, deadline: Duration) -> anyhow::Result<ExecOutput> {
        self.machine(id)?.exec(script, deadline).await
    }

    async fn set_tags(&self, id: &str, tags: BTreeMap<String, String>) {
        self.site
            .directory
            .change(id, |subject| subject.metadata.tags = tags);
    }

    async fn set_notices(&self, id: &str, notices: BTreeMap<String, String>) {
        self.site
            .directory
            .change(id, |subject| subject.metadata.notices = notices);
    }

    async fn console(&self, id: &str) -> anyhow::Result<Vec<u8>> {
        self.machine(id)?.console()
    }

    async fn forget(&self, id: &str) -> anyhow::Result<()> {
        let Some(machine) = self.lock_machines().remove(id) else {
            return Ok(());
        };
        machine.kill().await;
        machine.free().await
    }
}

/// Takes the lock of the sandbox's folder, or tells that it runs.
fn lock(folder: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path: PathBuf = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("the sandbox in {} runs", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the sandbox's folder"),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_name(name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_word(name) && name.len() <= 20,
        "'{name}' is no name for a sandbox"
    );
    Ok(())
}
