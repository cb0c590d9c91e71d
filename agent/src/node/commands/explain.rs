//! Owns the arguments of `explain` and what it prints: each value with the source that says it, and what holds for
//! keys that nobody says. Touches what the sources touch, for reading.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{SourceArguments, print_json, told};
use crate::node::config::{self, Explained};
use crate::node::error::NodeError;
use crate::node::sources::Document;

/// Tell which source says what.
#[derive(Debug, Clone, Args)]
pub struct ExplainArguments {
    /// Only keys that begin with this, such as `consul`.
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// Where to look.
    #[command(flatten)]
    pub sources: SourceArguments,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// One key.
#[derive(Debug, Serialize)]
struct Row {
    path: String,
    /// As JSON, or in words where it cannot be told before it is known what the instance is.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    source: &'static str,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
}

impl ExplainArguments {
    /// Runs it. What is said is told even where it has faults; they come after it, and as the error.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let gathered = self.sources.gather().map_err(|error| told(error, talk))?;
        let lines = lines(&gathered.documents, self.key.as_deref().unwrap_or_default())
            .map_err(|error| told(error, talk))?;
        if self.json {
            print_json(out, &lines)?;
        } else {
            let widest = lines.iter().map(|line| line.path.len()).max().unwrap_or(0);
            for line in &lines {
                let what = match (&line.value, &line.default) {
                    (Some(value), _) => value,
                    (None, Some(words)) => words,
                    (None, None) => continue,
                };
                let place = match (line.line, line.column) {
                    (Some(line), Some(column)) => format!(", line {line}, column {column}"),
                    _ => String::new(),
                };
                writeln!(out, "{:<widest$}  {what}  ({}{place})", line.path, line.origin)?;
            }
        }
        match config::read(&gathered.documents) {
            Ok(_) => Ok(()),
            Err(faults) => Err(told(faults.into(), talk)),
        }
    }
}

/// Whether a key path is a key, or one of its parts.
fn below(path: &str, key: &str) -> bool {
    let rest = path.strip_prefix(key);
    key.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn lines(documents: &[Document], key: &str) -> Result<Vec<Row>, NodeError> {
    let said = config::explain(documents)?;
    let paths: Vec<&str> = said.iter().map(|said| said.path.as_str()).collect();
    let defaults = config::defaults(config::roles(documents).as_ref(), &paths);
    let value = |said: &Explained| Row {
        path: said.path.clone(),
        value: Some(said.value.clone()),
        default: None,
        source: said.origin.kind(),
        origin: said.origin.to_string(),
        line: said.place.map(|(line, _)| line),
        column: said.place.map(|(_, column)| column),
    };
    let mut lines: Vec<Row> = said.iter().map(value).collect();
    lines.extend(defaults.into_iter().map(|default| Row {
        path: default.path,
        value: None,
        default: Some(default.words),
        source: "default",
        origin: "default".to_owned(),
        line: None,
        column: None,
    }));
    lines.retain(|line| below(&line.path, key));
    // Stable, so that the entries of a list stay in their order.
    lines.sort_by(|one, other| {
        let keys = |line: &Row| line.path.split(['.', '[']).next().map(str::to_owned);
        order(keys(one)).cmp(&order(keys(other)))
    });
    Ok(lines)
}

/// Where a top key stands in NodeConfig.
fn order(key: Option<String>) -> usize {
    let schema = config::top_keys();
    key.and_then(|key| schema.iter().position(|known| *known == key))
        .unwrap_or(usize::MAX)
}
