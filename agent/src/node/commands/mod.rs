//! Owns the commands that look at configurations and change nothing: `check`, `explain`, `render`, `schema`, and how
//! `apply --dry-run` is printed. Touches what the sources touch, for reading, and the streams it is given.

mod check;
mod dry_run;
mod explain;
mod render;
mod schema;
mod unified;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::config::{Fault, Faults};
use super::error::NodeError;
use super::sources::{FileParameters, Gathered, Imds, InstanceFacts, Parameters, Sources, gather, imds};
use crate::host::Files;

pub use check::CheckArguments;
pub(crate) use dry_run::disk_lines;
pub use dry_run::{Told, tell};
pub use explain::ExplainArguments;
pub use render::RenderArguments;
pub use schema::SchemaArguments;

/// Where a configuration is looked for.
#[derive(Debug, Clone, Args)]
pub struct SourceArguments {
    /// The node's configuration, instead of all other sources; several are laid over each other.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// A file in the place of a parameter that `include` names; Systems Manager is not asked.
    #[arg(long, value_name = "NAME=FILE", value_parser = parameter)]
    pub parameter: Vec<(String, PathBuf)>,
    /// What the instance is: a file of JSON, or `sample`. The metadata service is not asked then.
    #[arg(long, value_name = "FILE|sample")]
    pub facts: Option<String>,
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = imds::DEFAULT_URL)]
    pub imds: String,
}

/// `NAME=FILE`.
pub(super) fn parameter(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("must be the name of a parameter and a file, as in /cos/base=base.yaml".to_owned()),
    }
}

impl SourceArguments {
    /// Everything that the sources say.
    fn gather(&self) -> Result<Gathered, NodeError> {
        let files = Files::new(&self.root);
        let imds = match self.facts {
            Some(_) => None,
            None => Some(Imds::new(&self.imds, imds::BUDGET)),
        };
        let parameters = files_for(&self.parameter);
        let sources = Sources {
            files: &files,
            named: &self.config,
            imds: imds.as_ref(),
            parameters: parameters.as_ref().map(|files| files as &dyn Parameters),
        };
        let mut gathered = gather(&sources)?;
        gathered.facts = match self.facts.as_deref() {
            None => gathered.facts,
            Some("sample") => Some(InstanceFacts::sample()),
            Some(path) => Some(facts(path)?),
        };
        if gathered.documents.is_empty() {
            return Err(NodeError::NoConfiguration {
                others: gathered.others,
            });
        }
        Ok(gathered)
    }
}

/// Files for parameters, if any are given.
fn files_for(parameters: &[(String, PathBuf)]) -> Option<FileParameters> {
    let files: BTreeMap<String, PathBuf> = parameters.iter().cloned().collect();
    (!files.is_empty()).then_some(FileParameters(files))
}

fn facts(path: &str) -> Result<InstanceFacts, NodeError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NodeError::NoFile(path.into()));
        }
        Err(error) => return Err(NodeError::Usage(format!("could not read {path}: {error}"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| NodeError::Usage(format!("{path} is not what an instance is, as JSON: {error}")))
}

/// Says each fault on a line of its own, and gives the error that ends the command.
pub(super) fn told(error: NodeError, talk: &mut dyn Write) -> NodeError {
    if let NodeError::Configuration(faults) = &error {
        // What is wrong counts, not whether somebody reads it.
        let _ = tell_faults(faults, talk);
    }
    error
}

pub(super) fn tell_faults(faults: &Faults, talk: &mut dyn Write) -> Result<(), NodeError> {
    faults
        .0
        .iter()
        .try_for_each(|fault| writeln!(talk, "{fault}"))
        .map_err(NodeError::Output)
}

pub(super) fn print_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), NodeError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out).map_err(NodeError::Output)
}

/// A fault for machines.
#[derive(Debug, Serialize)]
struct JsonFault {
    origin: String,
    source: &'static str,
    path: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
}

impl From<&Fault> for JsonFault {
    fn from(fault: &Fault) -> Self {
        Self {
            origin: fault.origin.to_string(),
            source: fault.origin.kind(),
            path: fault.path.clone(),
            message: fault.message.clone(),
            line: fault.place.map(|(line, _)| line),
            column: fault.place.map(|(_, column)| column),
        }
    }
}
