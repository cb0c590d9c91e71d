//! Owns the arguments of `doctor`, and how its findings are shown.
//! Touches the two streams it is given.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::cloud::Cloud;
use super::{Diagnosis, Patient, Severity, examine};
use crate::host::{Files, RealPrograms};
use crate::node::NodeError;
use crate::node::health;
use crate::node::sources::imds;

/// Checks end two seconds before the ten that are promised: the process itself must start and end.
const DEADLINE: Duration = Duration::from_secs(8);

/// Find out what is wrong with this node, and what puts it right.
#[derive(Debug, Clone, Args)]
pub struct DoctorArguments {
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = imds::DEFAULT_URL)]
    pub imds: String,
    /// Consul's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::CONSUL_URL)]
    pub consul: String,
    /// Nomad's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::NOMAD_URL)]
    pub nomad: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl DoctorArguments {
    /// Runs it. Findings are a result and are printed; the error says how many are no notes.
    pub fn run(self, out: &mut dyn Write, _talk: &mut dyn Write) -> Result<(), NodeError> {
        let files = Files::new(&self.root);
        let patient = Patient {
            docker: files.locate(health::DOCKER_SOCKET),
            files,
            programs: Arc::new(RealPrograms),
            imds: self.imds.clone(),
            consul: self.consul,
            nomad: self.nomad,
            cloud: Some(Arc::new(Cloud::new(&self.imds))),
            now: SystemTime::now(),
        };
        let diagnosis = examine(patient, DEADLINE);
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &diagnosis).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            show(&diagnosis, out)?;
        }
        if diagnosis.healthy {
            return Ok(());
        }
        let wrong = diagnosis
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Note)
            .count();
        Err(NodeError::Unwell { wrong })
    }
}

fn show(diagnosis: &Diagnosis, out: &mut dyn Write) -> std::io::Result<()> {
    for finding in &diagnosis.findings {
        let severity = match finding.severity {
            Severity::Fault => "FAULT",
            Severity::Warning => "WARN ",
            Severity::Note => "note ",
        };
        writeln!(out, "{severity} {}: {}", finding.check, finding.fact)?;
        for (name, text) in [("seen", &finding.evidence), ("fix", &finding.fix)] {
            for (index, line) in text.lines().enumerate() {
                let name = if index == 0 { name } else { "" };
                writeln!(out, "      {name:<5} {line}")?;
            }
        }
    }
    writeln!(
        out,
        "{} checks in {:.1} s{}",
        diagnosis.examined.len(),
        Duration::from_millis(u64::try_from(diagnosis.milliseconds).unwrap_or(u64::MAX)).as_secs_f64(),
        if diagnosis.healthy {
            ", nothing is wrong"
        } else {
            ""
        }
    )
}
