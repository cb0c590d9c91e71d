//! Owns what a failure of the agent means to whoever called it: exit code and hint.
//! Touches nothing.

use std::error::Error;

use thiserror::Error;

use crate::builder::BuilderError;
use crate::ecr::EcrError;
use crate::node::NodeError;

/// Exit codes of `cos-agent`; `_docs/exit-codes.md` has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Something is not what the chain of trust says.
    Verification = 4,
    /// A step failed.
    Step = 6,
    /// The boot test failed.
    BootTest = 7,
}

/// A command failed.
#[derive(Debug, Error)]
pub enum AgentError {
    /// On the builder, or in the boot test.
    #[error(transparent)]
    Builder(#[from] BuilderError),
    /// On a node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// No login for a registry.
    #[error(transparent)]
    Ecr(#[from] EcrError),
}

impl AgentError {
    /// The code with which the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Builder(error) => builder_exit(error),
            // A node has these two only.
            Self::Node(error) if error.exit_code() == Exit::Usage as u8 => Exit::Usage,
            Self::Ecr(EcrError::Usage { .. } | EcrError::NoServer | EcrError::NotEcr { .. }) => Exit::Usage,
            Self::Node(_) | Self::Ecr(_) => Exit::Step,
        }
    }

    /// What to do about it, where there is something better to say than the error itself.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Builder(error) => builder_hint(error).map(str::to_owned),
            Self::Node(error) => error.hint(),
            Self::Ecr(error) => error.hint(),
        }
    }
}

fn builder_exit(error: &BuilderError) -> Exit {
    match error {
        BuilderError::NotAPayload { .. }
        | BuilderError::Differs { .. }
        | BuilderError::Malformed { .. }
        | BuilderError::Missing { .. }
        | BuilderError::Unexpected { .. }
        | BuilderError::Checks { booted: false, .. } => Exit::Verification,
        BuilderError::Checks { booted: true, .. } => Exit::BootTest,
        BuilderError::SealedIdentity(_) => Exit::Usage,
        BuilderError::Read { .. }
        | BuilderError::File { .. }
        | BuilderError::Program { .. }
        | BuilderError::Step { .. } => Exit::Step,
    }
}

fn builder_hint(error: &BuilderError) -> Option<&'static str> {
    match error {
        BuilderError::NotAPayload { .. } => Some("find the device by its volume id under /dev/disk/by-id"),
        BuilderError::Differs { .. }
        | BuilderError::Malformed { .. }
        | BuilderError::Missing { .. }
        | BuilderError::Unexpected { .. } => Some(
            "the volume is not the bundle that was asked for: discard the payload snapshot and bake again",
        ),
        BuilderError::Step { step, .. } | BuilderError::Program { step, .. }
            if step.contains("packet filter") =>
        {
            Some(
                "give the builder a way to the base's repositories (on Amazon Linux an S3 gateway endpoint), or use a base with iptables",
            )
        }
        BuilderError::Checks { booted: false, .. } => {
            Some("each failed check is named above with what was expected and found")
        }
        BuilderError::Checks { booted: true, .. } => Some("the image must not be published"),
        BuilderError::SealedIdentity(_) => Some("hand on the line that `cos-agent seal` printed, as it is"),
        _ => None,
    }
}

/// The error and its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The error and its causes, one line each; the causes are indented.
pub fn chain(error: &dyn Error) -> String {
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str("\n  because: ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
