//! Owns the arguments of `reconcile`, and what it prints.
//! Touches the stream it is given.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::{Node, Reconciled, reconcile};
use crate::host::{Files, RealPrograms};
use crate::node::NodeError;
use crate::node::commands::print_json;
use crate::node::health::{self, LocalConsul};
use crate::node::lock;
use crate::node::render::RECORD;
use crate::node::services;
use crate::node::sources::{Imds, imds};

/// Put right what is no longer what it should be, as far as nothing has to start or stop for it.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArguments {
    /// Tell what would be put right, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = imds::DEFAULT_URL)]
    pub imds: String,
    /// Consul's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::CONSUL_URL)]
    pub consul: String,
    /// Longest time for another cos-agent to end its changes, and again for what reloads to answer.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl ReconcileArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write) -> Result<(), NodeError> {
        let files = Files::new("/");
        if files.mode(RECORD)?.is_none() {
            return Err(NodeError::NeverApplied);
        }
        let _lock = lock::wait(&files, lock::APPLY, self.deadline)?;
        let programs = RealPrograms;
        let manager = services::detect(&files, &programs).ok_or(NodeError::NoServiceManager)?;
        let node = Node {
            files: &files,
            programs: &programs,
            manager: manager.as_ref(),
            consul: &LocalConsul::new(&self.consul),
            imds: &Imds::new(&self.imds, imds::BUDGET),
            deadline: self.deadline,
        };
        let reconciled = reconcile(&node, self.dry_run)?;
        if self.json {
            return print_json(out, &reconciled);
        }
        for line in reconciled.lines(self.dry_run) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

impl Reconciled {
    /// What came of it, for people.
    fn lines(&self, dry_run: bool) -> Vec<String> {
        let did = if dry_run { "would" } else { "did" };
        let mut lines: Vec<String> = self
            .repaired
            .iter()
            .map(|change| format!("{did} {change}"))
            .collect();
        lines.extend(self.pending.iter().map(ToString::to_string));
        if lines.is_empty() {
            lines.push("the node is what it should be".to_owned());
        }
        lines
    }
}
