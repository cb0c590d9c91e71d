//! Owns the outer life of a demo: a sandbox comes up, the main job runs in its environment, nothing is left.
//! Touches child processes: `cos-sandbox` and this program itself.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::Steps;
use super::child::{self, cancelled_by_signals};
use super::steps::talk;
use crate::sandbox::session;

/// Longest time that machines get to shut down after they were told to.
const SHUTDOWN_DEADLINE: Duration = Duration::from_mins(4);

/// Where the demo's tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The program `cos-sandbox`.
    pub sandbox: PathBuf,
    /// Arguments of `cos-sandbox` that name this sandbox, such as `--state DIR`.
    pub naming: Vec<String>,
    /// Further arguments of `cos-sandbox up`.
    pub up: Vec<String>,
}

impl Tools {
    fn cos_sandbox(&self, command: &str) -> Command {
        let mut sandbox = Command::new(&self.sandbox);
        sandbox.arg(command).args(&self.naming);
        sandbox
    }
}

/// Starts a sandbox, runs the main job in its environment, and ends the sandbox unless it is to be kept.
/// `inside` are the arguments with which this program runs the main job.
pub async fn run(tools: &Tools, inside: &[String], keep: bool) -> Result<()> {
    let cancel = cancelled_by_signals()?;
    let mut steps = Steps::default();
    let environment = steps.step("sandbox up", up(tools, &cancel)).await?;
    let told = main_job(&environment, inside, &cancel).await;
    // What is left is read before the sandbox goes: its own listing is the judge.
    let left = if keep {
        Ok(0)
    } else {
        steps.step("leftovers", leftovers(tools)).await
    };
    if keep && told.is_ok() {
        talk("the cluster is up; `./dev down` ends it. In this shell:");
        for (name, value) in &environment {
            talk(&format!("  {}", session::export_line(name, value)));
        }
    } else {
        steps.step("sandbox down", down(tools)).await?;
    }
    told?;
    let left = left?;
    steps.print();
    if left > 0 {
        bail!("{left} things are left in the sandbox");
    }
    Ok(())
}

async fn up(tools: &Tools, cancel: &CancellationToken) -> Result<(Vec<(String, String)>, String)> {
    let mut command = tools.cos_sandbox("up");
    command.arg("--detach").args(&tools.up);
    let output = child::run("cos-sandbox up", &mut command, Stdio::piped(), cancel).await?;
    if !output.status.success() {
        bail!("cos-sandbox up ended with {}", output.status);
    }
    let exports = String::from_utf8_lossy(&output.stdout);
    let environment: Vec<(String, String)> = exports.lines().filter_map(session::export).collect();
    let endpoint = environment.iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    let (_, endpoint) = endpoint.context("cos-sandbox up printed no AWS_ENDPOINT_URL")?;
    let outcome = format!("a local EC2 at {endpoint}");
    Ok((environment, outcome))
}

async fn down(tools: &Tools) -> Result<((), String)> {
    let mut command = tools.cos_sandbox("down");
    let nobody = CancellationToken::new();
    let status = child::run("cos-sandbox down", &mut command, Stdio::null(), &nobody)
        .await?
        .status;
    if !status.success() {
        bail!("cos-sandbox down ended with {status}");
    }
    Ok(((), "all machines, namespaces and mounts are gone".to_owned()))
}

/// How many things the sandbox's own listing still holds, once machines that shut down have had their time.
async fn leftovers(tools: &Tools) -> Result<(u64, String)> {
    let end = Instant::now() + SHUTDOWN_DEADLINE;
    loop {
        let (count, listing) = listing(tools).await?;
        if count > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if count > 0 {
            talk(&format!("left in the sandbox: {listing:#}"));
        }
        return Ok((count, format!("{count} by the sandbox's own listing")));
    }
}

async fn listing(tools: &Tools) -> Result<(u64, Value)> {
    let mut command = tools.cos_sandbox("list");
    let nobody = CancellationToken::new();
    let output = child::run("cos-sandbox list", command.arg("--json"), Stdio::piped(), &nobody).await?;
    let listing: Value =
        serde_json::from_slice(&output.stdout).context("cos-sandbox list printed no JSON")?;
    let count = listing["leftovers"]
        .as_u64()
        .context("the listing has no count of leftovers")?;
    Ok((count, listing))
}

/// Runs the main job as a process of its own, for its environment names the sandbox.
async fn main_job(
    environment: &[(String, String)],
    inside: &[String],
    cancel: &CancellationToken,
) -> Result<()> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let ledgers = tempfile::tempdir().context("could not make a folder for ledgers")?;
    let mut job = Command::new(program);
    job.args(inside)
        // A sandbox's bakes have no place among the ledgers of the user's own.
        .env("COS_LEDGER", ledgers.path())
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let status = child::run("the main job", &mut job, Stdio::inherit(), cancel)
        .await?
        .status;
    if !status.success() {
        bail!("the main job ended with {status}; its own words are above");
    }
    Ok(())
}
