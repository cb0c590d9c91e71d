//! `cos-bench`: measures what COS must reach, in a sandbox of its own. `./dev bench` calls it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use cos_tests::bench;
use cos_tests::demo::{self, Tools};

/// Measures COS against its limits; ends with 1 where one is missed.
#[derive(Debug, Parser)]
#[command(name = "cos-bench", after_help = "Example:\n  ./dev bench agent")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The node agent: first boots, memory, calls, beside a script of today's shape.
    Agent(Box<AgentArguments>),
}

#[derive(Debug, clap::Args)]
struct AgentArguments {
    /// Print the lines as JSON.
    #[arg(long)]
    json: bool,
    /// First boots by the agent and by today's script, each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    boots: u32,
    /// Seconds for which an idle watcher is looked at.
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    watch: u64,
    /// Base to bake on.
    #[arg(long, default_value = "al2")]
    base: String,
    /// Folder with the Python package awscli and what it needs.
    #[arg(long, value_name = "FOLDER")]
    aws: PathBuf,
    /// Folder of the mirror that cos-parts made.
    #[arg(long, value_name = "FOLDER")]
    mirror: PathBuf,
    /// Python with moto.
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// Folder of what is slow to make.
    #[arg(long, value_name = "FOLDER")]
    cache: PathBuf,
    /// Folder of the sandbox.
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// Name of the sandbox.
    #[arg(long, default_value = "bench")]
    name: String,
    /// The sandbox's record of calls, where the environment names a sandbox already: only the main job.
    #[arg(long, hide = true, value_name = "FILE")]
    inside: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let What::Agent(arguments) = Cli::parse().what;
    match agent(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn agent(arguments: &AgentArguments) -> anyhow::Result<()> {
    let beside =
        |name: &str| -> anyhow::Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name(name)) };
    let Some(record) = &arguments.inside else {
        return around(arguments, beside("cos-sandbox")?).await;
    };
    let settings = bench::Settings {
        cos_bake: beside("cos-bake")?,
        agent: beside("cos-agent")?,
        base: arguments.base.clone(),
        boots: usize::try_from(arguments.boots)?,
        watch: Duration::from_secs(arguments.watch),
        aws: arguments.aws.clone(),
        record: record.clone(),
        machines: arguments.state.join(&arguments.name).join("machines"),
    };
    let lines = Box::pin(bench::agent(&settings)).await?;
    if arguments.json {
        bench::print_json(&lines)?;
    } else {
        bench::print(&lines);
    }
    let missed: Vec<&str> = lines
        .iter()
        .filter(|line| !line.ok)
        .map(|line| line.name)
        .collect();
    anyhow::ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// Brings a sandbox up, runs this program in it, and takes it down.
async fn around(arguments: &AgentArguments, sandbox: PathBuf) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("could not make a folder for the record")?;
    let record = folder.path().join("record.jsonl").display().to_string();
    let text = |path: &PathBuf| path.display().to_string();
    let pairs = |pairs: &[(&str, String)]| {
        let words = pairs
            .iter()
            .flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
        words.collect::<Vec<_>>()
    };
    let tools = Tools {
        sandbox,
        naming: pairs(&[
            ("--state", text(&arguments.state)),
            ("--name", arguments.name.clone()),
        ]),
        up: pairs(&[
            ("--mirror", text(&arguments.mirror)),
            ("--python", text(&arguments.python)),
            ("--cache", text(&arguments.cache)),
            ("--bases", arguments.base.clone()),
            ("--record", record.clone()),
        ]),
    };
    let mut inside: Vec<String> = std::env::args().skip(1).collect();
    inside.extend(["--inside".to_owned(), record]);
    demo::run(&tools, &inside, false).await
}
