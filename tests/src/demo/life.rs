//! Owns the outer life of a demo: a sandbox comes up, the main job runs in its environment, nothing is left.
//! Touches child processes: `cos-sandbox` and this program itself.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::Steps;
use super::steps::talk;

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

/// Starts a sandbox, runs the main job in its environment, and ends the sandbox unless it is to be kept.
/// `inside` are the arguments with which this program runs the main job.
pub async fn run(tools: &Tools, inside: &[String], keep: bool) -> Result<()> {
    let mut steps = Steps::default();
    let environment = steps.step("sandbox up", up(tools)).await?;
    let told = main_job(&environment, inside).await;
    // What is left is read before the sandbox goes: its own listing is the judge.
    let left = if keep {
        Ok(0)
    } else {
        steps.step("leftovers", leftovers(tools)).await
    };
    if keep && told.is_ok() {
        talk("the cluster is up; `./dev down` ends it. In this shell:");
        for (name, value) in &environment {
            talk(&format!("  export {name}='{value}'"));
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

async fn up(tools: &Tools) -> Result<(Vec<(String, String)>, String)> {
    let output = Command::new(&tools.sandbox)
        .arg("up")
        .arg("--detach")
        .args(&tools.naming)
        .args(&tools.up)
        .stdout(Stdio::piped())
        .spawn()
        .context("cos-sandbox could not be started")?
        .wait_with_output()
        .await
        .context("cos-sandbox could not be started")?;
    if !output.status.success() {
        bail!("cos-sandbox up ended with {}", output.status);
    }
    let exports = String::from_utf8_lossy(&output.stdout);
    let environment: Vec<(String, String)> = exports.lines().filter_map(export).collect();
    let endpoint = environment.iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    let (_, endpoint) = endpoint.context("cos-sandbox up printed no AWS_ENDPOINT_URL")?;
    let outcome = format!("a local EC2 at {endpoint}");
    Ok((environment, outcome))
}

/// One line `export NAME=VALUE`, with or without quotes.
fn export(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    let value = value.trim_matches(|quote| quote == '\'' || quote == '"');
    Some((name.to_owned(), value.to_owned()))
}

async fn down(tools: &Tools) -> Result<((), String)> {
    let status = Command::new(&tools.sandbox)
        .arg("down")
        .args(&tools.naming)
        .stdout(Stdio::null())
        .status()
        .await
        .context("cos-sandbox could not be started")?;
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
    let output = Command::new(&tools.sandbox)
        .arg("list")
        .arg("--json")
        .args(&tools.naming)
        .stdout(Stdio::piped())
        .spawn()
        .context("cos-sandbox could not be started")?
        .wait_with_output()
        .await
        .context("cos-sandbox could not be started")?;
    let listing: Value =
        serde_json::from_slice(&output.stdout).context("cos-sandbox list printed no JSON")?;
    let count = listing["leftovers"]
        .as_u64()
        .context("the listing has no count of leftovers")?;
    Ok((count, listing))
}

/// Runs the main job as a process of its own, for its environment names the sandbox. An interrupt is handed on, and
/// the job cleans up by itself.
async fn main_job(environment: &[(String, String)], inside: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let ledgers = tempfile::tempdir().context("could not make a folder for ledgers")?;
    let mut job = Command::new(program)
        .args(inside)
        // A sandbox's bakes have no place among the ledgers of the user's own.
        .env("COS_LEDGER", ledgers.path())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .spawn()
        .context("the main job could not be started")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            status = job.wait() => {
                let status = status.context("the main job cannot be waited for")?;
                if status.success() {
                    return Ok(());
                }
                bail!("the main job ended with {status}; its own words are above");
            }
            // A terminal sends SIGINT to both; SIGTERM comes here alone.
            _ = interrupt.recv() => talk("interrupted: waiting for the main job to clean up"),
            _ = terminate.recv() => {
                if let Some(process) = job.id().and_then(|id| i32::try_from(id).ok()) {
                    let process = nix::unistd::Pid::from_raw(process);
                    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).ok();
                }
            }
        }
    }
}
