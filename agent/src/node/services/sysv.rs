//! Owns driving the services of Amazon Linux 1: scripts of System V by `service` and `chkconfig`, and jobs of upstart
//! 0.6.5 by `initctl` where there is one of the name. Touches those programs, and a job's file.
//!
//! NOT TRIED on a real Amazon Linux 1, of which no machine could be had. Tried on Debian below a real upstart 0.6.5 as
//! PID 1, with the chkconfig of Fedora.

use std::time::Duration;

use super::{Activity, Condition, ServiceManager};
use crate::host::{FileError, Files, Invocation, Output, ProgramError, Programs};

const QUICK: Duration = Duration::from_secs(30);
/// A script may start its service in the foreground until it runs behind it, and stop it in the end by force.
const ACT: Duration = Duration::from_mins(2);

/// What a job's line of `start on` begins with where we switched the job off. This upstart knows neither `manual` nor
/// override files (0.6.7 and 1.3).
const OFF: &str = "#off by cos-agent: ";

/// Scripts of System V, and jobs of upstart.
pub struct SysV<'a> {
    files: Files,
    programs: &'a dyn Programs,
}

impl<'a> SysV<'a> {
    /// The services of this machine.
    pub fn new(files: &Files, programs: &'a dyn Programs) -> Self {
        Self {
            files: files.clone(),
            programs,
        }
    }

    fn service(&self, service: &str, action: &str) -> Result<(), ProgramError> {
        self.programs
            .check(&Invocation::new("/sbin/service", [service, action], ACT))
            .map(drop)
    }

    fn initctl<'b>(
        &self,
        words: impl IntoIterator<Item = &'b str>,
        patience: Duration,
    ) -> Result<(), ProgramError> {
        self.programs
            .check(&Invocation::new("/sbin/initctl", words, patience))
            .map(drop)
    }

    fn chkconfig<'b>(&self, words: impl IntoIterator<Item = &'b str>) -> Result<(), ProgramError> {
        self.programs
            .check(&Invocation::new("/sbin/chkconfig", words, QUICK))
            .map(drop)
    }

    /// The text of a job's file; none if the service is no job.
    fn job(&self, service: &str) -> Option<String> {
        let bytes = self.files.read(job_file(service)).ok().flatten()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a job's file; upstart watches its folder.
    fn rewrite(&self, service: &str, text: &str) -> Result<(), ProgramError> {
        let path = job_file(service);
        self.files
            .write_atomic(&path, text.as_bytes(), 0o644)
            .map_err(|error: FileError| ProgramError::Start {
                invocation: Invocation::new("write", [path.as_str()], QUICK),
                source: error.source,
            })
    }
}

fn job_file(service: &str) -> String {
    format!("/etc/init/{service}.conf")
}

/// Whether a line makes a job start by itself.
fn starts(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("start") && words.next() == Some("on")
}

