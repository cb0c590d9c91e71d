//! Owns running other programs: with a deadline, with their output, never through a shell.
//! Touches child processes.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// A program to run, with everything that decides what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Name (found by `PATH`) or absolute path.
    pub program: String,
    /// Arguments, none of them secret: they show in the process list.
    pub arguments: Vec<String>,
    /// Longest time it may take; it is killed after that.
    pub deadline: Duration,
}

impl Invocation {
    /// A program that must end within `deadline`.
    pub fn new<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>, deadline: Duration) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            deadline,
        }
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.program)?;
        self.arguments
            .iter()
            .try_for_each(|argument| write!(formatter, " {argument}"))
    }
}

/// What a program left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status, or none if a signal ended it.
    pub status: Option<i32>,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

/// A program could not be run to a good end.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It could not be started, usually because it is not installed.
    #[error("could not start `{invocation}`")]
    Start {
        /// What was run.
        invocation: Invocation,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It was killed at its deadline.
    #[error("`{invocation}` did not end within {:?}", invocation.deadline)]
    Deadline {
        /// What was run.
        invocation: Invocation,
    },
    /// It ended with another status than 0.
    #[error("`{invocation}` ended with {}: {}", status.map_or("a signal".to_owned(), |status| format!("status {status}")), message.trim())]
    Failed {
        /// What was run.
        invocation: Invocation,
        /// Exit status, or none if a signal ended it.
        status: Option<i32>,
        /// The end of what it said.
        message: String,
    },
}

/// Runs programs; the fake in tests answers from a script.
pub trait Programs {
    /// Runs to the end and returns status and output, whatever the status is.
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError>;

    /// Runs to the end; any status but 0 is an error.
    fn check(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        let output = self.run(invocation)?;
        if output.status == Some(0) {
            return Ok(output);
        }
        let said = if output.stderr.trim().is_empty() {
            &output.stdout
        } else {
            &output.stderr
        };
        let start = said.char_indices().rev().nth(2000).map_or(0, |(index, _)| index);
        Err(ProgramError::Failed {
            invocation: invocation.clone(),
            status: output.status,
            message: said[start..].to_owned(),
        })
    }
}

/// Runs programs on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealPrograms;

impl Programs for RealPrograms {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        let start = |source| ProgramError::Start {
            invocation: invocation.clone(),
            source,
        };
        let mut child = Command::new(&invocation.program)
            .args(&invocation.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let status = wait(&mut child, invocation.deadline).map_err(start)?;
        let Some(status) = status else {
            return Err(ProgramError::Deadline {
                invocation: invocation.clone(),
            });
        };
        let end = Instant::now() + PIPES_DEADLINE;
        Ok(Output {
            status: status.code(),
            stdout: stdout.until(end),
            stderr: stderr.until(end),
        })
    }
}

/// Longest time to read what a program that has ended left in its pipes. A daemon that it started may hold them open
/// for as long as it lives.
const PIPES_DEADLINE: Duration = Duration::from_secs(2);

/// What was read of a stream so far, and the word that it has ended.
struct Reader {
    read: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Reader {
    let read = Arc::default();
    let (end, ended) = mpsc::channel();
    if let Some(mut stream) = stream {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::clone(&read);
        thread::spawn(move || {
            let mut piece = [0; 8192];
            loop {
                match stream.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => lock(&bytes).extend_from_slice(&piece[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            // Nobody listens once the deadline has passed.
            let _ = end.send(());
        });
    }
    Reader { read, ended }
}

impl Reader {
    /// Everything up to the end of the stream, or up to a moment.
    fn until(self, end: Instant) -> String {
        // Both errors mean the same: no more is to be expected.
        let _ = self
            .ended
            .recv_timeout(end.saturating_duration_since(Instant::now()));
        String::from_utf8_lossy(&lock(&self.read)).into_owned()
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    // Bytes are only ever appended, so a panic elsewhere leaves whole ones behind.
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the child; kills it at the deadline and returns none.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // An eighth of what it took so far: a short program is not made longer, a long one is not watched closely.
        let pause = start.elapsed() / 8;
        thread::sleep(pause.clamp(Duration::from_micros(200), Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_past_its_deadline_is_killed() {
        let sleep = Invocation::new("sleep", ["30"], Duration::from_millis(50));
        let start = Instant::now();
        assert!(matches!(
            RealPrograms.run(&sleep),
            Err(ProgramError::Deadline { .. })
        ));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_daemon_that_a_program_leaves_behind_is_not_waited_for() {
        let shell = Invocation::new("sh", ["-c", "echo started; sleep 20 &"], Duration::from_secs(10));
        let start = Instant::now();
        let output = RealPrograms.run(&shell).unwrap();
        assert_eq!((output.status, output.stdout.as_str()), (Some(0), "started\n"));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn all_of_a_long_output_is_there() {
        let seq = Invocation::new("seq", ["200000"], Duration::from_secs(30));
        let output = RealPrograms.run(&seq).unwrap();
        assert!(output.stdout.starts_with("1\n2\n") && output.stdout.ends_with("\n200000\n"));
    }

    #[test]
    fn a_failure_carries_status_and_words() {
        let ls = Invocation::new("ls", ["/nonexistent"], Duration::from_secs(5));
        let error = RealPrograms.check(&ls).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
