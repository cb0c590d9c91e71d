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
    /// It was started and is not ready yet.
    Activating,
    /// It is on its way from one state to another: a stop or restart has yet to happen.
    Changing,
    /// It does not run and was not asked to.
    Inactive,
    /// It ended badly and nothing starts it again. The text says how.
    Failed(String),
    /// The machine has no such service.
    Absent,
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
    /// Stops a service and waits until it has stopped.
    fn stop(&self, service: &str) -> Result<(), ProgramError>;
    /// How a service fares.
    fn condition(&self, service: &str) -> Result<Condition, ProgramError>;
}

/// The service manager of the machine below the root: systemd where it runs, else System V scripts; none if
/// there is neither.
pub fn detect<'a>(files: &Files, programs: &'a dyn Programs) -> Option<Box<dyn ServiceManager + 'a>> {
    if files.locate("/run/systemd/system").is_dir() {
        return Some(Box::new(Systemd::new(programs)));
    }
    if files.locate("/sbin/chkconfig").is_file() {
        return Some(Box::new(SysV::new(programs)));
    }
    None
}
