//! Owns what can go wrong with watching, draining and leaving, in words.
//! Touches nothing.

use std::time::Duration;

use thiserror::Error;

use crate::host::FileError;
use crate::node::lock::WATCH;

/// `watch`, `drain`, `eligible` or `leave` came to a bad end.
#[derive(Debug, Error)]
pub enum WatchError {
    /// Another process acts on this node.
    #[error("another cos-agent acts on this node: it holds {WATCH}")]
    Locked,
    /// Signals cannot be waited for.
    #[error("could not wait for signals")]
    Signals(#[source] nix::Error),
    /// The journal or a marker beside it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command was told to end before the node had come so far.
    #[error("interrupted: the node is not {wanted} yet, and stays on its way there")]
    Interrupted {
        /// What it should become.
        wanted: &'static str,
    },
    /// The node did not come so far in time.
    #[error("the node is not {wanted} after {}", humantime::format_duration(*after))]
    Late {
        /// What it should become.
        wanted: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Jobs had to be stopped.
    #[error("the deadline came before all jobs had moved: {}", left.map_or("how many could not be told".to_owned(), |left| format!("{left} allocations were left")))]
    JobsLeft {
        /// How many were left, if it could be told.
        left: Option<u32>,
    },
    /// The node is a member still.
    #[error("the node stays a member of {product}: {reason}")]
    Stays {
        /// Of what.
        product: &'static str,
        /// Why.
        reason: String,
    },
    /// Something else than the operator keeps the node out.
    #[error("the node stays {posture}: {}", reasons.join("; "))]
    KeptOut {
        /// What it is.
        posture: String,
        /// Why.
        reasons: Vec<String>,
    },
}

impl WatchError {
    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Locked => Some("the service watches already: systemctl status cos-agent-watch".to_owned()),
            Self::Interrupted { .. } => Some("cos-agent eligible takes the node back in".to_owned()),
            Self::Late { .. } => Some("journalctl --unit cos-agent-watch --unit nomad --lines 50".to_owned()),
            Self::JobsLeft { .. } => Some(
                "give jobs more time with --deadline, or see why they could not be placed elsewhere"
                    .to_owned(),
            ),
            Self::Stays { .. } => {
                Some("let a new server get its vote first, then run cos-agent leave again".to_owned())
            }
            _ => None,
        }
    }
}
