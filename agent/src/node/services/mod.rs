//! Owns the port to the machine's service manager: start, stop, enable, and how a service fares.
//! Touches `systemctl`, or `service` and `chkconfig`.

mod systemd;
mod sysv;

use crate::host::{Files, ProgramError, Programs};

pub use systemd::Systemd;
pub use sysv::SysV;

/// What a service does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// It runs and said, or is taken to be, ready.
    Active,
    /// It was started and is not ready yet. The text says how far it is.
    Activating(String),
    /// It is on its way from one state to another: a stop or restart has yet to happen.
    Changing,
    /// It does not run and was not asked to.
    Inactive,
    /// It ended badly and nothing starts it again. The text says how.
    Failed(String),
    /// The machine has no such service.
    Absent,
}

impl Activity {
    /// Whether it ended badly, though it may be on its way to be started again.
    pub fn ended_badly(&self) -> bool {
        match self {
            Self::Failed(_) => true,
            Self::Activating(how) => how.starts_with("auto-restart"),
            _ => false,
        }
    }
}

/// How a service fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it starts at boot.
    pub enabled: bool,
    /// What it does.
    pub activity: Activity,
}

/// A service manager. Services are named without a suffix.
pub trait ServiceManager {
    /// Reads changed definitions of services.
    fn reload_definitions(&self) -> Result<(), ProgramError>;
    /// Makes a service start at boot.
    fn enable(&self, service: &str) -> Result<(), ProgramError>;
    /// Keeps a service from starting at boot.
    fn disable(&self, service: &str) -> Result<(), ProgramError>;
    /// Begins to start a service and does not wait for it.
    fn start(&self, service: &str) -> Result<(), ProgramError>;
    /// Begins to restart a service and does not wait for it.
    fn restart(&self, service: &str) -> Result<(), ProgramError>;
    /// Lets a running service read again what it can without a restart.
    fn reload(&self, service: &str) -> Result<(), ProgramError>;
    /// Stops a service and waits until it has stopped.
    fn stop(&self, service: &str) -> Result<(), ProgramError>;
    /// How a service fares.
    fn condition(&self, service: &str) -> Result<Condition, ProgramError>;
    /// How several services fare, in the order of their names.
    fn conditions(&self, services: &[&str]) -> Result<Vec<Condition>, ProgramError> {
        services.iter().map(|service| self.condition(service)).collect()
    }
    /// Makes several services start at boot. A manager that keeps what it read may say that they do not until its
    /// definitions are reloaded.
    fn enable_all(&self, services: &[&str]) -> Result<(), ProgramError> {
        services.iter().try_for_each(|service| self.enable(service))
    }
    /// Begins to start several services and does not wait for them.
    fn start_all(&self, services: &[&str]) -> Result<(), ProgramError> {
        services.iter().try_for_each(|service| self.start(service))
    }
    /// Whether what the manager knows of these services is what their definitions on the disk say. No, where it does not
    /// tell.
    fn has_read(&self, _services: &[&str]) -> bool {
        false
    }
    /// Forgets how often a service failed, where that would keep it from being started.
    fn reset_failures(&self, _service: &str) -> Result<(), ProgramError> {
        Ok(())
    }
    /// The last lines that a service said, oldest first; none if they cannot be had.
    fn last_words(&self, service: &str) -> Vec<String>;
}

/// The service manager of the machine below the root: systemd where it runs, else System V scripts; none if
/// there is neither.
pub fn detect<'a>(files: &Files, programs: &'a dyn Programs) -> Option<Box<dyn ServiceManager + 'a>> {
    if files.locate("/run/systemd/system").is_dir() {
        return Some(Box::new(Systemd::new(programs)));
    }
    if files.locate("/sbin/chkconfig").is_file() {
        return Some(Box::new(SysV::new(files, programs)));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::host::{Invocation, Output};

    /// Answers every program with success and nothing, and remembers it.
    #[derive(Default)]
    struct Recorder(RefCell<Vec<String>>);

    impl Programs for Recorder {
        fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
            self.0.borrow_mut().push(invocation.to_string());
            Ok(Output {
                status: Some(0),
                ..Output::default()
            })
        }
    }

    fn everything(manager: &dyn ServiceManager) {
        manager.reload_definitions().unwrap();
        manager.enable("consul").unwrap();
        manager.start("consul").unwrap();
        manager.restart("consul").unwrap();
        manager.reload("consul").unwrap();
        manager.stop("consul").unwrap();
        manager.disable("consul").unwrap();
        manager.condition("consul").unwrap();
        assert!(manager.last_words("consul").is_empty());
    }

    #[test]
    fn systemd_is_never_waited_for_at_a_start() {
        let programs = Recorder::default();
        everything(&Systemd::new(&programs));
        assert_eq!(
            *programs.0.borrow(),
            [
                "systemctl daemon-reload",
                "systemctl enable --quiet consul.service",
                "systemctl reset-failed consul.service",
                "systemctl start --no-block consul.service",
                "systemctl reset-failed consul.service",
                "systemctl restart --no-block consul.service",
                "systemctl reload consul.service",
                "systemctl stop consul.service",
                "systemctl disable --quiet consul.service",
                "systemctl show -p LoadState -p ActiveState -p SubState -p Result -p UnitFileState -p Job \
                 consul.service",
                "journalctl --unit consul.service --lines 10 --output cat --no-pager",
            ]
        );
    }

    #[test]
    fn systemd_hears_of_several_services_at_once() {
        let programs = Recorder::default();
        let systemd = Systemd::new(&programs);
        systemd.enable_all(&["consul", "docker"]).unwrap();
        systemd.start_all(&["consul", "docker"]).unwrap();
        systemd.reset_failures("consul").unwrap();
        // Nothing was shown: what is not described is not there.
        let conditions = systemd.conditions(&["consul", "docker"]).unwrap();
        assert!(
            conditions
                .iter()
                .all(|condition| condition.activity == Activity::Inactive)
        );
        assert_eq!(
            *programs.0.borrow(),
            [
                "systemctl enable --no-reload --quiet consul.service docker.service",
                "systemctl start --no-block consul.service docker.service",
                "systemctl reset-failed consul.service",
                "systemctl show -p Id -p LoadState -p ActiveState -p SubState -p Result -p UnitFileState -p Job \
                 consul.service docker.service",
            ]
        );
    }

    #[test]
    fn scripts_are_called_by_service_and_chkconfig() {
        let programs = Recorder::default();
        everything(&SysV::new(&Files::new("/nonexistent"), &programs));
        assert_eq!(
            *programs.0.borrow(),
            [
                "/sbin/initctl reload-configuration",
                "/sbin/chkconfig consul on",
                "/sbin/service consul start",
                "/sbin/service consul restart",
                "/sbin/service consul reload",
                "/sbin/service consul stop",
                "/sbin/chkconfig consul off",
                "/sbin/chkconfig consul",
                "/sbin/service consul status",
                "/usr/bin/tail -n 10 /var/log/consul.log",
            ]
        );
    }

    #[test]
    fn the_manager_is_the_one_that_runs() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let programs = Recorder::default();
        assert!(detect(&files, &programs).is_none());
        files.write_atomic("/sbin/chkconfig", b"", 0o755).unwrap();
        detect(&files, &programs).unwrap().enable("nomad").unwrap();
        files.make_directory("/run/systemd/system", 0o755).unwrap();
        detect(&files, &programs).unwrap().enable("nomad").unwrap();
        let expected = [
            "/sbin/chkconfig nomad on",
            "systemctl enable --quiet nomad.service",
        ];
        assert_eq!(*programs.0.borrow(), expected);
    }
}
