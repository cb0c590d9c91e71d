//! Owns the assembly of a sandbox: machines, executor, moto and the front, in the order in which they need each other.
//! Touches one folder, loopback, and through its parts all that they touch.

pub mod real;
pub mod session;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::control::{About, Host};
use crate::api::executor::{Executor, MachineChoice};
use crate::api::faults::{Faults, Rule};
use crate::api::front::{self, Front};
use crate::api::moto::{self, Moto, base_images};
use crate::api::record::Recorder;
use crate::api::store::DiskStore;
use crate::api::timeline::Timeline;
use crate::api::wire;
use crate::machines::Machines;

/// The account that moto plays.
pub const ACCOUNT: &str = "123456789012";

/// What every output that touches a base image says.
pub const NOTICE: &str = "base images are Debian stand-ins, not Amazon Linux";

/// How a sandbox is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Its folder: disks, logs, socket.
    pub folder: PathBuf,
    /// Region of its base images.
    pub region: String,
    /// Minimum times.
    pub timeline: Timeline,
    /// What instances are made of.
    pub machines: MachineChoice,
    /// Where calls are recorded.
    pub record: Option<PathBuf>,
    /// Faults from the start.
    pub faults: Vec<Rule>,
    /// Folder of the download mirror.
    pub mirror: Option<PathBuf>,
    /// Python interpreter that has moto.
    pub python: PathBuf,
    /// Base disks by name: `al1`, `al2`, `al2023`.
    pub bases: Vec<(String, PathBuf)>,
}

/// A sandbox that answers.
pub struct Running<M> {
    /// Where it listens.
    pub address: SocketAddr,
    /// What does the acts.
    pub executor: Arc<Executor<M>>,
    moto: Moto,
    tasks: JoinSet<Result<()>>,
}

/// Opens the loopback port; machines need to know it before they exist.
pub async fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    listener.with_context(|| format!("loopback port {port} cannot be opened"))
}

/// Starts a sandbox with the given machines.
pub async fn start<M: Machines>(
    settings: &Settings,
    listener: TcpListener,
    machines: Arc<M>,
    host: Box<dyn Host>,
) -> Result<Running<M>> {
    let address = listener.local_addr()?;

    let store = DiskStore::open(&settings.folder.join("disks"))?;
    let images = base_images(&settings.bases)?;
    for image in images.iter().filter(|image| image.refuse.is_none()) {
        if let Some((_, disk)) = settings.bases.iter().find(|(base, _)| *base == image.base) {
            store.add_base(&image.snapshot, disk);
        }
    }
    let executor = Executor::start(machines, store, settings.timeline, settings.machines);

    let mut tasks = JoinSet::new();
    let mut socket = settings.folder.join("plugin.sock");
    // Paths of Unix sockets are limited to 107 bytes, which a folder of the user's choice may exceed.
    if socket.as_os_str().len() > 107 {
        socket = std::env::temp_dir().join(format!("cos-sandbox-{}.sock", address.port()));
    }
    tasks.spawn(wire::serve(socket.clone(), Arc::clone(&executor)));
    let moto = Moto::start(moto::Options {
        python: &settings.python,
        folder: &settings.folder,
        socket: &socket,
        region: &settings.region,
        images: &images,
    })
    .await?;

    let about = About {
        name: settings.name.clone(),
        region: settings.region.clone(),
        timeline: settings.timeline.to_string(),
        notice: NOTICE.to_owned(),
        process: std::process::id(),
        started: Timestamp::now().to_string(),
    };
    let mut front = Front::new(Arc::clone(&executor), moto.url.clone(), about, host)?;
    front.faults = Faults::new(settings.faults.clone());
    front.recorder = Recorder::open(settings.record.as_deref())?;
    front.mirror.clone_from(&settings.mirror);
    tasks.spawn(front::serve(listener, Arc::new(front)));
    Ok(Running {
        address,
        executor,
        moto,
        tasks,
    })
}

impl<M: Machines> Running<M> {
    /// Waits until a part of it fails, which none does by itself.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = self.moto.ended() => ended.err().unwrap_or_else(|| anyhow::anyhow!("moto ended")),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) => anyhow::anyhow!("a part of the sandbox ended by itself"),
                Err(error) => error.into(),
            },
        }
    }

    /// Ends moto, stops listening, and starts no machine any more. Those that run are the caller's to end.
    pub async fn stop(mut self) {
        self.executor.close().await;
        self.tasks.shutdown().await;
        self.moto.stop().await;
    }
}
