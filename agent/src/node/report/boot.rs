//! Owns the report that `apply` leaves behind, for people and for whoever collects it. Nothing secret is in it.
//! Touches one file and the machine's uptime.

use std::error::Error;

use serde::{Deserialize, Serialize};

use super::timeline::{Decision, Phase, Timeline, milliseconds};
use crate::host::{FileError, Files, ProgramError};
use crate::node::{Applied, NodeError};

/// Where the report of the last `apply` is.
pub const BOOT_REPORT: &str = "/var/lib/cos-agent/boot.json";

/// What an `apply` did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// Version of this report: 1.
    pub version: u32,
    /// When it began: RFC 3339, UTC.
    pub began: String,
    /// Milliseconds between the start of the kernel and that; none where the machine does not tell.
    pub since_kernel: Option<f64>,
    /// How long all of it took, in milliseconds.
    pub milliseconds: f64,
    /// The node; none if it did not come so far.
    pub node: Option<NodeName>,
    /// How it ended.
    pub outcome: Outcome,
    /// How many changes were made.
    pub changes: usize,
    /// What took time, by its start.
    pub phases: Vec<Phase>,
    /// What was chosen, and why.
    pub decisions: Vec<Decision>,
    /// What the reader should know though it is no fault.
    pub notes: Vec<String>,
}

/// Which node it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// What it is for.
    pub roles: String,
    /// Its name in Consul and Nomad.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
}

/// How an `apply` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// Well.
    Done,
    /// Badly.
    Failed {
        /// The error and its causes, without what programs said: a product may repeat the line of its configuration
        /// that it refuses.
        reason: String,
        /// What may be done about it.
        hint: Option<String>,
    },
}

impl BootReport {
    /// The report of an `apply` that has ended.
    pub fn new(timeline: &Timeline, ended: Result<&Applied, &NodeError>, files: &Files) -> Self {
        let applied = ended.ok();
        Self {
            version: 1,
            began: humantime::format_rfc3339_millis(timeline.began()).to_string(),
            since_kernel: since_kernel(files, timeline),
            milliseconds: milliseconds(timeline.elapsed()),
            node: applied.map(|applied| NodeName {
                roles: applied.roles.to_string(),
                name: applied.name.clone(),
                datacenter: applied.datacenter.clone(),
            }),
            outcome: match ended {
                Ok(_) => Outcome::Done,
                Err(error) => Outcome::Failed {
                    reason: reason(error),
                    hint: error.hint(),
                },
            },
            changes: applied.map_or(0, |applied| applied.changes.0.len()),
            phases: timeline.phases(),
            decisions: timeline.decisions(),
            notes: applied.map(|applied| applied.notes.clone()).unwrap_or_default(),
        }
    }

    /// Reads the report of the last `apply`; none if there was none.
    pub fn read(files: &Files) -> Result<Option<Self>, NodeError> {
        let Some(bytes) = files.read(BOOT_REPORT)? else {
            return Ok(None);
        };
        let report = serde_json::from_slice(&bytes).map_err(|source| NodeError::Report {
            path: files.locate(BOOT_REPORT),
            source,
        })?;
        Ok(Some(report))
    }

    /// Keeps it.
    pub fn write(&self, files: &Files) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files.write_atomic(BOOT_REPORT, &text, 0o644)
    }
}

/// The error and its causes in one line, up to the first that holds what a program said.
fn reason(error: &NodeError) -> String {
    let mut words = Vec::new();
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<ProgramError>().is_some() {
            break;
        }
        let said = error.to_string();
        // Transparent errors say what their cause says.
        if words.last() != Some(&said) {
            words.push(said);
        }
        cause = error.source();
    }
    words.join(": ")
}

/// Uptime when the timeline began.
fn since_kernel(files: &Files, timeline: &Timeline) -> Option<f64> {
    let text = files.read("/proc/uptime").ok().flatten()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    let began = seconds * 1000.0 - milliseconds(timeline.elapsed());
    Some((began.max(0.0) * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Invocation;
    use crate::node::apply::JudgeError;
    use crate::node::render::Product;

    #[test]
    fn what_a_validator_said_is_not_repeated() {
        let invocation = Invocation::new("nomad", ["config", "validate"], std::time::Duration::ZERO);
        let error = NodeError::Judge(JudgeError::Refused {
            product: Product::Nomad,
            source: ProgramError::Failed {
                invocation,
                status: Some(1),
                message: "encrypt = \"planted-secret\"".to_owned(),
            },
        });
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let report = BootReport::new(&Timeline::new(), Err(&error), &files);
        report.write(&files).unwrap();
        let written = String::from_utf8(files.read(BOOT_REPORT).unwrap().unwrap()).unwrap();
        assert!(!written.contains("planted-secret"), "{written}");
        assert!(written.contains("Nomad refuses the configuration"), "{written}");
        assert_eq!(BootReport::read(&files).unwrap(), Some(report));
    }

    #[test]
    fn without_an_apply_there_is_no_report_and_a_broken_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        assert_eq!(BootReport::read(&files).unwrap(), None);
        files.write_atomic(BOOT_REPORT, b"{", 0o644).unwrap();
        let error = BootReport::read(&files).unwrap_err();
        assert!(error.to_string().contains(BOOT_REPORT), "{error}");
    }
}
