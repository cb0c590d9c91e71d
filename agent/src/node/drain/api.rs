//! Owns one agent's HTTP API on this machine, with a token that never shows.
//! Touches local HTTP.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::ApiError;
use super::raft::{self, Raft};
use crate::node::http::{self, Answer};

const CONNECT: Duration = Duration::from_millis(500);
/// Longest time for an answer. Requests that change something wait for the servers' raft.
const ANSWER: Duration = Duration::from_secs(10);

/// Paths that Consul and Nomad share.
const RAFT: &str = "/v1/operator/raft/configuration";
const AUTOPILOT: &str = "/v1/operator/autopilot/health";

/// The API of one agent.
#[derive(Debug)]
pub(super) struct Api {
    agent: ureq::Agent,
    base: String,
    token_header: &'static str,
}

impl Api {
    /// The API at `base`, whose token goes into `token_header`.
    pub(super) fn new(base: &str, token_header: &'static str) -> Self {
        Self::patient(base, token_header, ANSWER)
    }

    /// As [`Api::new`], with another longest time for an answer.
    pub(super) fn patient(base: &str, token_header: &'static str, answer: Duration) -> Self {
        Self {
            agent: http::client(CONNECT, answer),
            base: base.trim_end_matches('/').to_owned(),
            token_header,
        }
    }

    /// One request. Any status is an answer, except those that mean that it may not be asked.
    pub(super) fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, ApiError> {
        let url = format!("{}{path}", self.base);
        let header = token.map(|token| (self.token_header, token));
        let body = body.map(|body| body.to_string().into_bytes());
        match http::send(&self.agent, method, &url, header.as_slice(), body) {
            Ok(answer) if matches!(answer.status, 401 | 403) => {
                Err(ApiError::Denied(self.told(method, path, &answer)))
            }
            Ok(answer) => Ok(answer),
            Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(ApiError::Absent(format!("nobody listens at {}", self.base)))
            }
            // The error may name the URL, never a header.
            Err(error) => Err(ApiError::Failed(format!("{method} {url}: {error}"))),
        }
    }

    /// One request that must succeed.
    pub(super) fn done(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> Result<Vec<u8>, ApiError> {
        let answer = self.call(method, path, token, body)?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let told = self.told(method, path, &answer);
        // Nomad's agents forward to servers, and give back what those said with status 500.
        if told.contains("Permission denied") || told.contains("ACL token not found") {
            return Err(ApiError::Denied(told));
        }
        Err(ApiError::Failed(told))
    }

    /// Reads one document.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, token: Option<&str>) -> Result<T, ApiError> {
        self.decode(path, &self.done("GET", path, token, None)?)
    }

    fn decode<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::Failed(format!(
                "{}{path} answered what is not readable: {error}",
                self.base
            ))
        })
    }

    /// The servers as they see each other.
    pub(super) fn raft(&self, name: &str, token: Option<&str>) -> Result<Raft, ApiError> {
        let configuration = self.get(RAFT, token)?;
        let answer = self.call("GET", AUTOPILOT, token, None)?;
        // 429 means that some server is not healthy; the body says which.
        if !matches!(answer.status, 200 | 429) {
            return Err(ApiError::Failed(self.told("GET", AUTOPILOT, &answer)));
        }
        Ok(raft::read(
            configuration,
            self.decode(AUTOPILOT, &answer.body)?,
            name,
        ))
    }

    fn told(&self, method: &str, path: &str, answer: &Answer) -> String {
        let body = String::from_utf8_lossy(&answer.body);
        let line: String = body
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        let path = path.split('?').next().unwrap_or_default();
        format!("{method} {}{path} answered {}: {line}", self.base, answer.status)
    }
}
