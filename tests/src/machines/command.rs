//! Owns the running of this machine's own tools (`ip`, `mount`, …) to their end.
//! Touches whatever the tool touches; adds what it said to the error.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

/// Runs a short tool to its end and returns its standard output.
///
/// It is not killed when the caller stops waiting: these tools end by themselves within moments, and a
/// half-run `ip` or `mount` would leave more than a whole one.
pub(crate) async fn run<I, S>(program: &str, arguments: I) -> anyhow::Result<Vec<u8>>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let shown: Vec<_> = command.as_std().get_args().map(OsStr::to_string_lossy).collect();
    let talk = String::from_utf8_lossy(&output.stderr);
    bail!(
        "'{program} {}' ended with {}: {}",
        shown.join(" "),
        output.status,
        talk.trim()
    );
}
