//! Owns asking the Consul agent of this machine to leave, and about its servers.
//! Touches its HTTP API and the token file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::Api;
use super::raft::Raft;
use super::{ApiError, Consul};
use crate::host::Files;

/// A server that leaves drains its RPC for 5 s (`leave_drain_time`) and waits 5 s to be let go before it answers.
const LEAVE: Duration = Duration::from_secs(30);

/// The agent.
#[derive(Debug)]
pub struct ConsulAgent<'a> {
    api: Api,
    leaving: Api,
    files: &'a Files,
    name: String,
    token_file: Option<PathBuf>,
}

impl<'a> ConsulAgent<'a> {
    /// The agent at `url`, which calls itself `name`.
    pub fn new(url: &str, files: &'a Files, name: &str, token_file: Option<&Path>) -> Self {
        Self {
            api: Api::new(url, "X-Consul-Token"),
            leaving: Api::patient(url, "X-Consul-Token", LEAVE),
            files,
            name: name.to_owned(),
            token_file: token_file.map(Path::to_owned),
        }
    }

    fn token(&self) -> Result<Option<String>, ApiError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let content = self
            .files
            .read(path)
            .map_err(|error| ApiError::Failed(error.to_string()))?;
        let text = content.map(|content| String::from_utf8_lossy(&content).trim().to_owned());
        match text.filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text)),
            None => Err(ApiError::Failed(format!(
                "there is no token in {}",
                path.display()
            ))),
        }
    }
}

impl Consul for ConsulAgent<'_> {
    fn leave(&self) -> Result<(), ApiError> {
        self.leaving
            .done("PUT", "/v1/agent/leave", self.token()?.as_deref(), None)
            .map(drop)
    }

    fn maintenance(&self, on: bool, reason: &str) -> Result<(), ApiError> {
        let path = format!(
            "/v1/agent/maintenance?enable={on}&reason={}",
            super::nomad::escape(reason)
        );
        self.api
            .done("PUT", &path, self.token()?.as_deref(), None)
            .map(drop)
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        self.api.raft(&self.name, self.token()?.as_deref())
    }
}
