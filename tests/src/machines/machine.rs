//! Owns the life of one machine: off, starting, online, and back, with the task that watches its process.
//! Touches the machine through its kind's room, and the records of what it holds.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::container::{self, Container};
use super::held::Records;
use super::imds::Directory;
use super::network::Network;
use super::virtual_machine::{self, VirtualMachine};
use super::{Disk, ExecOutput, Kind, MachineSpec, MachineState};

/// How long a guest may take to begin a reboot before it is reset: EC2 waits four minutes, we one.
const REBOOT_PATIENCE: Duration = Duration::from_mins(1);

/// How long a machine may take to be gone after it was killed; one that is being started is killed after that.
const KILL_PATIENCE: Duration = Duration::from_mins(2);

/// What all machines of a sandbox share.
pub(super) struct Site {
    /// One folder for each machine below it.
    pub(super) folder: PathBuf,
    pub(super) records: Records,
    pub(super) network: Network,
    pub(super) directory: Arc<Directory>,
}

/// The running half of a machine.
#[derive(Clone)]
enum Body {
    Virtual(Arc<VirtualMachine>),
    Container(Arc<Container>),
}

/// One machine.
pub(super) struct Machine {
    spec: MachineSpec,
    site: Arc<Site>,
    folder: PathBuf,
    state: watch::Sender<MachineState>,
    body: Mutex<Option<Body>>,
    kill: Mutex<CancellationToken>,
}

impl Machine {
    pub(super) fn new(spec: MachineSpec, site: Arc<Site>) -> Self {
        let folder = site.folder.join(&spec.id);
        let kill = Mutex::new(CancellationToken::new());
        Self {
            spec,
            site,
            folder,
            state: watch::Sender::new(MachineState::Starting),
            body: Mutex::default(),
            kill,
        }
    }

    pub(super) fn state(&self) -> MachineState {
        self.state.borrow().clone()
    }

