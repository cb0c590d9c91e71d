//! Owns the arguments of `schema`.
//! Touches the stream it is given.

use std::io::Write;

use clap::Args;

use super::print_json;
use crate::node::config;
use crate::node::error::NodeError;

/// Print NodeConfig as JSON Schema.
#[derive(Debug, Clone, Args)]
pub struct SchemaArguments {
    /// Print Markdown for people instead: every key, what it holds, what it is for.
    #[arg(long)]
    pub markdown: bool,
}

impl SchemaArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, _talk: &mut dyn Write) -> Result<(), NodeError> {
        if self.markdown {
            return write!(out, "{}", config::reference()).map_err(NodeError::Output);
        }
        print_json(out, &config::json_schema())
    }
}
