//! `cos-sandbox`: starts, lists and ends the local EC2, and tells its instances that they must go.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use cos_tests::api::executor::MachineChoice;
use cos_tests::api::faults::Rule;
use cos_tests::api::notice::Notice;
use cos_tests::api::timeline::Timeline;
use cos_tests::machines::Fleet;
use cos_tests::sandbox::real::{self, Missing, Places};
use cos_tests::sandbox::session::{self, Process, Session};
use cos_tests::sandbox::{NOTICE, Settings};

/// A local EC2 whose instances are real machines: AWS's API on loopback, virtual machines and containers behind it.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: eval \"$(cos-sandbox up --detach)\" && aws ec2 describe-images --owners amazon"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a sandbox; prints lines for eval that make AWS's tools talk to it.
    Up(Box<Up>),
    /// Lists all that it holds beyond its start; the last line counts the leftovers.
    List {
        #[command(flatten)]
        which: Which,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lets an instance's metadata tell that it must go, as EC2 and Auto Scaling do; nothing else happens to it.
    #[command(after_help = "Example: cos-sandbox notice i-0123456789abcdef0 spot --in 2m")]
    Notice {
        #[command(flatten)]
        which: Which,
        /// Instance id.
        instance: String,
        #[command(subcommand)]
        notice: Notice,
    },
    /// Ends it and removes all that it made, also after a crash.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Shows what it said.
    Logs {
        #[command(flatten)]
        which: Which,
        /// moto's log instead of the sandbox's.
        #[arg(long)]
        moto: bool,
    },
}

/// Which sandbox.
#[derive(Debug, Clone, Args)]
struct Which {
    /// Name of the sandbox: letters, digits and dashes, at most 20.
    #[arg(long, default_value = "cos")]
    name: String,
    /// Folder in which sandboxes keep their disks and logs.
    #[arg(long, env = "COS_SANDBOX_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct Up {
    #[command(flatten)]
    which: Which,
    /// Loopback port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Minimum times: `instant` (only real time) or `aws` (as AWS takes them).
    #[arg(long, default_value = "instant")]
    timeline: Timeline,
    /// Appends one JSON line for each call to FILE.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Injects a fault: SERVICE:OPERATION[:nth=N|:first=N]:EFFECT with error=500|503|CODE, throttle, drop,
    /// hang=SECONDS or not-found=N. May be repeated.
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<Rule>,
    /// What instances are made of; `auto` takes a virtual machine for a bake and a container for the rest.
    #[arg(long, value_enum, default_value = "auto")]
    machines: MachineChoice,
    /// Folder to serve as the download mirror (COS_MIRROR).
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    /// Base images that can be started.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "al1,al2,al2023",
        value_name = "NAMES"
    )]
    bases: Vec<String>,
    /// Region of the base images.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Python interpreter that has moto.
    #[arg(long, env = "COS_SANDBOX_PYTHON", value_name = "PATH")]
    python: Option<PathBuf>,
    /// Folder of base disks.
    #[arg(long, env = "COS_DEV_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Starts it in the background and returns when it answers.
    #[arg(long)]
    detach: bool,
}

impl Which {
    fn state(&self) -> Result<PathBuf> {
        match &self.state {
            Some(state) => Ok(std::path::absolute(state)?),
            None => Ok(cache_folder()?.join("sandbox")),
        }
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(self.state()?.join(&self.name))
    }
}

fn cache_folder() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let named = named.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let missing = || {
        Missing::new(
            "neither HOME nor XDG_CACHE_HOME is set",
            "give --cache and --state",
        )
    };
    Ok(named.ok_or_else(missing)?.join("cos"))
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(up) if up.detach => in_runtime(detach(*up)),
        Command::Up(up) => in_runtime(foreground(*up)),
        Command::List { which, json } => in_runtime(list(which, json)),
        Command::Notice {
            which,
            instance,
            notice,
        } => in_runtime(tell(which, instance, notice)),
        Command::Down { which } => in_runtime(down(which)),
        Command::Logs { which, moto } => logs(&which, moto),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
            talk(&format!("error: {}", chain.join(": ")));
            if let Some(missing) = error.chain().find_map(|it| it.downcast_ref::<Missing>()) {
                talk(&format!("hint: {}", missing.hint));
            }
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no threads")?;
    let done = runtime.block_on(work);
    // Not a wait for threads: one may wait for another process that makes a base disk.
    runtime.shutdown_background();
    done
}

async fn detach(up: Up) -> Result<()> {
    let mut signals = signals()?;
    let folder = up.which.folder()?;
    refuse_a_second(&folder, &up.which.name)?;
    // The same command line, so that no option can be forgotten here.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--detach").collect();
    let session = session::detach(&folder, &arguments, talk, told_to_end(&mut signals)).await?;
    session.exports().iter().for_each(|line| data(line));
    Ok(())
}

fn refuse_a_second(folder: &Path, name: &str) -> Result<(), Missing> {
    if Process::find(folder).is_none() {
        return Ok(());
    }
    let hint = "cos-sandbox down ends it; --name gives another its own name";
    Err(Missing::new(format!("the sandbox '{name}' runs already"), hint))
}

