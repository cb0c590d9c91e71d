//! Owns the arguments of `check` and what it prints: every fault of documents, without an instance.
//! Touches files (reading).

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{JsonFault, files_for, parameter, print_json};
use crate::node::config::{self, Fault, NodeConfig};
use crate::node::error::NodeError;
use crate::node::sources::{self, Document, Origin};

/// Check configurations without an instance.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// Documents, or user-data with documents in it, each a configuration by itself.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Lay the documents over each other, as drop-ins are, and check what comes of it.
    #[arg(long)]
    pub together: bool,
    /// A document below each of the others, such as the node.yaml that a drop-in changes.
    #[arg(long, value_name = "FILE")]
    pub over: Vec<PathBuf>,
    /// A file in the place of a parameter that `include` names.
    #[arg(long, value_name = "NAME=FILE", value_parser = parameter)]
    pub parameter: Vec<(String, PathBuf)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was found in one configuration.
#[derive(Debug, Serialize)]
struct Verdict {
    files: Vec<PathBuf>,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    faults: Vec<JsonFault>,
    notes: Vec<String>,
}

impl CheckArguments {
    /// Runs it: all faults of all documents.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let sets: Vec<Vec<PathBuf>> = if self.together {
            vec![self.files.clone()]
        } else {
            self.files.iter().map(|file| vec![file.clone()]).collect()
        };
        let mut verdicts = Vec::new();
        for files in sets {
            let named: Vec<PathBuf> = self.over.iter().chain(&files).cloned().collect();
            let (config, faults, notes) = self.check(&named)?;
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            if !self.json {
                for fault in &faults {
                    writeln!(talk, "{fault}")?;
                }
                for note in &notes {
                    writeln!(talk, "note: {note}")?;
                }
                if let Some(config) = &config {
                    writeln!(out, "{}: {} is valid", names.join(" + "), config.role)?;
                }
            }
            verdicts.push(Verdict {
                valid: config.is_some(),
                role: config.map(|config| config.role.to_string()),
                faults: faults.iter().map(JsonFault::from).collect(),
                files,
                notes,
            });
        }
        if self.json {
            print_json(out, &verdicts)?;
        }
        match verdicts.iter().filter(|verdict| !verdict.valid).count() {
            0 => Ok(()),
            faulty => Err(NodeError::Check {
                faulty,
                all: verdicts.len(),
            }),
        }
    }

    #[expect(clippy::type_complexity, reason = "three things, each used at once")]
    fn check(&self, named: &[PathBuf]) -> Result<(Option<NodeConfig>, Vec<Fault>, Vec<String>), NodeError> {
        let (mut documents, mut faults, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for document in sources::named(named)? {
            let opened = open(document);
            documents.extend(opened.0);
            faults.extend(opened.1);
        }
        let given: Vec<&str> = self.parameter.iter().map(|(name, _)| name.as_str()).collect();
        let included = config::included(&documents);
        let missing = included
            .iter()
            .filter(|included| !given.contains(&included.name.as_str()));
        notes.extend(missing.map(|included| {
            let name = &included.name;
            format!("parameter {name} was not looked at; give it by --parameter {name}=FILE")
        }));
        let parameters = files_for(&self.parameter);
        if let Some(parameters) = &parameters {
            let mut absent = Vec::new();
            sources::include(&mut documents, 0, Some(parameters), None, &mut absent)?;
        }
        if documents.is_empty() {
            return Ok((None, faults, notes));
        }
        match config::read(&documents) {
            Ok(config) if faults.is_empty() => Ok((Some(config), faults, notes)),
            Ok(_) => Ok((None, faults, notes)),
            Err(others) => {
                faults.extend(others.0);
                Ok((None, faults, notes))
            }
        }
    }
}

/// The documents in a file: itself, or those in the user-data that it is; told by the file's name.
fn open(file: Document) -> (Vec<Document>, Vec<Fault>) {
    let Origin::File(name) = &file.origin else {
        return (vec![file], Vec::new());
    };
    let inside = |origin: &Origin| match origin {
        Origin::UserData => Origin::File(name.clone()),
        other => Origin::File(format!("{}: {other}", name.display()).into()),
    };
    let written = sources::written(&file.bytes);
    let found = if written.is_empty() {
        sources::read_user_data(&file.bytes)
    } else {
        sources::UserData {
            documents: written,
            ..sources::UserData::default()
        }
    };
    let faults: Vec<Fault> = found
        .faults
        .into_iter()
        .map(|fault| Fault {
            origin: inside(&fault.origin),
            ..fault
        })
        .collect();
    if found.documents.is_empty() && faults.is_empty() {
        if found.others.is_empty() || file.bytes.is_empty() {
            return (vec![file], faults);
        }
        let fault = Fault {
            origin: file.origin.clone(),
            path: String::new(),
            message: format!("holds no NodeConfig but {}", found.others.join(", ")),
            place: None,
        };
        return (Vec::new(), vec![fault]);
    }
    let documents = found.documents.into_iter().map(|document| Document {
        origin: inside(&document.origin),
        ..document
    });
    (documents.collect(), faults)
}
