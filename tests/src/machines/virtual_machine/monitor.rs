//! Owns the conversation with QEMU's monitor (QMP): commands with their answers, and events.
//! Touches one Unix socket.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, broadcast};

use super::socket;

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the monitor.
pub(super) struct Monitor {
    writer: Mutex<OwnedWriteHalf>,
    /// Every message of QEMU's; answers carry the id of their command.
    messages: broadcast::Sender<Value>,
    next: AtomicU64,
}

impl Monitor {
    /// Connects and leaves the negotiation phase.
    pub(super) async fn connect(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (reader, writer) = socket::connect(folder, name).await?.into_split();
        let (messages, _) = broadcast::channel(256);
        let sender = messages.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            // Ends with the socket, that is with QEMU.
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(message) = serde_json::from_str::<Value>(&line) {
                    let _nobody_waits = sender.send(message);
                }
            }
        });
        let monitor = Self {
            writer: Mutex::new(writer),
            messages,
            next: AtomicU64::new(1),
        };
        monitor.execute("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    /// Every message from now on.
    pub(super) fn messages(&self) -> broadcast::Receiver<Value> {
        self.messages.subscribe()
    }

    /// Runs one command and returns what it answered.
    pub(super) async fn execute(&self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.messages();
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        let talk = async {
            self.writer.lock().await.write_all(line.as_bytes()).await?;
            loop {
                let message = answers.recv().await.context("the monitor's socket closed")?;
                if message["id"] != json!(id) {
                    continue;
                }
                if let Some(error) = message.get("error") {
                    bail!(
                        "QEMU refused {command}: {}",
                        error["desc"].as_str().unwrap_or_default()
                    );
                }
                return Ok(message["return"].clone());
            }
        };
        tokio::time::timeout(PATIENCE, talk)
            .await
            .with_context(|| format!("QEMU did not answer {command} within {} s", PATIENCE.as_secs()))?
    }
}

/// Waits for the event `name` whose data has `device`, within `patience`.
pub(super) async fn wait_for_device_event(
    messages: &mut broadcast::Receiver<Value>,
    name: &str,
    device: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let wait = async {
        loop {
            let message = messages.recv().await.context("the monitor's socket closed")?;
            if message["event"] == name && message["data"]["device"] == device {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(patience, wait)
        .await
        .with_context(|| format!("{name} for {device} did not come within {} s", patience.as_secs()))?
}
