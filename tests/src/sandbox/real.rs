//! Owns a sandbox with real machines: what it needs of this host, its base disks, its fleet, and its end.
//! Touches the cache and the state folder, and through the fleet the host.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::geteuid;

use super::{Running, Settings, listen, start};
use crate::api::control::{Host, Later};
use crate::base::{self, Base};
use crate::machines::{Authority, Fleet, Held, Options};

/// Programs that machines are made with, and the Debian package of each.
const TOOLS: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("setsid", "util-linux"),
];

/// A refusal with a way out.
#[derive(Debug, thiserror::Error)]
#[error("{fact}")]
pub struct Missing {
    fact: String,
    /// What to do about it.
    pub hint: String,
}

impl Missing {
    /// A fact and the way out.
    pub fn new(fact: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            fact: fact.into(),
            hint: hint.into(),
        }
    }
}

/// Checks that this host can run machines, before anything is made.
pub fn check_host(python: &Path) -> Result<(), Missing> {
    if std::env::consts::ARCH != "x86_64" {
        let fact = format!(
            "this host is {}, and the sandbox's machines are x86_64",
            std::env::consts::ARCH
        );
        return Err(Missing::new(fact, "use a host with an Intel or AMD processor"));
    }
    if !geteuid().is_root() {
        let hint =
            "run it as root or with sudo; it makes network namespaces, mounts and containers of its own";
        return Err(Missing::new("the sandbox needs root", hint));
    }
    let folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|it| std::env::split_paths(&it).collect())
        .unwrap_or_default();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(tool, _)| !folders.iter().any(|it| it.join(tool).is_file()))
        .collect();
    if !missing.is_empty() {
        let (tools, packages): (Vec<&str>, Vec<&str>) = missing.into_iter().copied().unzip();
        let hint = format!(
            "apt-get install {}; ./dev setup does all of it",
            packages.join(" ")
        );
        return Err(Missing::new(format!("missing tools: {}", tools.join(", ")), hint));
    }
    if !python.is_file() {
        let fact = format!("no Python interpreter at {}", python.display());
        return Err(Missing::new(fact, MOTO_HINT));
    }
    let probe = std::process::Command::new(python)
        .args(["-c", "import moto.server"])
        // As root it would write into an environment that may be another user's.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    match probe {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Missing::new(
            format!("{} cannot import moto", python.display()),
            MOTO_HINT,
        )),
    }
}

/// How to get what [`check_host`] asks of the interpreter.
pub const MOTO_HINT: &str = "python3 -m venv FOLDER && FOLDER/bin/pip install -r tests/moto/requirements.txt, then \
                         --python FOLDER/bin/python (or COS_SANDBOX_PYTHON); ./dev setup does it";

/// A sandbox with real machines.
pub struct Sandbox {
    /// What answers.
    pub running: Running<Fleet>,
    fleet: Arc<Fleet>,
}

/// Where things are kept.
#[derive(Debug, Clone)]
pub struct Places {
    /// Folder of base disks and of the authority that they trust.
    pub cache: PathBuf,
    /// Folder of all sandboxes.
    pub state: PathBuf,
}

/// Makes what is missing and starts a sandbox. `settings.bases` is filled with the disks of `wanted`. When
/// `interrupted` ends first, what was made is removed again.
pub async fn up(
    mut settings: Settings,
    port: u16,
    places: &Places,
    wanted: &[String],
    mut say: impl FnMut(&str),
    interrupted: impl Future<Output = ()>,
) -> Result<Sandbox> {
    let mut interrupted = pin!(interrupted);
    let cleaned = Fleet::clean_after_crash(&places.state, &settings.name).await?;
    for thing in cleaned {
        say(&format!("removed what a crash had left: {thing}"));
    }
    // Disks of an earlier life belong to nobody now.
    let _ = std::fs::remove_dir_all(settings.folder.join("disks"));
    let authority = Arc::new(Authority::open(&places.cache.join("authority"))?);
    settings.bases = tokio::select! {
        made = make_bases(&places.cache, wanted, &authority, say) => made?,
        () = &mut interrupted => bail!(INTERRUPTED),
    };
    let listener = listen(port).await?;
    let options = Options {
        api: listener.local_addr()?,
        region: settings.region.clone(),
        authority,
        record: settings.record.clone(),
    };
    // Moments, and not cut short: a tool that was left half-way would make its thing after the cleanup.
    let fleet = Arc::new(Fleet::open(&places.state, &settings.name, options).await?);
    let host = FleetHost {
        at_start: keys(&fleet),
        fleet: Arc::clone(&fleet),
    };
    let started = tokio::select! {
        started = start(&settings, listener, Arc::clone(&fleet), Box::new(host)) => started,
        () = interrupted => Err(anyhow!(INTERRUPTED)),
    };
    match started {
        Ok(running) => Ok(Sandbox { running, fleet }),
        Err(error) => {
            fleet
                .shutdown()
                .await
                .context("the fleet could not be removed after a failed start")?;
            Err(error)
        }
    }
}

/// What a start says that was interrupted.
pub const INTERRUPTED: &str = "interrupted at the start";

/// The disks of the wanted bases, by name; those that the cache has not are made.
async fn make_bases(
    cache: &Path,
    wanted: &[String],
    authority: &Authority,
    mut say: impl FnMut(&str),
) -> Result<Vec<(String, PathBuf)>> {
    let mut bases = Vec::new();
    for name in wanted {
        let base = match name.as_str() {
            "al1" => Base::AmazonLinux1,
            "al2" => Base::AmazonLinux2,
            "al2023" => Base::AmazonLinux2023,
            other => {
                return Err(Missing::new(format!("unknown base '{other}'"), "use al1, al2 or al2023").into());
            }
        };
        let disk = base::ensure(cache, base, authority.pem(), |line| {
            say(&format!("base {name}: {line}"));
        })
        .await;
        let disk = disk.with_context(|| format!("base disk {name} cannot be made"))?;
        bases.push((name.clone(), disk.disk));
    }
    Ok(bases)
}

impl Sandbox {
    /// Ends everything; returns what the fleet removed, in words.
    pub async fn down(self) -> Result<Vec<String>> {
        self.running.stop().await;
        self.fleet.shutdown().await
    }
}

struct FleetHost {
    fleet: Arc<Fleet>,
    at_start: BTreeSet<String>,
}

fn keys(fleet: &Fleet) -> BTreeSet<String> {
    fleet.held().into_iter().map(|(key, _)| key).collect()
}

impl Host for FleetHost {
    fn held(&self) -> Later<'_, Vec<String>> {
        let held = self
            .fleet
            .held()
            .into_iter()
            .filter(|(key, _)| !self.at_start.contains(key));
        let held = held
            .map(|(key, held)| format!("{} ({key})", in_words(&held)))
            .collect();
        Box::pin(async move { held })
    }

    fn forward(&self, address: Ipv4Addr, port: u16) -> Later<'_, Result<SocketAddr>> {
        Box::pin(self.fleet.forward(address, port))
    }
}

fn in_words(held: &Held) -> String {
    match held {
        Held::Namespace { name } => format!("network namespace {name}"),
        Held::Mount { target } => format!("mount {}", target.display()),
        Held::Cgroups { name } => format!("cgroups {name}"),
        Held::Process { role, pid, .. } => format!("process {} {role}", pid.unwrap_or_default()),
    }
}