impl ServiceManager for SysV<'_> {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        // Scripts are read anew each time, and upstart watches its folder. It is asked all the same, since it may have
        // been full of work; where it does not run there is nothing to ask.
        let _ = self.initctl(["reload-configuration"], QUICK);
        Ok(())
    }

    fn enable(&self, service: &str) -> Result<(), ProgramError> {
        let Some(job) = self.job(service) else {
            return self.chkconfig([service, "on"]);
        };
        if !job.contains(OFF) {
            return Ok(());
        }
        self.rewrite(service, &job.replace(OFF, ""))
    }

    fn disable(&self, service: &str) -> Result<(), ProgramError> {
        let Some(job) = self.job(service) else {
            return self.chkconfig([service, "off"]);
        };
        let mut text = String::new();
        for line in job.lines() {
            if starts(line) {
                text.push_str(OFF);
            }
            text.push_str(line);
            text.push('\n');
        }
        self.rewrite(service, &text)
    }

    fn start(&self, service: &str) -> Result<(), ProgramError> {
        if self.job(service).is_none() {
            return self.service(service, "start");
        }
        // A job that runs is started, which initctl calls an error.
        match self.condition(service)?.activity {
            Activity::Active | Activity::Activating(_) => Ok(()),
            _ => self.initctl(["start", "--no-wait", service], QUICK),
        }
    }

    fn restart(&self, service: &str) -> Result<(), ProgramError> {
        if self.job(service).is_none() {
            return self.service(service, "restart");
        }
        // `initctl restart` goes on with the job as it was read when it was started, and does not start one that stopped.
        self.stop(service)?;
        self.initctl(["start", "--no-wait", service], QUICK)
    }

    fn reload(&self, service: &str) -> Result<(), ProgramError> {
        self.service(service, "reload")
    }

    fn stop(&self, service: &str) -> Result<(), ProgramError> {
        if self.job(service).is_none() {
            return self.service(service, "stop");
        }
        match self.condition(service)?.activity {
            Activity::Inactive | Activity::Absent => Ok(()),
            _ => self.initctl(["stop", service], ACT),
        }
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        if let Some(job) = self.job(service) {
            let told = self
                .programs
                .run(&Invocation::new("/sbin/initctl", ["status", service], QUICK))?;
            return Ok(Condition {
                enabled: job.lines().any(starts),
                activity: job_activity(&told),
            });
        }
        // Without a state chkconfig answers by its status whether the service is on in this runlevel.
        let on = self
            .programs
            .run(&Invocation::new("/sbin/chkconfig", [service], QUICK))?;
        let status = self
            .programs
            .run(&Invocation::new("/sbin/service", [service, "status"], QUICK))?;
        Ok(Condition {
            enabled: on.status == Some(0),
            activity: script_activity(&status),
        })
    }

    fn last_words(&self, service: &str) -> Vec<String> {
        // Where the scripts of the bundle let a service write.
        let log = format!("/var/log/{service}.log");
        let said = self
            .programs
            .check(&Invocation::new("/usr/bin/tail", ["-n", "10", &log], QUICK));
        said.map(|said| said.stdout.lines().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

/// Status codes of init scripts as the Linux Standard Base has them.
fn script_activity(output: &Output) -> Activity {
    match output.status {
        _ if output.stderr.contains("unrecognized service") => Activity::Absent,
        Some(0) => Activity::Active,
        Some(1 | 2) => Activity::Failed("dead, but its pid or lock file is there".to_owned()),
        // "Unknown"; COS's scripts say it of a program that runs and has yet to open its socket.
        Some(4) => Activity::Activating("its socket is not there yet".to_owned()),
        _ => Activity::Inactive,
    }
}

/// `consul start/running, process 1234`, `consul stop/waiting`: a goal and a state (init(5), initctl(8)).
fn job_activity(output: &Output) -> Activity {
    if output.stderr.contains("Unknown job") {
        return Activity::Absent;
    }
    let line = output.stdout.lines().next().unwrap_or_default();
    let state = line
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .trim_end_matches(',');
    match state.split_once('/') {
        Some(("start", "running")) => Activity::Active,
        Some(("stop", "waiting")) => Activity::Inactive,
        // On its way down though it is to run: it ended and is started again.
        Some(("start", how @ ("stopping" | "killed" | "post-stop"))) => {
            Activity::Activating(format!("auto-restart, {how}"))
        }
        Some(("start", how)) => Activity::Activating(how.to_owned()),
        Some(("stop", _)) => Activity::Changing,
        _ => Activity::Inactive,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn said(status: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: Some(status),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn status_codes_of_scripts_are_read_as_the_standard_has_them() {
        let answer = |status, stderr: &str| script_activity(&said(status, "", stderr));
        assert_eq!(answer(0, ""), Activity::Active);
        assert_eq!(answer(3, ""), Activity::Inactive);
        assert!(matches!(answer(1, ""), Activity::Failed(_)));
        assert!(matches!(answer(4, ""), Activity::Activating(_)));
        // `service` itself says it with status 1.
        assert_eq!(answer(1, "consul: unrecognized service"), Activity::Absent);
    }

    #[test]
    fn goals_and_states_of_jobs_are_read() {
        let answer = |line: &str| job_activity(&said(0, line, ""));
        assert_eq!(answer("consul start/running, process 1234\n"), Activity::Active);
        assert_eq!(answer("consul stop/waiting\n"), Activity::Inactive);
        assert_eq!(answer("consul stop/killed, process 7\n"), Activity::Changing);
        assert_eq!(
            answer("consul start/spawned, process 7\n"),
            Activity::Activating("spawned".to_owned())
        );
        assert!(answer("consul start/post-stop, process 7\n").ended_badly());
        assert_eq!(
            job_activity(&said(1, "", "initctl: Unknown job: consul\n")),
            Activity::Absent
        );
    }

    /// An upstart with one job, which runs or not.
    #[derive(Default)]
    struct Upstart {
        runs: RefCell<bool>,
        asked: RefCell<Vec<String>>,
    }

    impl Programs for Upstart {
        fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
            let words = invocation.to_string();
            self.asked.borrow_mut().push(words.clone());
            let runs = &mut *self.runs.borrow_mut();
            match words
                .strip_prefix("/sbin/initctl ")
                .unwrap_or("chkconfig or service")
            {
                "start --no-wait consul" if !*runs => *runs = true,
                "stop consul" if *runs => *runs = false,
                "status consul" => {
                    let state = if *runs {
                        "start/running, process 7"
                    } else {
                        "stop/waiting"
                    };
                    return Ok(said(0, &format!("consul {state}\n"), ""));
                }
                "reload-configuration" => {}
                other => return Ok(said(1, "", other)),
            }
            Ok(said(0, "", ""))
        }
    }

    #[test]
    fn a_job_is_driven_by_initctl_and_switched_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let job = "# Consul\nstart on runlevel [2345]\nstop on runlevel [06]\nrespawn\nexec /opt/consul/bin/consul\n";
        files
            .write_atomic("/etc/init/consul.conf", job.as_bytes(), 0o644)
            .unwrap();
        let upstart = Upstart::default();
        let manager = SysV::new(&files, &upstart);
        let condition = |enabled, activity| Condition { enabled, activity };
        assert_eq!(
            manager.condition("consul").unwrap(),
            condition(true, Activity::Inactive)
        );
        manager.disable("consul").unwrap();
        manager.disable("consul").unwrap();
        assert_eq!(
            manager.condition("consul").unwrap(),
            condition(false, Activity::Inactive)
        );
        manager.start("consul").unwrap();
        manager.start("consul").unwrap();
        manager.restart("consul").unwrap();
        manager.enable("consul").unwrap();
        assert_eq!(
            manager.condition("consul").unwrap(),
            condition(true, Activity::Active)
        );
        assert_eq!(
            files.read("/etc/init/consul.conf").unwrap().unwrap(),
            job.as_bytes()
        );
        manager.stop("consul").unwrap();
        manager.stop("consul").unwrap();
        manager.restart("consul").unwrap();
        assert!(*upstart.runs.borrow());
        manager.reload_definitions().unwrap();
        let asked = upstart.asked.borrow();
        assert!(
            asked.iter().all(|words| words.starts_with("/sbin/initctl ")),
            "{asked:?}"
        );
    }
}
