//! `cos-demo`: the whole of COS on one machine, from a base image to a job that answers. `./dev demo` calls it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cos_tests::demo::{self, Tools};

/// Bakes an image in a sandbox, starts a cluster from it, runs a job, asks it, and takes everything down.
#[derive(Debug, Parser)]
#[command(name = "cos-demo", after_help = "Example:\n  ./dev demo --keep")]
struct Arguments {
    /// Leave the cluster up and say how to reach it.
    #[arg(long)]
    keep: bool,
    /// Base to bake on.
    #[arg(long, default_value = "al2")]
    base: String,
    /// The program cos-bake; the one beside this program where it is not named.
    #[arg(long, value_name = "FILE")]
    cos_bake: Option<PathBuf>,
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
    #[arg(long, default_value = "cos")]
    name: String,
    /// File that every call to the sandbox is recorded in.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The environment names a sandbox already: only the main job.
    #[arg(long, hide = true)]
    inside: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let beside =
        |name: &str| -> anyhow::Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name(name)) };
    let cos_bake = match &arguments.cos_bake {
        Some(path) => path.clone(),
        None => beside("cos-bake")?,
    };
    if arguments.inside {
        return demo::main_job(&cos_bake, &arguments.base, arguments.keep).await;
    }
    let text = |path: &PathBuf| path.display().to_string();
    let mut up = vec![
        "--mirror".to_owned(),
        text(&arguments.mirror),
        "--python".to_owned(),
        text(&arguments.python),
        "--cache".to_owned(),
        text(&arguments.cache),
    ];
    if let Some(record) = &arguments.record {
        up.extend(["--record".to_owned(), text(record)]);
    }
    let tools = Tools {
        sandbox: beside("cos-sandbox")?,
        naming: vec![
            "--state".to_owned(),
            text(&arguments.state),
            "--name".to_owned(),
            arguments.name.clone(),
        ],
        up,
    };
    let mut inside: Vec<String> = std::env::args().skip(1).collect();
    inside.push("--inside".to_owned());
    demo::run(&tools, &inside, arguments.keep).await
}