type Signals = (tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn signals() -> Result<Signals> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

async fn foreground(up: Up) -> Result<()> {
    let mut signals = signals()?;
    let folder = up.which.folder()?;
    refuse_a_second(&folder, &up.which.name)?;
    let cache = match &up.cache {
        Some(cache) => std::path::absolute(cache)?,
        None => cache_folder()?,
    };
    let Some(python) = up.python.clone() else {
        return Err(Missing::new("no Python interpreter that has moto was named", real::MOTO_HINT).into());
    };
    real::check_host(&python)?;
    let mirror = up.mirror.as_deref().map(std::path::absolute).transpose()?;
    if let Some(mirror) = &mirror
        && !mirror.is_dir()
    {
        let fact = format!("there is no mirror folder {}", mirror.display());
        return Err(Missing::new(fact, "cos-parts makes one and prints its path").into());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Process::keep(&folder)?;
    talk(&format!("note: {NOTICE}"));
    let settings = Settings {
        name: up.which.name.clone(),
        folder: folder.clone(),
        region: up.region.clone(),
        timeline: up.timeline,
        machines: up.machines,
        record: up.record,
        faults: up.faults,
        mirror: mirror.clone(),
        python,
        bases: Vec::new(),
    };
    let places = Places {
        cache,
        state: up.which.state()?,
    };
    let interrupted = told_to_end(&mut signals);
    let mut sandbox = real::up(settings, up.port, &places, &up.bases, talk, interrupted).await?;
    let session = Session::of_this_process(sandbox.running.address, &up.region, mirror.as_deref());
    session.keep(&folder)?;
    talk(&format!(
        "sandbox '{}' answers at http://{}",
        up.which.name, session.address
    ));
    session.exports().iter().for_each(|line| data(line));
    let failed = tokio::select! {
        () = told_to_end(&mut signals) => None,
        error = sandbox.running.failed() => Some(error),
    };
    let removed = sandbox.down().await?;
    session::remove_files(&folder)?;
    for thing in removed {
        talk(&format!("ended {thing}"));
    }
    failed.map_or(Ok(()), Err)
}

async fn told_to_end((terminate, interrupt): &mut Signals) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn list(which: Which, as_json: bool) -> Result<()> {
    let folder = which.folder()?;
    let Some(session) = Session::find(&folder) else {
        let starts = Process::find(&folder).is_some();
        let left = session::left_by_a_crash(&folder);
        let note = if starts {
            "starts"
        } else if left.is_empty() {
            "does not run"
        } else {
            "crashed; cos-sandbox down removes what it left"
        };
        if as_json {
            data(&json!({"runs": false, "note": note, "host": left, "leftovers": left.len()}).to_string());
        } else {
            data(&format!("the sandbox '{}' {note}", which.name));
            for thing in &left {
                data(&format!("{:<20} {thing}", "host"));
            }
            data(&format!("leftovers: {}", left.len()));
        }
        return Ok(());
    };
    let client = reqwest::Client::builder().no_proxy().build()?;
    let reply = client
        .get(format!("{}/state", session.control()))
        .send()
        .await?
        .error_for_status()?;
    let state: Value = serde_json::from_str(&reply.text().await?)?;
    if as_json {
        data(&serde_json::to_string_pretty(&state)?);
        return Ok(());
    }
    data(&format!(
        "sandbox {} at http://{} ({NOTICE})",
        which.name, session.address
    ));
    for (kind, things) in state["held"].as_object().into_iter().flatten() {
        for thing in things.as_array().into_iter().flatten() {
            let words: Vec<&str> = ["id", "state", "name", "group", "lifecycle"]
                .iter()
                .filter_map(|key| thing[key].as_str())
                .collect();
            data(&format!("{kind:<20} {}", words.join("  ")));
        }
    }
    for kind in ["disks", "commands", "host"] {
        for thing in state[kind]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            data(&format!("{kind:<20} {thing}"));
        }
    }
    data(&format!("leftovers: {}", state["leftovers"]));
    Ok(())
}

async fn tell(which: Which, instance: String, notice: Notice) -> Result<()> {
    let Some(session) = Session::find(&which.folder()?) else {
        let fact = format!("the sandbox '{}' does not run", which.name);
        return Err(Missing::new(fact, "cos-sandbox up starts it; --state and --name say which one").into());
    };
    let mut body = serde_json::to_value(&notice)?;
    body["instance"] = json!(instance);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client
        .post(format!("{}/notice", session.control()))
        .header("content-type", "application/json");
    let reply = request.body(body.to_string()).send().await?;
    let (status, said) = (reply.status(), reply.text().await?);
    anyhow::ensure!(status.is_success(), "{}", said.trim());
    data(said.trim());
    Ok(())
}

async fn down(which: Which) -> Result<()> {
    let folder = which.folder()?;
    let ran = session::end(&folder)?;
    let cleaned = Fleet::clean_after_crash(&which.state()?, &which.name).await?;
    for thing in &cleaned {
        talk(&format!("removed what a crash had left: {thing}"));
    }
    session::remove_files(&folder)?;
    let end = if ran { "ended" } else { "did not run" };
    talk(&format!(
        "sandbox '{}' {end}; nothing of it is left but its logs in {}",
        which.name,
        folder.display()
    ));
    Ok(())
}

fn logs(which: &Which, moto: bool) -> Result<()> {
    let folder = which.folder()?;
    let path = if moto {
        folder.join("moto.log")
    } else {
        session::log(&folder)
    };
    data(session::tail(&path, 256 << 10)?.trim_end());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the one place of data")]
fn data(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the one place of talk")]
fn talk(line: &str) {
    eprintln!("{line}");
}
