//! Owns the conversation with the QEMU guest agent: whether the guest answers, and commands in it.
//! Touches one Unix socket, which QEMU connects to a virtio-serial port of the guest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::ExecOutput;
use super::socket;

/// Reads the script from standard input, so that its length has no limit, and runs it in a session of its own
/// under the number that the agent knows.
const RUN: &str = "export HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
                   exec setsid sh -c 'script=$(cat); exec </dev/null; eval \"$script\"'";

/// The agent of one guest.
pub(super) struct Guest {
    folder: PathBuf,
    name: &'static str,
    connection: Mutex<Option<BufReader<UnixStream>>>,
}

impl Guest {
    pub(super) fn new(folder: PathBuf, name: &'static str) -> Self {
        Self {
            folder,
            name,
            connection: Mutex::new(None),
        }
    }

    /// Whether the agent answers now.
    pub(super) async fn answers(&self) -> bool {
        self.call("guest-ping", json!({}), Duration::from_secs(3))
            .await
            .is_ok()
    }

    /// Asks one thing of the agent. A conversation that was cut short is never continued.
    async fn call(&self, command: &str, arguments: Value, patience: Duration) -> anyhow::Result<Value> {
        let mut kept = self.connection.lock().await;
        let talk = async {
            // Taken out while in use: cancelled or failed, it is closed instead of read out of step.
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.synchronise().await?,
            };
            send(&mut connection, command, arguments).await?;
            let answer = receive(&mut connection).await?;
            *kept = Some(connection);
            if let Some(error) = answer.get("error") {
                bail!(
                    "the guest agent refused {command}: {}",
                    error["desc"].as_str().unwrap_or_default()
                );
            }
            Ok(answer["return"].clone())
        };
        timeout(patience, talk).await.with_context(|| {
            format!(
                "the guest agent did not answer {command} within {} s",
                patience.as_secs()
            )
        })?
    }

    /// A new connection with everything said before thrown away (`guest-sync-delimited`).
    async fn synchronise(&self) -> anyhow::Result<BufReader<UnixStream>> {
        let mut connection = BufReader::new(socket::connect(&self.folder, self.name).await?);
        let id: u32 = rand::rng().random();
        connection.write_all(&[0xff]).await?;
        send(&mut connection, "guest-sync-delimited", json!({ "id": id })).await?;
        loop {
            let mut skipped = Vec::new();
            connection.read_until(0xff, &mut skipped).await?;
            if skipped.last() != Some(&0xff) {
                bail!("the guest agent's socket closed");
            }
            if receive(&mut connection)
                .await
                .is_ok_and(|answer| answer["return"] == json!(id))
            {
                return Ok(connection);
            }
        }
    }

    /// Runs a script with `sh` as root; kills it and all of its session at the deadline.
    pub(super) async fn exec(&self, script: &str, deadline: Duration) -> anyhow::Result<ExecOutput> {
        let ends = Instant::now() + deadline;
        let patience = Duration::from_secs(30);
        let started = self
            .call(
                "guest-exec",
                json!({
                    "path": "/bin/sh",
                    "arg": ["-c", RUN],
                    "input-data": STANDARD.encode(script),
                    "capture-output": true,
                }),
                patience,
            )
            .await?;
        let pid = started["pid"].as_i64().context("guest-exec gave no pid")?;
        let mut pause = Duration::from_millis(50);
        loop {
            let status = self
                .call("guest-exec-status", json!({ "pid": pid }), Duration::from_mins(2))
                .await?;
            if status["exited"] == json!(true) {
                return output(&status);
            }
            if Instant::now() >= ends {
                let kill = json!({"path": "/bin/sh", "arg": ["-c", format!("kill -KILL -{pid} {pid}")]});
                self.call("guest-exec", kill, patience).await?;
                bail!(
                    "the script did not end within {} s and was killed",
                    deadline.as_secs()
                );
            }
            sleep(pause.min(ends.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(Duration::from_millis(800));
        }
    }

    /// Asks the guest to reboot. There is no answer when it works.
    pub(super) async fn reboot(&self) -> anyhow::Result<()> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => timeout(Duration::from_secs(5), self.synchronise())
                .await
                .context("the guest is silent")??,
        };
        send(&mut connection, "guest-shutdown", json!({"mode": "reboot"})).await?;
        Ok(())
    }
}

async fn send(connection: &mut BufReader<UnixStream>, command: &str, arguments: Value) -> anyhow::Result<()> {
    let mut line = json!({"execute": command, "arguments": arguments}).to_string();
    line.push('\n');
    connection.write_all(line.as_bytes()).await?;
    Ok(())
}

async fn receive(connection: &mut BufReader<UnixStream>) -> anyhow::Result<Value> {
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line).await?;
    serde_json::from_slice(&line).context("the guest agent's answer is no JSON")
}

fn output(status: &Value) -> anyhow::Result<ExecOutput> {
    // The agent keeps 16 MiB of each stream.
    if status["out-truncated"] == json!(true) || status["err-truncated"] == json!(true) {
        bail!("the script wrote more than the 16 MiB that the guest agent keeps");
    }
    let decode = |key: &str| STANDARD.decode(status[key].as_str().unwrap_or_default());
    // A shell's way to tell of a signal.
    let signal = status["signal"].as_i64().map(|signal| signal + 128);
    let code = status["exitcode"]
        .as_i64()
        .or(signal)
        .context("guest-exec-status gave no exit status")?;
    Ok(ExecOutput {
        status: i32::try_from(code)?,
        stdout: decode("out-data")?,
        stderr: decode("err-data")?,
    })
}
