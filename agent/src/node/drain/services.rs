//! Owns stopping, starting and signalling the products' services.
//! Touches the service manager, and processes by their pid file where that is System V scripts.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Services;
use crate::host::{Files, Invocation, Programs};
use crate::node::services::{Activity, ServiceManager};

/// Services by the machine's service manager.
#[derive(Clone, Copy)]
pub struct ManagedServices<'a> {
    manager: &'a dyn ServiceManager,
    programs: &'a dyn Programs,
    files: &'a Files,
}

impl<'a> ManagedServices<'a> {
    /// The services of this machine.
    pub fn new(manager: &'a dyn ServiceManager, programs: &'a dyn Programs, files: &'a Files) -> Self {
        Self {
            manager,
            programs,
            files,
        }
    }
}

impl Services for ManagedServices<'_> {
    fn runs(&self, service: &str) -> Result<bool, String> {
        let condition = self
            .manager
            .condition(service)
            .map_err(|error| error.to_string())?;
        Ok(matches!(
            condition.activity,
            Activity::Active | Activity::Activating(_) | Activity::Changing
        ))
    }

    fn stop(&self, service: &str) -> Result<(), String> {
        self.manager.stop(service).map_err(|error| error.to_string())
    }

    fn start(&self, service: &str) -> Result<(), String> {
        self.manager.start(service).map_err(|error| error.to_string())
    }

    fn terminate(&self, service: &str) -> Result<(), String> {
        if self.files.locate("/run/systemd/system").is_dir() {
            let unit = format!("{service}.service");
            // The option was renamed in systemd 252, which still takes the old name.
            let arguments = ["kill", "--kill-who=main", "--signal=SIGTERM", &unit];
            let invocation = Invocation::new("systemctl", arguments, Duration::from_secs(30));
            return self
                .programs
                .check(&invocation)
                .map(drop)
                .map_err(|error| error.to_string());
        }
        // Where the scripts of the bundle write it.
        let path = format!("/var/run/cos-{service}/pid");
        let content = self
            .files
            .read(&path)
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let pid: i32 = String::from_utf8_lossy(&content)
            .trim()
            .parse()
            .map_err(|_| format!("{path} holds no process id"))?;
        if pid < 2 {
            return Err(format!("{path} holds no process id"));
        }
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| format!("process {pid}: {error}"))
    }
}