    /// Starts it, to the end even if the caller stops waiting, and watches it from then on.
    pub(super) async fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        let machine = Arc::clone(self);
        *machine.kill.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
        machine.state.send_replace(MachineState::Starting);
        let started = tokio::spawn(async move {
            match machine.launch().await {
                Ok(child) => {
                    tokio::spawn(async move { machine.watch(child).await });
                    Ok(())
                }
                Err(error) => {
                    machine.rest().await;
                    Err(error)
                }
            }
        });
        started.await.context("the start of the machine was cut short")?
    }

    async fn launch(&self) -> anyhow::Result<Child> {
        std::fs::create_dir_all(&self.folder)?;
        let Site { network, records, .. } = &*self.site;
        let (body, child) = match self.spec.kind {
            Kind::VirtualMachine => {
                let (body, child) =
                    VirtualMachine::launch(&self.spec, &self.folder, network, records).await?;
                (Body::Virtual(Arc::new(body)), child)
            }
            Kind::Container => {
                let (body, child) = Container::launch(&self.spec, &self.folder, network, records).await?;
                (Body::Container(Arc::new(body)), child)
            }
        };
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        Ok(child)
    }

    /// Follows the machine until it is off: guest up, guest reset, process gone.
    async fn watch(self: Arc<Self>, mut child: Child) {
        let kill = self.kill.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            let Ok(body) = self.body() else { break };
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                () = kill.cancelled() => {
                    let _gone = child.kill().await;
                    break;
                }
                () = self.until_reset(&body) => None,
            };
            self.state.send_replace(MachineState::Starting);
            let Some(status) = ended else { continue };
            let again = status.is_ok_and(|status| status.code() == Some(container::REBOOT));
            if !again || !matches!(body, Body::Container(_)) {
                break;
            }
            match self.launch().await {
                Ok(next) => child = next,
                Err(_) => break,
            }
        }
        self.rest().await;
    }

    /// Tells when the guest is up, and ends when it is reset.
    async fn until_reset(&self, body: &Body) {
        let up = async {
            loop {
                let answers = match body {
                    Body::Virtual(machine) => machine.answers().await,
                    Body::Container(container) => container.answers(),
                };
                if answers {
                    self.state.send_replace(MachineState::Online);
                    return std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(300)).await;
            }
        };
        let reset = async {
            match body {
                Body::Virtual(machine) => machine.wait_for_reset().await,
                // A container that reboots ends its process.
                Body::Container(_) => std::future::pending().await,
            }
        };
        tokio::select! { () = up => {}, () = reset => {} }
    }

    /// Gives back what a machine that is off needs no longer, then says that it is off.
    async fn rest(&self) {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Site { network, records, .. } = &*self.site;
        match self.spec.kind {
            Kind::VirtualMachine => {
                network.remove_port(self.spec.address).await;
                records.release(&format!("process-{}", self.spec.id));
            }
            // What cannot be freed now stays recorded, for the next start or the cleanup.
            Kind::Container => drop(Container::release(&self.spec, &self.folder, network, records).await),
        }
        self.state.send_replace(MachineState::Off);
    }

    fn body(&self) -> anyhow::Result<Body> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).clone();
        body.with_context(|| format!("machine {} is off", self.spec.id))
    }

    async fn wait_until_off(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in this machine: waiting cannot fail.
        let _state = state.wait_for(|state| *state == MachineState::Off).await;
    }

    /// Presses the power button, again and again while the guest may be too young to see it; then pulls the plug.
    pub(super) async fn stop(&self, patience: Duration) -> anyhow::Result<()> {
        let ends = Instant::now() + patience;
        while self.state() != MachineState::Off && Instant::now() < ends {
            match self.body() {
                Ok(Body::Virtual(machine)) => drop(machine.press_power_button().await),
                // A second signal would end a container by force: only one that listens gets it.
                Ok(Body::Container(container)) if container.answers() => {
                    drop(container.press_power_button());
                    let _late = timeout(
                        ends.saturating_duration_since(Instant::now()),
                        self.wait_until_off(),
                    )
                    .await;
                }
                _ => {}
            }
            let pause = Duration::from_secs(5).min(ends.saturating_duration_since(Instant::now()));
            let _late = timeout(pause, self.wait_until_off()).await;
        }
        self.kill().await;
        Ok(())
    }

    /// Ends the process at once and waits until the machine is off, or cannot be: then its records still tell of it.
    pub(super) async fn kill(&self) {
        self.kill.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        let _stuck = timeout(KILL_PATIENCE, self.wait_until_off()).await;
    }

    /// Reboots a machine that runs, as asked from outside; starts one that is off.
    pub(super) async fn reboot(self: &Arc<Self>) -> anyhow::Result<()> {
        match self.body() {
            Ok(Body::Virtual(machine)) => {
                // The guest takes its time; whoever asked waits for the state.
                tokio::spawn(async move { machine.reboot(REBOOT_PATIENCE).await });
                Ok(())
            }
            Ok(Body::Container(container)) => container.reboot(),
            Err(_) if self.state() == MachineState::Off => self.start().await,
            Err(error) => Err(error),
        }
    }

    fn virtual_machine(&self) -> anyhow::Result<Arc<VirtualMachine>> {
        match self.body()? {
            Body::Virtual(machine) => Ok(machine),
            Body::Container(_) => anyhow::bail!("{} is a container: it has its root disk only", self.spec.id),
        }
    }

    pub(super) async fn attach(&self, disk: Disk) -> anyhow::Result<()> {
        self.virtual_machine()?.attach(&disk).await
    }

    pub(super) async fn detach(&self, volume: &str) -> anyhow::Result<()> {
        self.virtual_machine()?.detach(volume).await
    }

    pub(super) async fn exec(&self, script: &str, deadline: Duration) -> anyhow::Result<ExecOutput> {
        let state = self.state();
        anyhow::ensure!(
            state == MachineState::Online,
            "machine {} is {state:?}, not online",
            self.spec.id
        );
        let body = self.body()?;
        let run: std::pin::Pin<Box<dyn Future<Output = anyhow::Result<ExecOutput>> + Send>> = match &body {
            Body::Virtual(machine) => Box::pin(machine.exec(script, deadline)),
            Body::Container(container) => Box::pin(container.exec(script, deadline)),
        };
        let mut state = self.state.subscribe();
        tokio::select! {
            output = run => output,
            _ = state.wait_for(|state| *state != MachineState::Online) => {
                anyhow::bail!("machine {} went down while the script ran", self.spec.id)
            }
        }
    }

    pub(super) fn console(&self) -> anyhow::Result<Vec<u8>> {
        let path = match self.spec.kind {
            Kind::VirtualMachine => virtual_machine::console(&self.folder),
            Kind::Container => container::console(&self.folder),
        };
        if !path.exists() {
            return Ok(Vec::new());
        }
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Frees all that the host holds for a machine that is off, but for its disk files.
    pub(super) async fn free(&self) -> anyhow::Result<()> {
        let Site {
            network,
            records,
            directory,
            ..
        } = &*self.site;
        if self.spec.kind == Kind::Container {
            Container::release(&self.spec, &self.folder, network, records).await?;
        }
        network.remove(self.spec.address).await;
        directory.remove(self.spec.address);
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }
}
