//! Owns having the node compared with its configuration and its secrets from time to time, and saying what came of it.
//! Touches a process of its own, which does it: nothing of that may hold up a drain, nor stay in this one's memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::cause::Wish;
use super::engine::Engine;
use super::event::Event;
use super::notice::Posture;
use crate::node::config::OnDrift;
use crate::node::reconcile::{Pending, Reconciled};

/// How often it is looked whether one that runs has ended.
const POLL: Duration = Duration::from_secs(1);
/// Longest time that one may take: what it asks has deadlines of its own, which are shorter.
const PATIENCE: Duration = Duration::from_mins(5);

/// Whoever compares the node.
pub trait Upkeep {
    /// Begins. Must return at once.
    fn begin(&mut self, dry_run: bool) -> Result<(), String>;
    /// How it ended; none while it runs.
    fn ended(&mut self) -> Option<Result<Reconciled, String>>;
}

/// When the node is compared next, and what was said of it last.
#[derive(Debug)]
pub(super) struct Diary {
    due: Duration,
    running: bool,
    pending: Vec<Pending>,
}

impl Diary {
    /// Nodes that were launched together must not ask together: `share` of the interval goes by before the first time.
    pub(super) fn new(first: Duration) -> Self {
        Self {
            due: first,
            running: false,
            pending: Vec::new(),
        }
    }

    /// How long until there is something to do.
    pub(super) fn pause(&self, ticks: Duration) -> Duration {
        match self.due.checked_sub(ticks) {
            _ if self.running => POLL,
            Some(left) if !left.is_zero() => left,
            // What keeps it from being compared now will be told of.
            _ => Duration::MAX,
        }
    }
}

impl Engine<'_> {
    /// Has the node compared if it is time, and hears of one that has ended.
    pub(super) fn keep_up(&mut self, wish: &Wish) {
        const NAME: &str = "the node's configuration";
        let ticks = self.ports.clock.ticks();
        let Some(upkeep) = self.ports.upkeep.as_deref_mut() else {
            return;
        };
        if self.diary.running {
            let Some(ended) = upkeep.ended() else { return };
            self.diary.running = false;
            match ended {
                Ok(reconciled) => {
                    self.trouble(NAME, None);
                    self.say_reconciled(reconciled);
                }
                Err(problem) => self.trouble(NAME, Some(problem)),
            }
            return;
        }
        // A node on its way in or out is changed by nobody else.
        let at_work = wish.posture == Posture::Serving && wish.arriving.is_none() && !wish.going_down;
        if self.spec.drift == OnDrift::Ignore || ticks < self.diary.due || !at_work {
            return;
        }
        self.diary.due = ticks + self.spec.intervals.drift;
        match upkeep.begin(self.spec.drift == OnDrift::Report) {
            Ok(()) => self.diary.running = true,
            Err(problem) => self.trouble(NAME, Some(problem)),
        }
    }

    /// What was put right is said each time; what waits, when it changes.
    fn say_reconciled(&mut self, reconciled: Reconciled) {
        let Reconciled { repaired, pending } = reconciled;
        let news = pending != self.diary.pending;
        if repaired.is_empty() && !news {
            return;
        }
        self.diary.pending.clone_from(&pending);
        self.tell(&Event::Reconciled {
            dry_run: self.spec.drift == OnDrift::Report,
            repaired,
            pending,
        });
    }
}

/// `cos-agent reconcile`, in a process of its own.
#[derive(Debug)]
pub(super) struct OwnProcess {
    program: PathBuf,
    arguments: Vec<String>,
    patience: Duration,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    since: Instant,
    said: File,
    complained: File,
}

impl OwnProcess {
    /// It asks the metadata service and Consul there.
    pub(super) fn new(imds: &str, consul: &str) -> Self {
        let arguments = ["reconcile", "--json", "--imds", imds, "--consul", consul];
        Self {
            // This very program, also where it was replaced by a newer one since.
            program: PathBuf::from("/proc/self/exe"),
            arguments: arguments.map(str::to_owned).to_vec(),
            patience: PATIENCE,
            running: None,
        }
    }

