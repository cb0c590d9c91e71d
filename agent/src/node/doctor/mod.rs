//! Owns finding out what is wrong with a node: each finding with what was seen, and with the exact way out.
//! Touches what the checks touch: they only read and ask, and change nothing.
//!
//! Whatever is broken, the answer comes within the deadline: each check runs in a thread of its own that nobody waits
//! for any longer than that, and one that did not end is a finding itself.

mod api;
mod certificates;
mod cli;
mod clock;
mod cloud;
mod consul;
mod der;
mod disks;
mod drift;
mod metadata;
mod nomad;
mod permissions;
mod ports;
mod releases;
mod services;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::config::{Role, Roles};
use super::render::{RECORD, Record};
use crate::host::{Files, Programs};

pub use cli::DoctorArguments;
pub use permissions::{Action, Attempt, CloudProbe};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The node does not do its work, or will not for long.
    Fault,
    /// It works, and something is not as it should be.
    Warning,
    /// Nothing is wrong; the reader should know.
    Note,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it.
    pub check: &'static str,
    /// What is so.
    pub fact: String,
    /// What was seen.
    pub evidence: String,
    /// What puts it right: a command, a line of a policy, a key of the configuration.
    pub fix: String,
}

impl Finding {
    fn new(
        severity: Severity,
        fact: impl Into<String>,
        evidence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            check: "",
            fact: fact.into(),
            evidence: evidence.into(),
            fix: fix.into(),
        }
    }

    fn fault(fact: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Fault, fact, evidence, fix)
    }

    fn warning(fact: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Warning, fact, evidence, fix)
    }

    fn note(fact: impl Into<String>, evidence: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Note, fact, evidence, fix)
    }
}

/// Where a patient is, and who examines with us.
#[derive(Clone)]
pub struct Patient {
    /// Files of the machine.
    pub files: Files,
    /// Its programs.
    pub programs: Arc<dyn Programs + Send + Sync>,
    /// The metadata service.
    pub imds: String,
    /// Consul's API on this machine.
    pub consul: String,
    /// Nomad's API on this machine.
    pub nomad: String,
    /// Docker's socket on this machine.
    pub docker: PathBuf,
    /// Calls to AWS; without it permissions are not examined.
    pub cloud: Option<Arc<dyn CloudProbe + Send + Sync>>,
    /// What time it is.
    pub now: SystemTime,
}

/// A patient with what is known of it.
struct Case {
    patient: Patient,
    /// What the last `apply` recorded; none if there is none.
    record: Option<Record>,
}

impl Case {
    fn files(&self) -> &Files {
        &self.patient.files
    }

    fn programs(&self) -> &dyn Programs {
        self.patient.programs.as_ref()
    }

    /// A node that was never configured counts as none of the roles.
    fn has(&self, role: Role) -> bool {
        self.record.as_ref().is_some_and(|record| record.roles.has(role))
    }

    fn is_watched(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.watch.is_some())
    }

    fn roles(&self) -> Option<&Roles> {
        self.record.as_ref().map(|record| &record.roles)
    }

    /// The instance's id for commands of the AWS CLI, or a place for it.
    fn instance(&self) -> &str {
        let name = self.record.as_ref().map(|record| record.name.as_str());
        name.filter(|name| name.starts_with("i-"))
            .unwrap_or("INSTANCE-ID")
    }
}

type Check = fn(&Case) -> Vec<Finding>;

/// Every check, by the name under which its findings are told.
const CHECKS: [(&str, Check); 13] = [
    ("metadata", metadata::check),
    ("clock", clock::check),
    ("permissions", permissions::check),
    ("disks", disks::check),
    ("ports", ports::check),
    ("services", services::check),
    ("packet-filter", services::packet_filter),
    ("consul", consul::check),
    ("gossip", consul::gossip),
    ("nomad", nomad::check),
    ("certificates", certificates::check),
    ("releases", releases::check),
    ("drift", drift::check),
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Whether nothing is wrong; notes are nothing wrong.
    pub healthy: bool,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// Checks that came to an end.
    pub examined: Vec<&'static str>,
    /// How long it took.
    pub milliseconds: u128,
}

/// Examines a node; ends within `deadline`, whatever is broken.
pub fn examine(patient: Patient, deadline: Duration) -> Diagnosis {
    let start = Instant::now();
    let mut findings = Vec::new();
    let record = patient.files.read(RECORD).ok().flatten();
    let record: Option<Record> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if record.is_none() {
        findings.push(Finding {
            check: "record",
            ..Finding::fault(
                "this node was never configured, or not to the end",
                format!("{RECORD} is not there or not readable"),
                "cos-agent apply",
            )
        });
    }
    let case = Arc::new(Case { patient, record });
    let (tell, hear) = mpsc::channel();
    for (name, check) in CHECKS {
        let (case, tell) = (Arc::clone(&case), tell.clone());
        thread::spawn(move || {
            // Nobody may be listening any more.
            let _ = tell.send((name, check(&case)));
        });
    }
    drop(tell);
    let mut examined = Vec::new();
    while examined.len() < CHECKS.len() {
        let left = deadline.saturating_sub(start.elapsed());
        let Ok((check, found)) = hear.recv_timeout(left) else {
            break;
        };
        examined.push(check);
        findings.extend(found.into_iter().map(|finding| Finding { check, ..finding }));
    }
    for (name, _) in CHECKS.iter().filter(|(name, _)| !examined.contains(name)) {
        findings.push(Finding {
            check: name,
            ..Finding::fault(
                format!("{name} could not be examined"),
                format!(
                    "no answer within {:.0} s, or the check broke",
                    deadline.as_secs_f64()
                ),
                "look at it by hand; cos-agent doctor again",
            )
        });
    }
    findings.sort_by(|one, other| (one.severity, one.check).cmp(&(other.severity, other.check)));
    examined.sort_unstable();
    Diagnosis {
        healthy: findings.iter().all(|finding| finding.severity == Severity::Note),
        findings,
        examined,
        milliseconds: start.elapsed().as_millis(),
    }
}
