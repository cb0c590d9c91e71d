//! Owns the errors of a bake, their exit codes and hints.
//! Touches nothing; `main.rs` prints the chain once.

use std::time::Duration;

use thiserror::Error;

use crate::cloud::{CloudError, CloudErrorKind};
use crate::ledger::{LedgerError, UNDERSTAND};
use crate::release::{FailureClass, ReleaseError};

/// Exit codes of `cos-bake`; the same table is in `_docs/exit-codes.md`, and a test compares the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Refused at plan.
    Refused = 3,
    /// Verification failed.
    Verification = 4,
    /// The cloud refused or failed.
    Cloud = 5,
    /// A step on the builder failed.
    Step = 6,
    /// Boot test failed.
    BootTest = 7,
    /// Leftovers remain.
    Leftovers = 8,
    /// Interrupted.
    Interrupted = 130,
}

/// A bake, or another command of the tool, did not come to its end.
#[derive(Debug, Error)]
pub enum BakeError {
    /// An argument, a setting or a file of the user's is wrong.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The ledger cannot be written or read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The plan cannot be made: what is asked for would fail later.
    #[error("{message}")]
    Refused {
        /// What would fail.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A release, the lock or the bundle could not be had or is not what it must be.
    #[error("could not {action}")]
    Release {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: ReleaseError,
    },
    /// Bytes on a machine are not the bytes that were verified before.
    #[error("verification on {place} failed: {findings}")]
    Verification {
        /// Which machine.
        place: String,
        /// What differs, one finding a line.
        findings: String,
    },
    /// AWS refused or failed.
    #[error("could not {action}")]
    Cloud {
        /// What was tried, as a verb with ids.
        action: String,
        /// AWS's answer.
        #[source]
        source: CloudError,
    },
    /// Something did not come to pass in time.
    #[error("{what} did not happen within {} s: {reason}", deadline.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        deadline: Duration,
        /// What was seen last.
        reason: String,
    },
    /// Something that was waited for can no longer happen.
    #[error("{what} cannot happen any more: {reason}")]
    Hopeless {
        /// What was waited for.
        what: String,
        /// What was seen.
        reason: String,
    },
    /// A step on the builder failed.
    #[error("step `{step}` failed on {instance}: {message}")]
    Step {
        /// Name of the step.
        step: String,
        /// Where it ran.
        instance: String,
        /// Exit status and the end of its output.
        message: String,
    },
    /// The new image did not prove itself.
    #[error("{image} failed its boot test: {findings}")]
    BootTest {
        /// The image, deleted by now.
        image: String,
        /// What failed, one finding a line.
        findings: String,
    },
    /// Resources are left that cost money.
    #[error("{count} resources could not be removed")]
    Leftovers {
        /// How many.
        count: usize,
        /// The command that removes them.
        hint: String,
        /// The failure that came first, if there was one.
        #[source]
        cause: Option<Box<BakeError>>,
    },
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl BakeError {
    /// Wrong usage, with a hint.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Refused at plan, with a hint.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Turns a cloud error into this one, naming what was tried.
    pub fn cloud(action: impl Into<String>) -> impl FnOnce(CloudError) -> Self {
        let action = action.into();
        move |source| Self::Cloud { action, source }
    }

    /// The process's exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Ledger(_) => Exit::Usage,
            Self::Refused { .. } => Exit::Refused,
            Self::Release { source, .. } => match source.exit_class() {
                FailureClass::Usage | FailureClass::Machine => Exit::Usage,
                FailureClass::Verification => Exit::Verification,
                FailureClass::Network => Exit::Cloud,
            },
            Self::Verification { .. } => Exit::Verification,
            Self::Cloud { source, .. } => cloud_exit(source.kind),
            Self::Deadline { .. } | Self::Hopeless { .. } => Exit::Cloud,
            Self::Step { .. } => Exit::Step,
            Self::BootTest { .. } => Exit::BootTest,
            Self::Leftovers { .. } => Exit::Leftovers,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Refused { hint, .. } | Self::Leftovers { hint, .. } => {
                Some(hint.clone())
            }
            Self::Ledger(error) if error.action == UNDERSTAND => Some(
                "the file is damaged: move it away; once its bake has expired, `cos-bake sweep` finds what is left by tags"
                    .into(),
            ),
            Self::Ledger(_) => Some("name a folder that can be written with --ledger or COS_LEDGER".into()),
            Self::Release { source, .. } => source.hint(),
            Self::Verification { .. } => {
                Some("the machine was ended and no image was made; bake again, and if it happens twice look for what changes these files".into())
            }
            Self::Cloud { source, .. } => cloud_hint(source.kind).map(str::to_owned),
            Self::Deadline { .. } => Some("bake again; if it happens twice, what was seen last is the thing to look into".into()),
            Self::Hopeless { .. } => Some("bake again; if it happens twice, the reason above is the thing to look into".into()),
            Self::Step { .. } => Some("the whole output of the step is in the file named above".into()),
            Self::BootTest { .. } => Some("the image was deleted; the findings name the file or the service".into()),
            Self::Interrupted => None,
        }
    }
}

