//! Owns the words between moto's plug-in and the executor: one JSON line asks, one JSON line answers.
//! Touches one Unix socket.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::executor::{Executor, Refusal};
use crate::machines::Machines;

/// What the plug-in asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the fields are EC2's own words; each act is documented"
)]
pub enum Act {
    /// States of all instances, volumes and snapshots.
    Observe,
    /// Start a new instance.
    Launch(Box<Launch>),
    /// Start an instance that is stopped.
    Start { id: String },
    /// Stop an instance.
    Stop { id: String, force: bool },
    /// Reboot an instance from outside.
    Reboot { id: String },
    /// End an instance; `now` skips the shutdown of its operating system.
    Terminate { id: String, now: bool },
    /// Replace the tags that the machine sees.
    Tags {
        id: String,
        tags: BTreeMap<String, String>,
    },
    /// Name the role of the instance profile.
    Role { id: String, role: Option<String> },
    /// Set or take back what the machine's metadata tells at a path.
    Notice {
        id: String,
        path: String,
        document: Option<String>,
    },
    /// What the console showed, as base64.
    Console { id: String },
    /// Make a volume.
    VolumeCreate {
        id: String,
        snapshot: Option<String>,
        gib: u64,
    },
    /// Grow a volume.
    VolumeGrow { id: String, gib: u64 },
    /// Remove a volume's bytes.
    VolumeDelete { id: String },
    /// Attach a volume to an instance.
    VolumeAttach {
        id: String,
        instance: String,
        device: String,
    },
    /// Detach a volume from an instance.
    VolumeDetach { id: String, instance: String },
    /// Make snapshots of volumes at one moment; `reboot` names the instance to stop for it and start again.
    SnapshotCreate {
        snapshots: Vec<SnapshotOf>,
        reboot: Option<String>,
    },
    /// Make a snapshot of a snapshot.
    SnapshotCopy { id: String, source: String },
    /// Remove a snapshot's bytes.
    SnapshotDelete { id: String },
    /// Open a snapshot for blocks (EBS direct APIs).
    UploadStart { id: String, gib: u64 },
    /// Seal it: `changed` blocks were put, and their LINEAR checksum is this.
    UploadComplete {
        id: String,
        changed: u64,
        checksum: Option<String>,
    },
    /// Run a script on an instance.
    CommandSend {
        command: String,
        instance: String,
        script: String,
        delivery: u64,
        execution: u64,
    },
    /// What became of it.
    CommandGet { command: String, instance: String },
    /// Cancel it.
    CommandCancel { command: String, instance: String },
}

/// One snapshot to make.
#[derive(Debug, Clone, Deserialize)]
pub struct SnapshotOf {
    /// Id of the new snapshot.
    pub id: String,
    /// The volume it is taken of.
    pub volume: String,
}

/// A new instance, in EC2's words.
#[derive(Debug, Clone, Deserialize)]
pub struct Launch {
    /// Instance id.
    pub id: String,
    /// Private address.
    pub address: Ipv4Addr,
    /// AMI id.
    pub image: String,
    /// Device name of the root volume.
    pub root_device: String,
    /// All volumes, the root among them.
    pub volumes: Vec<LaunchVolume>,
    /// Account id.
    pub account: String,
    /// Region.
    pub region: String,
    /// Availability zone.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// Architecture.
    pub architecture: String,
    /// User data as base64 of the exact bytes.
    pub user_data: Option<String>,
    /// Tags at launch.
    pub tags: BTreeMap<String, String>,
    /// Whether the metadata service shows them.
    pub instance_tags: bool,
    /// Whether the metadata service wants a token.
    pub token_required: bool,
    /// Role of the instance profile.
    pub role: Option<String>,
    /// Whether the machine ends when it powers off from inside (else it is stopped).
    pub terminate_on_shutdown: bool,
}

/// One volume of a new instance.
#[derive(Debug, Clone, Deserialize)]
pub struct LaunchVolume {
    /// Volume id.
    pub volume: String,
    /// Device name.
    pub device: String,
    /// Snapshot its bytes come from.
    pub snapshot: Option<String>,
    /// Size in GiB.
    pub gib: u64,
}

/// Answers the plug-in on a Unix socket until it is dropped.
pub async fn serve<M: Machines>(socket: PathBuf, executor: Arc<Executor<M>>) -> Result<()> {
    // A socket file that a crashed sandbox left behind would block the name.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("socket {} cannot be opened", socket.display()))?;
    let _removed_at_the_end = SocketFile(socket);
    loop {
        let (stream, _) = listener.accept().await.context("socket of the plug-in failed")?;
        let executor = Arc::clone(&executor);
        tokio::spawn(async move {
            // The plug-in went away in the middle: it has no one left to tell.
            let _ = converse(stream, &executor).await;
        });
    }
}

/// The socket's file, which goes with it.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn converse<M: Machines>(stream: UnixStream, executor: &Arc<Executor<M>>) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str::<Act>(&line) {
            Ok(act) => executor.act(act).await,
            Err(error) => Err(Refusal::internal(format!("act not understood: {error}"))),
        };
        let mut text = serde_json::to_vec(&reply(answer))?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
    Ok(())
}

fn reply(answer: Result<Value, Refusal>) -> Value {
    match answer {
        Ok(value) => json!({"ok": value}),
        Err(refusal) => json!({"error": refusal}),
    }
}

/// What a command left behind, as Run Command reports it.
#[derive(Debug, Clone, Serialize)]
pub struct CommandReport {
    /// Pending, InProgress, Success, Failed, TimedOut, Cancelled.
    pub status: &'static str,
    /// The same in more words.
    pub details: &'static str,
    /// Exit status; -1 while there is none.
    pub code: i32,
    /// First 24,000 characters of standard output.
    pub stdout: String,
    /// First 8,000 characters of standard error.
    pub stderr: String,
    /// Seconds since the epoch at which it started, if it did.
    pub started: Option<f64>,
    /// Seconds since the epoch at which it ended, if it did.
    pub ended: Option<f64>,
}
