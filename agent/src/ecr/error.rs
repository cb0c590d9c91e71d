//! Owns what the helper says when it gives no login: not an ECR host is one thing, a failed call another.
//! Touches nothing.

use std::time::Duration;

use thiserror::Error;

use crate::aws::AwsError;
use crate::host::FileError;

/// The helper gives no login.
#[derive(Debug, Error)]
pub enum EcrError {
    /// The host is no ECR registry; Docker goes on without a login.
    #[error("{server} is not an ECR registry")]
    NotEcr {
        /// What was asked for.
        server: String,
    },
    /// Nobody said for which host.
    #[error("no server was named on standard input")]
    NoServer,
    /// The word after the program's name is none that the protocol has.
    #[error("there is no action {action}: get, store, erase, list and version are known")]
    Usage {
        /// What was asked for.
        action: String,
    },
    /// Logins come from AWS, so that there is nothing to keep.
    #[error("logins for ECR are not stored: they come from AWS at each pull")]
    Store,
    /// The service gave none.
    #[error("ECR gave no login for {host}")]
    Api {
        /// Registry.
        host: String,
        /// Why.
        #[source]
        source: Box<AwsError>,
    },
    /// The service gave none to another process that asked for the same.
    #[error("ECR gave no login for {host}, as another process was told: {reason}")]
    Told {
        /// Registry.
        host: String,
        /// What the other process was told.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Another process asks, and does not come to an end.
    #[error("another process has been asking for {host}'s login for {:.0} s", after.as_secs_f64())]
    Busy {
        /// Registry.
        host: String,
        /// How long was waited.
        after: Duration,
    },
    /// A file of the cache could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The question could not be read, or the answer not written.
    #[error("could not talk to the program that asks")]
    Talk(#[from] std::io::Error),
}

impl EcrError {
    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Api { source, .. } => source.hint(),
            Self::Told { hint, .. } => hint.clone(),
            Self::NotEcr { .. } => {
                Some("list in credHelpers of Docker's configuration the hosts of ECR only".to_owned())
            }
            Self::Store => Some(
                "leave docker login out; AWS_ECR_IGNORE_CREDS_STORAGE=true takes it without a word"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What the protocol wants on standard output. Docker knows the first two texts, of which the first means 'go on
    /// without a login'; any other goes into its error message. (docker-credential-helpers, `credentials/error.go`.)
    pub(super) fn protocol_text(&self) -> String {
        match self {
            Self::NotEcr { .. } => "credentials not found in native keychain".to_owned(),
            Self::NoServer => "no credentials server URL".to_owned(),
            other => one_line(other),
        }
    }
}

/// The error with its causes in one line, whatever line ends they hold.
pub(super) fn one_line(error: &dyn std::error::Error) -> String {
    crate::error::one_line(error).replace(['\n', '\r'], " ")
}
