//! `cos-parts`: makes the mirror folder of real, signed archives that the sandbox serves.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cos_tests::parts;

/// Makes the sandbox's mirror of HashiCorp's, Docker's and the CNI project's downloads, and prints its folder.
///
/// Real Nomad, Consul and CNI plug-ins are built from Go's module proxy, Docker is Debian's own; all of it is
/// cached. Needs Go, gcc and Debian's or Ubuntu's apt-get, and no root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder that keeps the parts between runs; about 600 MB.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Make the folder of older versions instead, which the agent's tests ask for their judgement.
    #[arg(long)]
    older: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let say = |line: &str| talk(&format!("cos-parts [{:>4} s] {line}", began.elapsed().as_secs()));
    let made = if arguments.older {
        parts::older_products(&arguments.cache, &say)
    } else {
        parts::prepare(&arguments.cache, &say).map(|mirror| mirror.folder)
    };
    match made {
        Ok(folder) => {
            print(&folder.display().to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let hint = error.hint();
            talk(&format!("error: {:#}", anyhow::Error::from(error)));
            if let Some(hint) = hint {
                talk(&format!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the one place of this program that gives data"
)]
fn print(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the one place of this program that talks")]
fn talk(line: &str) {
    eprintln!("{line}");
}