/// An error with its causes in one line, for warnings.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn cloud_exit(kind: CloudErrorKind) -> Exit {
    match kind {
        CloudErrorKind::Configuration | CloudErrorKind::NoCredentials => Exit::Usage,
        _ => Exit::Cloud,
    }
}

fn cloud_hint(kind: CloudErrorKind) -> Option<&'static str> {
    match kind {
        CloudErrorKind::Configuration => {
            Some("name a region with --region or AWS_REGION, and check AWS_PROFILE and AWS_CA_BUNDLE")
        }
        CloudErrorKind::NoCredentials => Some(
            "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached",
        ),
        CloudErrorKind::BadCredentials => {
            Some("renew the credentials (for example `aws sso login`) and run again")
        }
        CloudErrorKind::Unreachable => Some("check the region, the network and AWS_ENDPOINT_URL"),
        CloudErrorKind::Denied => Some("the caller's policy lacks the action named above"),
        CloudErrorKind::Throttled => {
            Some("the account's request limit is exhausted; run again in a few minutes")
        }
        CloudErrorKind::Duplicate => Some("choose another --name"),
        CloudErrorKind::Capacity => Some("choose another --instance-type or --subnet"),
        CloudErrorKind::NotFound | CloudErrorKind::InUse | CloudErrorKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is what users script against; it must say what the code does, and all of it.
    #[test]
    fn the_documented_exit_codes_are_these() {
        let table = include_str!("../../_docs/exit-codes.md");
        let documented: Vec<(u8, &str)> = table
            .lines()
            .filter_map(|line| {
                let mut cells = line.trim_matches('|').split('|').map(str::trim);
                Some((cells.next()?.parse().ok()?, cells.next()?))
            })
            .collect();
        let codes = [
            (Exit::Done, "done"),
            (Exit::Usage, "wrong usage or configuration"),
            (Exit::Refused, "refused at plan"),
            (Exit::Verification, "verification failed"),
            (Exit::Cloud, "the cloud refused or failed"),
            (Exit::Step, "a step on the builder or the node failed"),
            (Exit::BootTest, "boot test failed"),
            (Exit::Leftovers, "leftovers remain"),
            (Exit::Interrupted, "interrupted"),
        ];
        assert_eq!(documented, codes.map(|(code, meaning)| (code as u8, meaning)));
    }

    #[test]
    fn no_region_and_no_credentials_are_matters_of_configuration_and_expired_ones_of_the_cloud() {
        let error = |kind| BakeError::Cloud {
            action: "try".into(),
            source: CloudError {
                operation: "ec2:RunInstances",
                kind,
                code: None,
                message: String::new(),
                request_id: None,
            },
        };
        assert_eq!(error(CloudErrorKind::Configuration).exit(), Exit::Usage);
        assert_eq!(error(CloudErrorKind::NoCredentials).exit(), Exit::Usage);
        assert_eq!(error(CloudErrorKind::BadCredentials).exit(), Exit::Cloud);
        assert!(error(CloudErrorKind::BadCredentials).hint().is_some());
    }
}
