//! Owns the arguments of `drain`, `leave` and `eligible`, and what each prints.
//! Touches only the two streams it is given: `out` is data, `talk` is for people.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::by_hand;
use crate::node::NodeError;
use crate::node::watch::this_node::{NodeArguments, ThisNode};
use crate::node::watch::{Lines, Posture, Request, Timestamp};

/// How long bringing a node back may take.
const BACK: Duration = Duration::from_mins(1);

/// How jobs go.
#[derive(Debug, Clone, Args)]
pub struct GoingArguments {
    /// Longest time for jobs to move away; what is left then is stopped.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Let system jobs stay.
    #[arg(long)]
    pub ignore_system_jobs: bool,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Where the node's files and agents are.
    #[command(flatten)]
    pub node: NodeArguments,
}

impl GoingArguments {
    fn run(self, posture: Posture, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let since = Timestamp::now();
        let request = Request {
            posture,
            since,
            deadline: since.plus(self.deadline),
            ignore_system_jobs: self.ignore_system_jobs,
            reason: self.reason,
        };
        ask(&self.node, &request, out, talk)
    }
}

/// Have this node's jobs moved away, and take no more.
#[derive(Debug, Clone, Args)]
pub struct DrainArguments {
    /// How.
    #[command(flatten)]
    pub going: GoingArguments,
}

impl DrainArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        self.going.run(Posture::Drained, out, talk)
    }
}

/// Drain this node, and leave Nomad and Consul.
#[derive(Debug, Clone, Args)]
pub struct LeaveArguments {
    /// How.
    #[command(flatten)]
    pub going: GoingArguments,
}

impl LeaveArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        self.going.run(Posture::Gone, out, talk)
    }
}

/// Take back what `drain` and `leave` asked for: join again, take jobs again.
#[derive(Debug, Clone, Args)]
pub struct EligibleArguments {
    /// Where the node's files and agents are.
    #[command(flatten)]
    pub node: NodeArguments,
}

impl EligibleArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let since = Timestamp::now();
        let request = Request {
            posture: Posture::Serving,
            since,
            deadline: since.plus(BACK),
            ignore_system_jobs: false,
            reason: String::new(),
        };
        ask(&self.node, &request, out, talk)
    }
}

fn ask(
    arguments: &NodeArguments,
    request: &Request,
    out: &mut dyn Write,
    talk: &mut dyn Write,
) -> Result<(), NodeError> {
    let node = ThisNode::find(arguments)?;
    let mut lines = Lines::new(if arguments.json { out } else { talk }, arguments.json);
    by_hand::ask(&node, request, &mut lines)
}
