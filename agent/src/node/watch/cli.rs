//! Owns the arguments of `watch`, and what it prints.
//! Touches only the two streams it is given: `out` is data, `talk` is for people.

use std::io::Write;

use clap::Args;

use super::auto_scaling::AutoScaling;
use super::engine::Until;
use super::error::WatchError;
use super::event::Lines;
use super::hook::LifecycleActions;
use super::notify::Notify;
use super::this_node::{NodeArguments, ThisNode};
use crate::node::NodeError;
use crate::node::lock;
use crate::node::sources::imds;

/// Watch for notices that this node must go, and see to it.
#[derive(Debug, Clone, Args)]
pub struct WatchArguments {
    /// Ask every source once, print what would be done now, and do nothing.
    #[arg(long)]
    pub once: bool,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = imds::DEFAULT_URL)]
    pub imds: String,
    /// Where the node's files and agents are.
    #[command(flatten)]
    pub node: NodeArguments,
}

impl WatchArguments {
    /// Runs it until it is told to stop. `socket` is the value of `NOTIFY_SOCKET`.
    pub fn run(
        self,
        socket: Option<&str>,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<(), NodeError> {
        let node = ThisNode::find(&self.node)?;
        let instance = node.name().to_owned();
        let group = AutoScaling::new(&self.imds, &instance);
        let lifecycle: Option<&dyn LifecycleActions> = Some(&group);
        let data = self.once || self.node.json;
        let mut lines = Lines::new(if data { out } else { talk }, self.node.json);
        if self.once {
            let silent = Notify::default();
            return node.with_engine(Some(&self.imds), lifecycle, &silent, &mut lines, |engine| {
                engine.preview();
            });
        }
        let Some(_lock) = lock::take(&node.files, lock::WATCH)? else {
            return Err(WatchError::Locked.into());
        };
        let notify = Notify::to(socket);
        node.with_engine(Some(&self.imds), lifecycle, &notify, &mut lines, |engine| {
            engine.run(Until::Stopped);
        })
    }
}