    fn spawn(&self, dry_run: bool) -> std::io::Result<Running> {
        // Files, because nobody reads while it runs: a pipe that is full would hold it up.
        let (said, complained) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .args(dry_run.then_some("--dry-run"))
            // Ready and alive is this process, not that one.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(complained.try_clone()?)
            .spawn()?;
        Ok(Running {
            child,
            since: Instant::now(),
            said,
            complained,
        })
    }
}

impl Upkeep for OwnProcess {
    fn begin(&mut self, dry_run: bool) -> Result<(), String> {
        let running = self.spawn(dry_run);
        self.running =
            Some(running.map_err(|error| format!("cos-agent reconcile could not be started: {error}"))?);
        Ok(())
    }

    fn ended(&mut self) -> Option<Result<Reconciled, String>> {
        let running = self.running.as_mut()?;
        let ended = match running.child.try_wait() {
            Ok(None) if running.since.elapsed() < self.patience => return None,
            Ok(None) => {
                // It has ended by itself meanwhile, or ends now.
                let _ = running.child.kill();
                let _ = running.child.wait();
                Err(format!("it did not end within {} s", self.patience.as_secs()))
            }
            Ok(Some(status)) => running.result(status),
            Err(error) => Err(error.to_string()),
        };
        self.running = None;
        Some(ended)
    }
}

impl Running {
    fn result(&mut self, status: ExitStatus) -> Result<Reconciled, String> {
        if status.success() {
            return serde_json::from_str(&text(&mut self.said)).map_err(|error| error.to_string());
        }
        let complained = text(&mut self.complained);
        let first = complained.lines().next().unwrap_or_default();
        let reason = first.trim_start_matches("error: ");
        Err(if reason.is_empty() {
            status.to_string()
        } else {
            reason.to_owned()
        })
    }
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Ok(_) => text,
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell script in the place of `cos-agent reconcile` comes to; its first argument is the last one.
    fn ended(script: &str, dry_run: bool) -> Result<Reconciled, String> {
        let mut process = OwnProcess {
            program: PathBuf::from("/bin/sh"),
            arguments: ["-c", script, "reconcile"].map(str::to_owned).to_vec(),
            patience: Duration::from_secs(1),
            running: None,
        };
        process.begin(dry_run)?;
        loop {
            if let Some(ended) = process.ended() {
                assert!(process.running.is_none());
                return ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_it_says_is_read_however_long_it_is() {
        let script = r#"printf '{"repaired": ["%s%0100000d"], "pending": []}' "$1" 7"#;
        let [repaired] = &ended(script, false).unwrap().repaired[..] else {
            panic!("one repair");
        };
        assert_eq!(repaired.len(), 100_000);
        let told = ended(script, true).unwrap();
        assert!(told.repaired[0].starts_with("--dry-run0"));
    }

    #[test]
    fn why_it_failed_is_its_own_first_line() {
        let script = "echo 'error: the metadata service: timeout' >&2; echo 'hint: x' >&2; exit 6";
        assert_eq!(ended(script, false).unwrap_err(), "the metadata service: timeout");
        assert_eq!(ended("exit 6", false).unwrap_err(), "exit status: 6");
        assert!(ended("echo nonsense", false).unwrap_err().contains("expected"));
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let start = Instant::now();
        let reason = ended("exec sleep 60", false).unwrap_err();
        assert_eq!(reason, "it did not end within 1 s");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn one_that_cannot_be_started_is_told() {
        let mut process = OwnProcess {
            program: PathBuf::from("/nowhere/cos-agent"),
            ..OwnProcess::new("http://127.0.0.1:1", "http://127.0.0.1:1")
        };
        assert!(process.begin(false).unwrap_err().contains("could not be started"));
        assert!(process.ended().is_none());
    }
}
