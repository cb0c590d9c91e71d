//! Owns what is wrong with Nomad: no agent, no leader, no quorum, a client that takes no jobs.
//! Touches Nomad's API on this machine.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::Api;
use super::consul::{no_leader, quorum, silent};
use super::{Case, Finding};
use crate::node::config::Role;

#[derive(Deserialize)]
struct AgentSelf {
    stats: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    status: String,
    #[serde(default)]
    scheduling_eligibility: String,
    #[serde(default)]
    drain: bool,
    #[serde(default)]
    drivers: BTreeMap<String, Driver>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    healthy: bool,
    #[serde(default)]
    health_description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    members: Option<Vec<Member>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    addr: String,
    status: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

pub(super) fn check(case: &Case) -> Vec<Finding> {
    if !case.roles().is_some_and(crate::node::config::Roles::has_nomad) {
        return Vec::new();
    }
    let api = Api::new(&case.patient.nomad);
    let agent: AgentSelf = match api.get("/v1/agent/self") {
        Ok(agent) => agent,
        Err(refusal) => return vec![silent("Nomad", "nomad", "NOMAD_TOKEN", &refusal)],
    };
    let mut findings = Vec::new();
    let leader: Result<String, _> = api.get("/v1/status/leader");
    match leader {
        Ok(leader) if !leader.is_empty() => {}
        Ok(_) => findings.push(no_leader("Nomad", "an empty leader", "asked on this node")),
        Err(refusal) => findings.push(no_leader("Nomad", &refusal.words, "asked on this node")),
    }
    if case.has(Role::NomadServer) {
        findings.extend(servers(case, &api));
    }
    if case.has(Role::NomadClient) {
        let id = agent
            .stats
            .get("client")
            .and_then(|client| client.get("node_id")?.as_str());
        let node = id.and_then(|id| Some((id, api.get::<Node>(&format!("/v1/node/{id}")).ok()?)));
        findings.extend(node.iter().flat_map(|(id, node)| client(id, node)));
    }
    findings
}

fn servers(case: &Case, api: &Api<'_>) -> Vec<Finding> {
    let (Ok(peers), Ok(members)) = (
        api.get::<Vec<String>>("/v1/status/peers"),
        api.get::<Members>("/v1/agent/members"),
    ) else {
        return Vec::new();
    };
    let members = members.members.unwrap_or_default();
    let alive = members.iter().filter(|member| member.status == "alive");
    let living: Vec<String> = alive
        .map(|member| {
            let tag = |name| member.tags.get(name).map(String::as_str);
            format!(
                "{}:{}",
                tag("rpc_addr").unwrap_or(&member.addr),
                tag("port").unwrap_or("4647")
            )
        })
        .collect();
    let expected = case.record.as_ref().and_then(|record| record.nomad_servers);
    quorum("Nomad", "nomad operator raft", &peers, &living, expected)
}

fn client(id: &str, node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    if node.status != "ready" {
        findings.push(Finding::fault(
            "the Nomad servers do not count this node as ready",
            format!("node {id} is {}", node.status),
            "journalctl --unit nomad --lines 50; security groups must let 4647 (tcp) through to the servers",
        ));
    }
    if node.drain {
        findings.push(Finding::warning(
            "the jobs of this node are sent away",
            format!("node {id} drains"),
            format!("if it is to stay: nomad node drain -disable {id}"),
        ));
    } else if node.scheduling_eligibility == "ineligible" {
        findings.push(Finding::warning(
            "this node takes no new jobs",
            format!("node {id} is ineligible"),
            format!("cos-agent health tells what is missing; by hand: nomad node eligibility -enable {id}"),
        ));
    }
    match node.drivers.get("docker") {
        Some(driver) if driver.healthy => {}
        Some(driver) => findings.push(Finding::fault(
            "Nomad cannot use Docker on this node",
            driver.health_description.clone(),
            "systemctl status docker containerd; journalctl --unit docker --lines 50",
        )),
        None => findings.push(Finding::fault(
            "Nomad has no Docker driver on this node",
            "no driver of this name",
            "systemctl restart docker, then: systemctl restart nomad",
        )),
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_client_that_takes_no_jobs_says_why() {
        let told = |json: serde_json::Value| -> Vec<(Severity, String)> {
            let findings = client("n-1", &serde_json::from_value(json).unwrap());
            findings
                .into_iter()
                .map(|finding| (finding.severity, finding.evidence))
                .collect()
        };
        let good = serde_json::json!({"Status": "ready", "SchedulingEligibility": "eligible",
            "Drivers": {"docker": {"Healthy": true}}});
        assert_eq!(told(good.clone()), []);
        let with = |key: &str, value: serde_json::Value| {
            let mut node = good.clone();
            node[key] = value;
            told(node)
        };
        let one = |severity, words: &str| vec![(severity, words.to_owned())];
        assert_eq!(
            with("Status", "down".into()),
            one(Severity::Fault, "node n-1 is down")
        );
        assert_eq!(
            with("SchedulingEligibility", "ineligible".into()),
            one(Severity::Warning, "node n-1 is ineligible")
        );
        assert_eq!(
            with("Drain", true.into()),
            one(Severity::Warning, "node n-1 drains")
        );
        let sick = serde_json::json!({"docker": {"Healthy": false, "HealthDescription": "no daemon"}});
        assert_eq!(with("Drivers", sick), one(Severity::Fault, "no daemon"));
    }
}
