//! Owns machines that are no machines: a state each, and scripts that run in this process's own shell.
//! Touches `sh`. Only the EC2 half is tested with them; real machines have tests of their own.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cos_tests::api::control::{Host, Later};
use cos_tests::machines::{Disk, ExecOutput, Kind, MachineSpec, MachineState, Machines};
use serde_json::json;

#[derive(Default)]
pub(crate) struct Fake {
    machines: Mutex<HashMap<String, (MachineSpec, MachineState)>>,
    answer: Option<fn(&str) -> Option<String>>,
}

impl Fake {
    /// Machines on which scripts that `answer` knows print its words; all others run as they are.
    #[allow(dead_code, reason = "each suite that has this module uses another part of it")]
    pub(crate) fn answering(answer: fn(&str) -> Option<String>) -> Self {
        Self {
            answer: Some(answer),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (MachineSpec, MachineState)>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, id: &str, state: MachineState) -> Result<()> {
        self.lock().get_mut(id).context("no such machine")?.1 = state;
        Ok(())
    }
}

impl Machines for Fake {
    async fn start(&self, spec: MachineSpec) -> Result<()> {
        for disk in std::iter::once(&spec.root).chain(&spec.volumes) {
            anyhow::ensure!(disk.path.is_file(), "disk {} is missing", disk.path.display());
        }
        self.lock().insert(spec.id.clone(), (spec, MachineState::Online));
        Ok(())
    }

    async fn state(&self, id: &str) -> Option<MachineState> {
        self.lock().get(id).map(|it| it.1.clone())
    }

    async fn stop(&self, id: &str, _patience: Duration) -> Result<()> {
        self.set(id, MachineState::Off)
    }

    async fn reboot(&self, id: &str) -> Result<()> {
        self.set(id, MachineState::Online)
    }

    async fn attach(&self, id: &str, disk: Disk) -> Result<()> {
        anyhow::ensure!(disk.path.is_file(), "disk {} is missing", disk.path.display());
        self.lock()
            .get_mut(id)
            .context("no such machine")?
            .0
            .volumes
            .push(disk);
        Ok(())
    }

    async fn detach(&self, id: &str, volume: &str) -> Result<()> {
        let mut machines = self.lock();
        let volumes = &mut machines.get_mut(id).context("no such machine")?.0.volumes;
        let before = volumes.len();
        volumes.retain(|disk| disk.volume != volume);
        anyhow::ensure!(volumes.len() < before, "volume {volume} is not attached");
        Ok(())
    }

    async fn exec(&self, id: &str, script: &str, deadline: Duration) -> Result<ExecOutput> {
        let spec = self.lock().get(id).context("no such machine")?.0.clone();
        if let Some(stdout) = self.answer.and_then(|answer| answer(script)) {
            return Ok(ExecOutput {
                status: 0,
                stdout: stdout.into_bytes(),
                stderr: Vec::new(),
            });
        }
        // What a test asks of the machine itself.
        if script == "poweroff" {
            self.set(id, MachineState::Off)?;
            std::future::pending::<()>().await;
        }
        let shell = tokio::process::Command::new("sh")
            .args(["-c", script])
            .env("ROOT_DISK", &spec.root.path)
            .env(
                "VOLUMES",
                spec.volumes
                    .iter()
                    .map(|it| it.path.display().to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
            .env("SPEC", described(&spec))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Ok(output) = tokio::time::timeout(deadline, shell).await else {
            bail!("out of time")
        };
        let output = output?;
        Ok(ExecOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    async fn set_tags(&self, id: &str, tags: BTreeMap<String, String>) {
        if let Some((spec, _)) = self.lock().get_mut(id) {
            spec.metadata.tags = tags;
        }
    }

    async fn set_notices(&self, id: &str, notices: BTreeMap<String, String>) {
        if let Some((spec, _)) = self.lock().get_mut(id) {
            spec.metadata.notices = notices;
        }
    }

    async fn console(&self, id: &str) -> Result<Vec<u8>> {
        Ok(format!("console of {id}\n").into_bytes())
    }

    async fn forget(&self, id: &str) -> Result<()> {
        self.lock().remove(id);
        Ok(())
    }
}

/// The specification as a test on the machine reads it.
fn described(spec: &MachineSpec) -> String {
    let metadata = &spec.metadata;
    json!({
        "kind": match spec.kind { Kind::VirtualMachine => "vm", Kind::Container => "container" },
        "address": spec.address,
        "root": spec.root.device,
        "volumes": spec.volumes.iter().map(|it| (&it.device, &it.volume)).collect::<Vec<_>>(),
        "image": metadata.image,
        "zone": metadata.zone,
        "user_data": metadata.user_data,
        "tags": metadata.tags,
        "instance_tags": metadata.instance_tags,
        "token_required": metadata.token_required,
        "role": metadata.role,
        "notices": metadata.notices,
    })
    .to_string()
}

pub(crate) struct NoHost;

impl Host for NoHost {
    fn held(&self) -> Later<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn forward(&self, address: Ipv4Addr, _port: u16) -> Later<'_, Result<SocketAddr>> {
        Box::pin(async move { bail!("{address} is on no network") })
    }
}
