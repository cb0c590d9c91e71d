//! Owns driving System V scripts of Amazon Linux 1 by `service` and `chkconfig`.
//! Touches `/sbin/service` and `/sbin/chkconfig`.
//!
//! NOT TRIED on a real Amazon Linux 1: written from the manual pages of its initscripts and chkconfig, and tested
//! against scripted answers only. A script that never ends is cut off by the deadline, like any program here.

use std::time::Duration;

use super::{Activity, Condition, ServiceManager};
use crate::host::{Invocation, Output, ProgramError, Programs};

const QUICK: Duration = Duration::from_secs(30);
/// Scripts start a service in the foreground until it runs behind them.
const ACT: Duration = Duration::from_mins(2);

/// System V scripts.
pub struct SysV<'a> {
    programs: &'a dyn Programs,
}

impl<'a> SysV<'a> {
    /// The scripts of this machine.
    pub fn new(programs: &'a dyn Programs) -> Self {
        Self { programs }
    }

    fn service(&self, service: &str, action: &str) -> Result<(), ProgramError> {
        self.programs
            .check(&Invocation::new("/sbin/service", [service, action], ACT))
            .map(drop)
    }

    fn chkconfig(&self, service: &str, state: &str) -> Result<(), ProgramError> {
        self.programs
            .check(&Invocation::new("/sbin/chkconfig", [service, state], QUICK))
            .map(drop)
    }
}

impl ServiceManager for SysV<'_> {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        // Scripts are read anew each time.
        Ok(())
    }

    fn enable(&self, service: &str) -> Result<(), ProgramError> {
        self.chkconfig(service, "on")
    }

    fn disable(&self, service: &str) -> Result<(), ProgramError> {
        self.chkconfig(service, "off")
    }

    fn start(&self, service: &str) -> Result<(), ProgramError> {
        self.service(service, "start")
    }

    fn restart(&self, service: &str) -> Result<(), ProgramError> {
        self.service(service, "restart")
    }

    fn reload(&self, service: &str) -> Result<(), ProgramError> {
        self.service(service, "reload")
    }

    fn stop(&self, service: &str) -> Result<(), ProgramError> {
        self.service(service, "stop")
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        // Without a state chkconfig answers by its status whether the service is on in this runlevel.
        let on = self
            .programs
            .run(&Invocation::new("/sbin/chkconfig", [service], QUICK))?;
        let status = self
            .programs
            .run(&Invocation::new("/sbin/service", [service, "status"], QUICK))?;
        Ok(Condition {
            enabled: on.status == Some(0),
            activity: activity(&status),
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
fn activity(output: &Output) -> Activity {
    match output.status {
        _ if output.stderr.contains("unrecognized service") => Activity::Absent,
        Some(0) => Activity::Active,
        Some(1 | 2) => Activity::Failed("dead, but its pid or lock file is there".to_owned()),
        _ => Activity::Inactive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_of_scripts_are_read_as_the_standard_has_them() {
        let answer = |status, stderr: &str| {
            activity(&Output {
                status: Some(status),
                stderr: stderr.to_owned(),
                ..Output::default()
            })
        };
        assert_eq!(answer(0, ""), Activity::Active);
        assert_eq!(answer(3, ""), Activity::Inactive);
        assert!(matches!(answer(1, ""), Activity::Failed(_)));
        // `service` itself says it with status 1.
        assert_eq!(answer(1, "consul: unrecognized service"), Activity::Absent);
    }
}
