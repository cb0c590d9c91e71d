//! Owns how the parts start other programs: with a heartbeat while they run, and the end of what they said
//! when they fail. Touches processes.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{PartsError, Say};

/// Silence longer than this looks like a hang.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Lines of a failed program that its error shows.
const TAIL: usize = 12;

/// Runs a program to its end and gives its standard output.
pub(super) fn output(what: &str, command: &mut Command) -> Result<String, PartsError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| tool(command, source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: VecDeque<&str> = said.lines().collect();
    let tail = lines
        .iter()
        .skip(lines.len().saturating_sub(TAIL))
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    Err(PartsError::Failed {
        what: what.to_owned(),
        status: output.status,
        tail,
    })
}

/// Runs a long program; `say` hears every [`HEARTBEAT`] how many lines it has written to its standard error.
/// `unit` names what one such line stands for.
pub(super) fn watched(what: &str, unit: &str, command: &mut Command, say: Say<'_>) -> Result<(), PartsError> {
    let began = Instant::now();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| tool(command, source))?;
    let (sender, lines) = channel();
    let reader = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })
    });
    let (mut count, mut tail, mut spoken) = (0_usize, VecDeque::new(), began);
    loop {
        match lines.recv_timeout(HEARTBEAT.saturating_sub(spoken.elapsed())) {
            Ok(line) => {
                count += 1;
                tail.push_back(line);
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if spoken.elapsed() >= HEARTBEAT {
            say(&format!(
                "{what}: {count} {unit} after {} s",
                began.elapsed().as_secs()
            ));
            spoken = Instant::now();
        }
    }
    if let Some(reader) = reader {
        // It ended when the pipe closed; a panic in it would only mean a shorter tail.
        let _ = reader.join();
    }
    let status = child.wait().map_err(|source| tool(command, source))?;
    if status.success() {
        say(&format!("{what}: done in {} s", began.elapsed().as_secs()));
        return Ok(());
    }
    Err(PartsError::Failed {
        what: what.to_owned(),
        status,
        tail: Vec::from(tail).join("\n"),
    })
}

fn tool(command: &Command, source: std::io::Error) -> PartsError {
    PartsError::Tool {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_end_of_what_was_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 20 >&2; exit 3"]);
        let error = watched("counting", "lines", &mut command, &|_| {})
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("counting failed (exit status: 3): 9\n10\n"),
            "{error}"
        );
        assert!(error.ends_with("\n20"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output("nothing", &mut Command::new("no-such-program-here")).unwrap_err();
        assert_eq!(error.to_string(), "could not start no-such-program-here");
    }
}
