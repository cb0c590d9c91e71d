//! Owns asking the Nomad agent of this machine about its node, its jobs and its servers.
//! Touches its HTTP API, the token file, and the identity that the agent keeps in its data folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::api::Api;
use super::raft::Raft;
use super::{ApiError, DrainView, NodeView, Nomad};
use crate::host::Files;

/// Where COS lets Nomad keep its state.
pub const NOMAD_DATA: &str = "/opt/nomad/data";

/// Allocations that are told at most; whether it is that many or more makes no difference to who waits.
const PAGE: usize = 200;

/// The agent. Without a token file it acts with the node's own identity, the secret that the agent itself shows its
/// servers: they let a node read and drain itself, and bring itself back, but neither make itself ineligible without
/// a drain nor see its allocations. Tried with 1.11.0 under access control, where the agent's own way of draining
/// itself is denied (GH-27115); from 1.5.4 on it is the right by which an agent drains itself (`nomad/node_endpoint.go`).
#[derive(Debug)]
pub struct NomadAgent<'a> {
    api: Api,
    files: &'a Files,
    name: String,
    token_file: Option<PathBuf>,
    data: PathBuf,
}

impl<'a> NomadAgent<'a> {
    /// The agent at `url`, whose node is called `name`, and which keeps its state in `data` of these files.
    pub fn new(url: &str, files: &'a Files, name: &str, token_file: Option<&Path>, data: &Path) -> Self {
        Self {
            api: Api::new(url, "X-Nomad-Token"),
            files,
            name: name.to_owned(),
            token_file: token_file.map(Path::to_owned),
            data: data.to_owned(),
        }
    }

    fn token(&self) -> Result<Option<String>, ApiError> {
        if let Some(path) = &self.token_file {
            let text = self.read(path)?;
            let absent = || ApiError::Failed(format!("there is no token in {}", path.display()));
            return text.ok_or_else(absent).map(Some);
        }
        self.read(&self.data.join("client/secret-id"))
    }

    fn read(&self, path: &Path) -> Result<Option<String>, ApiError> {
        let content = self
            .files
            .read(path)
            .map_err(|error| ApiError::Failed(error.to_string()))?;
        let text = content.map(|content| String::from_utf8_lossy(&content).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// The node's id: kept beside its secret; an agent in development mode keeps neither, but tells the id.
    fn id(&self, token: Option<&str>) -> Result<String, ApiError> {
        if let Some(id) = self.read(&self.data.join("client/client-id"))? {
            return Ok(id);
        }
        let agent: AgentSelf = self.api.get("/v1/agent/self", token)?;
        let id = agent.stats.client.and_then(|client| client.node_id);
        id.ok_or_else(|| ApiError::Failed("the agent does not tell its node's id".to_owned()))
    }

    fn put(&self, end: &str, body: &serde_json::Value) -> Result<(), ApiError> {
        let token = self.token()?;
        let path = format!("/v1/node/{}/{end}", self.id(token.as_deref())?);
        self.api
            .done("PUT", &path, token.as_deref(), Some(body))
            .map(drop)
    }
}

#[derive(Deserialize)]
struct AgentSelf {
    stats: Stats,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Stats {
    client: Option<ClientStats>,
}

#[derive(Deserialize)]
struct ClientStats {
    node_id: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "LeaveOnTerm")]
    leave_on_terminate: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    scheduling_eligibility: String,
    drain_strategy: Option<serde::de::IgnoredAny>,
    last_drain: Option<LastDrain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LastDrain {
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allocation {
    #[serde(default)]
    job_type: String,
}

impl Nomad for NomadAgent<'_> {
    fn node(&self) -> Result<NodeView, ApiError> {
        let token = self.token()?;
        let path = format!("/v1/node/{}", self.id(token.as_deref())?);
        let node: Node = self.api.get(&path, token.as_deref())?;
        let eligible = node.scheduling_eligibility == "eligible";
        let drain = match (node.drain_strategy, node.last_drain) {
            (Some(_), _) => DrainView::Running,
            (None, Some(last)) if last.status == "complete" => DrainView::Complete,
            // Before 1.1 the last drain was not remembered; one that left the node ineligible was not cancelled.
            (None, None) if !eligible => DrainView::Complete,
            (None, _) => DrainView::None,
        };
        Ok(NodeView { eligible, drain })
    }

    fn allocations(&self, ignore_system_jobs: bool) -> Result<Option<u32>, ApiError> {
        let token = self.token()?;
        let filter = format!(
            "NodeID == \"{}\" and ClientStatus != \"complete\" and ClientStatus != \"failed\" and ClientStatus != \
             \"lost\"",
            self.id(token.as_deref())?
        );
        let path = format!(
            "/v1/allocations?namespace=*&task_states=false&per_page={PAGE}&filter={}",
            escape(&filter)
        );
        match self.api.get::<Vec<Allocation>>(&path, token.as_deref()) {
            Ok(allocations) => {
                let counts =
                    |allocation: &&Allocation| !(ignore_system_jobs && allocation.job_type == "system");
                let left = allocations.iter().filter(counts).count();
                Ok(Some(u32::try_from(left).unwrap_or(u32::MAX)))
            }
            Err(ApiError::Denied(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take_out(&self) -> Result<(), ApiError> {
        self.put("eligibility", &json!({ "Eligibility": "ineligible" }))
    }

    fn drain(&self, deadline: Duration, ignore_system_jobs: bool, reason: &str) -> Result<(), ApiError> {
        // 0 would be no deadline at all; less than 0 stops everything at once.
        let nanoseconds = match i64::try_from(deadline.as_nanos()) {
            Ok(nanoseconds) if deadline >= Duration::from_secs(1) => nanoseconds,
            Ok(_) => -1,
            Err(_) => i64::MAX,
        };
        self.put(
            "drain",
            &json!({
                "DrainSpec": { "Deadline": nanoseconds, "IgnoreSystemJobs": ignore_system_jobs },
                "Meta": { "message": reason },
            }),
        )
    }

    fn end_drain(&self, eligible: bool) -> Result<(), ApiError> {
        // Unlike the path `eligibility` this one takes a node that still drains, and the node's own identity.
        self.put("drain", &json!({ "DrainSpec": null, "MarkEligible": eligible }))
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        self.api.raft(&self.name, self.token()?.as_deref())
    }

    fn leaves_on_signal(&self) -> Result<Option<bool>, ApiError> {
        match self
            .api
            .get::<AgentSelf>("/v1/agent/self", self.token()?.as_deref())
        {
            Ok(agent) => Ok(agent.config.and_then(|config| config.leave_on_terminate)),
            Err(ApiError::Denied(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Percent-encodes a value of a query.
pub(super) fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_query() {
        assert_eq!(escape("a == \"b-1\""), "a%20%3D%3D%20%22b-1%22");
    }
}
