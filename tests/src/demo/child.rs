//! Owns the demo's child processes: an interrupt is handed on, so that each child cleans up by itself.
//! Touches processes and this process's signals.

use std::process::{Output, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGINT and SIGTERM cancel; from now on neither ends this process.
pub(crate) fn cancelled_by_signals() -> Result<CancellationToken> {
    let cancel = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind)?;
        let cancel = cancel.clone();
        tokio::spawn(async move {
            signals.recv().await;
            cancel.cancel();
        });
    }
    Ok(cancel)
}

/// Runs a child to its end, however it ends; what it printed is in the output unless the command says otherwise.
///
/// A terminal sends its interrupt to the child too; SIGTERM comes to this process alone. The child gets SIGTERM in
/// both cases, and is waited for.
pub(super) async fn run(
    what: &str,
    command: &mut Command,
    stdout: Stdio,
    cancel: &CancellationToken,
) -> Result<Output> {
    let child = command
        .stdout(stdout)
        .spawn()
        .with_context(|| format!("{what} could not be started"))?;
    let process = child.id().and_then(|id| i32::try_from(id).ok());
    let mut ends = std::pin::pin!(child.wait_with_output());
    let output = tokio::select! {
        output = &mut ends => output,
        () = cancel.cancelled() => {
            if let Some(process) = process {
                let _gone = kill(Pid::from_raw(process), Signal::SIGTERM);
            }
            ends.await
        }
    };
    output.with_context(|| format!("{what} cannot be waited for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interrupt_is_handed_on_and_the_child_ends_by_itself() {
        let cancel = CancellationToken::new();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "trap 'kill $!; echo cleaned; exit 3' TERM; sleep 600 & wait",
        ]);
        let interrupted = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            cancel.cancel();
        };
        let (output, ()) = tokio::join!(run("sh", &mut command, Stdio::piped(), &cancel), interrupted);
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"cleaned\n");
    }
}
