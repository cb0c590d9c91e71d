//! `cos-bake`: parses the command line, listens to signals, runs one command, prints the error chain once.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use cos_bake::cli::{Cli, Command};
use cos_bake::error::Exit;
use cos_bake::{commands, display};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let cancel = CancellationToken::new();
    if let Err(error) = listen(cancel.clone()) {
        display::talk(&format!(
            "warning: cannot listen to signals ({error}): an interrupt will not clean up"
        ));
    }
    let result = match cli.command {
        Command::Ami(arguments) => commands::ami(arguments, cancel).await,
        Command::Plan(arguments) => commands::plan(arguments, cancel).await,
        Command::Lock(arguments) => commands::lock(arguments, cancel).await,
        Command::Sweep(arguments) => commands::sweep(arguments, cancel).await,
    };
    match result {
        Ok(()) => ExitCode::from(Exit::Done as u8),
        Err(error) => {
            display::failure(&error);
            ExitCode::from(error.exit() as u8)
        }
    }
}

/// Signals this close together are one: a terminal's Ctrl-C reaches the whole group, and a wrapper hands it on again.
const SAME_INTERRUPT: Duration = Duration::from_secs(2);

/// The first interrupt cancels, and the bake cleans up; a later one ends the process where it is.
fn listen(cancel: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first.is_some_and(|first| first.elapsed() < SAME_INTERRUPT) {
                continue;
            }
            if first.is_some() {
                display::talk("interrupted again: ended without cleaning up; `cos-bake sweep` will");
                #[expect(
                    clippy::exit,
                    reason = "the user asked twice to end now, whatever is under way"
                )]
                std::process::exit(Exit::Interrupted as i32);
            }
            display::talk("interrupted: cleaning up (interrupt again to end at once)");
            first = Some(Instant::now());
            cancel.cancel();
        }
    });
    Ok(())
}
