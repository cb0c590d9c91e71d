//! Owns asking Consul and Nomad of this machine as a doctor does: briefly, and with the status of a refusal.
//! Touches local HTTP.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::node::http;

/// One answer may take this long; several must fit into the time of a check.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status, where there was an answer at all.
    pub(super) status: Option<u16>,
    /// What was met.
    pub(super) words: String,
}

impl Refusal {
    /// Whether access control is on and nobody gave us a token.
    pub(super) fn needs_token(&self) -> bool {
        self.status == Some(403)
    }
}

/// An API at a base URL.
pub(super) struct Api<'a> {
    base: &'a str,
    agent: ureq::Agent,
}

impl<'a> Api<'a> {
    pub(super) fn new(base: &'a str) -> Self {
        Self {
            base: base.trim_end_matches('/'),
            agent: http::client(Duration::from_millis(500), PATIENCE),
        }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let url = format!("{}{path}", self.base);
        let refusal = |status, words: String| Refusal {
            status,
            words: format!("{url}: {words}"),
        };
        match http::get(&self.agent, &url, None) {
            Ok(answer) if answer.status == 200 => serde_json::from_slice(&answer.body)
                .map_err(|error| refusal(Some(200), format!("not readable: {error}"))),
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                let line: String = body
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(200)
                    .collect();
                Err(refusal(Some(answer.status), format!("{} {line}", answer.status)))
            }
            Err(error) => Err(refusal(None, error.to_string())),
        }
    }
}
