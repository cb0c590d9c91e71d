//! Owns a network namespace, and the ways of this process into it: listeners, connections, forwards.
//! Touches `/run/netns`; enters the namespace only in threads that end right after.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener, TcpStream as StdStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::command::run;
use super::held::{Held, Records, delete_namespace, namespace_path};

/// A network namespace by name.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with IPv6 off and loopback up, and records it before. One that is there already is somebody
    /// else's: recorded, it would be removed with all that runs in it.
    pub(crate) async fn make(records: &Records, name: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !namespace_path(name).exists(),
            "the network namespace {name} is there already: a sandbox of this name has another state folder"
        );
        records.hold(
            &format!("netns-{name}"),
            &Held::Namespace {
                name: name.to_owned(),
            },
        )?;
        run("ip", ["netns", "add", name]).await?;
        let namespace = Self {
            name: name.to_owned(),
        };
        namespace
            .inside(|| {
                for scope in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
                }
                // Between the ranges of a VPC's router; no route leaves the namespace.
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            })
            .await?;
        run("ip", ["-n", name, "link", "set", "lo", "up"]).await?;
        Ok(namespace)
    }

    /// The namespace of this name, whether it is there or not.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// Removes it; interfaces in it go with it.
    pub(crate) async fn remove(&self, records: &Records) -> anyhow::Result<()> {
        delete_namespace(&self.name).await?;
        records.release(&format!("netns-{}", self.name));
        Ok(())
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=…`.
    pub fn path(&self) -> PathBuf {
        namespace_path(&self.name)
    }

    /// Runs a few blocking steps in a thread of its own that lives in this namespace.
    async fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = File::open(self.path())?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // Not a thread of a pool: setns would stay with it and leak into the next task.
        std::thread::Builder::new()
            .name("in-namespace".to_owned())
            .spawn(move || {
                let result = setns(file, CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| act());
                let _gone = sender.send(result);
            })?;
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended")))
    }

    /// Listens inside the namespace; connections are served by this process.
    pub async fn listen(&self, address: SocketAddrV4) -> anyhow::Result<TcpListener> {
        let listener = self
            .inside(move || StdListener::bind(address))
            .await
            .with_context(|| format!("cannot listen on {address} in namespace {}", self.name))?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }

    /// Connects from this process to an address inside the namespace, within ten seconds.
    pub async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream> {
        let connect = move || StdStream::connect_timeout(&SocketAddr::V4(address), Duration::from_secs(10));
        let stream = self.inside(connect).await?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    /// Makes a port on the host's loopback lead to `target` inside, until `stop` is cancelled.
    pub(crate) async fn forward(
        &self,
        target: SocketAddrV4,
        stop: CancellationToken,
    ) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let namespace = self.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let Ok((mut outer, _)) = listener.accept().await else {
                    // Out of file descriptors, most likely: wait for some to be closed.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let namespace = namespace.clone();
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    // A target that refuses closes the caller's connection: the same fact, one hop later.
                    if let Ok(mut inner) = namespace.connect(target).await {
                        let _ended = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                    }
                }));
            }
        }));
        Ok(address)
    }
}
