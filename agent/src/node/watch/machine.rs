//! Owns telling a machine that goes down from a service that is restarted: both begin with SIGTERM.
//! Touches the service manager, asking only.

use std::time::Duration;

use super::notice::Shutdown;
use crate::host::{Files, Invocation, Programs};

const QUICK: Duration = Duration::from_secs(5);

/// The machine, as far as its end goes.
pub trait Machine {
    /// How it goes down, if it does.
    fn shutdown(&self) -> Option<Shutdown>;
}

/// This machine.
#[derive(Clone, Copy)]
pub struct SystemMachine<'a> {
    files: &'a Files,
    programs: &'a dyn Programs,
}

impl<'a> SystemMachine<'a> {
    /// The machine with these files and programs.
    pub fn new(files: &'a Files, programs: &'a dyn Programs) -> Self {
        Self { files, programs }
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let invocation = Invocation::new(program, arguments.iter().copied(), QUICK);
        // `is-system-running` answers "stopping" with status 1.
        self.programs.run(&invocation).ok().map(|output| output.stdout)
    }
}

impl Machine for SystemMachine<'_> {
    fn shutdown(&self) -> Option<Shutdown> {
        if !self.files.locate("/run/systemd/system").is_dir() {
            return self.ask("/sbin/runlevel", &[]).and_then(|said| runlevel(&said));
        }
        let jobs = self.ask(
            "systemctl",
            &["list-jobs", "--no-legend", "--no-pager", "--plain"],
        );
        jobs.and_then(|jobs| by_jobs(&jobs)).or_else(|| {
            // Jobs could not be listed, or those of the shutdown are done and only services remain.
            let state = self.ask("systemctl", &["is-system-running"])?;
            (state.trim() == "stopping").then_some(Shutdown::PowerOff)
        })
    }
}

/// What the queue of systemd says: number, unit, kind of job, state on each line.
fn by_jobs(jobs: &str) -> Option<Shutdown> {
    let started = |units: &[&str]| {
        jobs.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1).is_some_and(|unit| units.contains(unit)) && words.get(2) == Some(&"start")
        })
    };
    if started(&["reboot.target", "kexec.target", "soft-reboot.target"]) {
        return Some(Shutdown::Reboot);
    }
    started(&["poweroff.target", "halt.target", "exit.target", "shutdown.target"])
        .then_some(Shutdown::PowerOff)
}

/// What `runlevel` of System V says: the level before, and that to which init goes.
fn runlevel(said: &str) -> Option<Shutdown> {
    match said.split_whitespace().nth(1)? {
        "0" => Some(Shutdown::PowerOff),
        "6" => Some(Shutdown::Reboot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_tells_a_shutdown_from_a_restart() {
        let restart = "  812 cos-agent-watch.service restart running\n";
        let off = "900 poweroff.target       start waiting\n901 cos-agent-watch.service stop  running\n\
                   902 shutdown.target start waiting\n";
        assert_eq!(by_jobs(restart), None);
        assert_eq!(by_jobs("No jobs running.\n"), None);
        assert_eq!(by_jobs(off), Some(Shutdown::PowerOff));
        assert_eq!(
            by_jobs(&off.replace("poweroff", "reboot")),
            Some(Shutdown::Reboot)
        );
        assert_eq!(by_jobs("1 reboot.target stop waiting\n"), None);
        assert_eq!(runlevel("3 0\n"), Some(Shutdown::PowerOff));
        assert_eq!(runlevel("3 6\n"), Some(Shutdown::Reboot));
        assert_eq!(runlevel("N 3\n"), None);
        assert_eq!(runlevel("unknown\n"), None);
    }
}
