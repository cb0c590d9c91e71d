//! Owns what is wrong with Consul: no agent, no leader, no quorum, peers that are gone, keys that do not match.
//! Touches Consul's API on this machine, and its log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::api::{Api, Refusal};
use super::{Case, Finding};
use crate::host::Invocation;
use crate::node::config::Role;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    #[serde(default)]
    addr: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// serf's numbers: 1 is alive.
    status: u8,
}

impl Member {
    fn server(&self) -> bool {
        self.tags.get("role").is_some_and(|role| role == "consul")
    }

    /// Its address in raft.
    fn raft(&self) -> String {
        let port = self.tags.get("port").map_or("8300", String::as_str);
        format!("{}:{port}", self.addr)
    }
}

pub(super) fn check(case: &Case) -> Vec<Finding> {
    if case.record.is_none() {
        return Vec::new();
    }
    let api = Api::new(&case.patient.consul);
    let members: Vec<Member> = match api.get("/v1/agent/members") {
        Ok(members) => members,
        Err(refusal) => return vec![silent("Consul", "consul", "CONSUL_HTTP_TOKEN", &refusal)],
    };
    let mut findings = Vec::new();
    let alive = members
        .iter()
        .filter(|member| member.server() && member.status == 1)
        .count();
    let told: Vec<String> = members
        .iter()
        .filter(|member| member.server())
        .map(described)
        .collect();
    let told = if told.is_empty() {
        "no server is a member".to_owned()
    } else {
        told.join(", ")
    };
    if alive == 0 {
        findings.push(Finding::fault(
            "this node has found no Consul server",
            told,
            "consul.retry_join must name living servers; with a tag the role needs ec2:DescribeInstances; security \
             groups must let 8300 and 8301 (tcp) and 8301 (udp) through: journalctl --unit consul --lines 50",
        ));
        return findings;
    }
    let leader: Result<String, _> = api.get("/v1/status/leader");
    let peers: Result<Vec<String>, _> = api.get("/v1/status/peers");
    match leader {
        Ok(leader) if !leader.is_empty() => {}
        Ok(_) => findings.push(no_leader("Consul", "an empty leader", &told)),
        Err(refusal) => findings.push(no_leader("Consul", &refusal.words, &told)),
    }
    if let Ok(peers) = peers {
        let living: Vec<String> = members
            .iter()
            .filter(|member| member.server() && member.status == 1)
            .map(Member::raft)
            .collect();
        let expected = case.record.as_ref().and_then(|record| record.consul_servers);
        findings.extend(quorum(
            "Consul",
            "consul operator raft",
            &peers,
            &living,
            expected,
        ));
    }
    findings
}

fn described(member: &Member) -> String {
    let state = match member.status {
        1 => "alive",
        2 => "leaving",
        3 => "left",
        4 => "failed",
        _ => "unknown",
    };
    format!("{} {} {state}", member.name, member.addr)
}

/// An agent that does not answer, or not to us.
pub(super) fn silent(product: &str, unit: &str, variable: &str, refusal: &Refusal) -> Finding {
    if refusal.needs_token() {
        return Finding::note(
            format!("{product} does not tell without a token"),
            refusal.words.clone(),
            format!("a token of your own shows more: {variable}=… with the product's own commands"),
        );
    }
    Finding::fault(
        format!("{product} does not answer on this node"),
        refusal.words.clone(),
        format!("systemctl status {unit}; journalctl --unit {unit} --lines 50"),
    )
}

pub(super) fn no_leader(product: &str, evidence: &str, members: &str) -> Finding {
    Finding::fault(
        format!("the {product} servers have no leader"),
        format!("{evidence}; {members}"),
        "more than half of the servers must be up and see each other on their RPC port; if they never will be again: \
         peers.json on each that is left (\"outage recovery\" in the product's documentation)",
    )
}

/// What the peers of raft say against the servers that live.
pub(super) fn quorum(
    product: &str,
    command: &str,
    peers: &[String],
    living: &[String],
    expected: Option<u32>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if peers.is_empty() {
        // Nobody knows them where there is no leader, which is told already.
        return findings;
    }
    let gone: Vec<&str> = peers
        .iter()
        .filter(|peer| !living.contains(peer))
        .map(String::as_str)
        .collect();
    let voting = peers.len() - gone.len();
    let needed = peers.len() / 2 + 1;
    let evidence = format!(
        "raft has {} peers, {voting} of them live, {needed} must",
        peers.len()
    );
    if voting < needed {
        findings.push(Finding::fault(
            format!("the {product} servers have no quorum"),
            evidence,
            format!("bring back {} of: {}", needed - voting, gone.join(", ")),
        ));
    } else if !gone.is_empty() {
        findings.push(Finding::warning(
            format!("raft of {product} has a peer that is gone"),
            format!("{evidence}; gone: {}", gone.join(", ")),
            format!(
                "if autopilot does not remove it: {command} remove-peer -address={}",
                gone.join(" or ")
            ),
        ));
    } else if voting == needed && peers.len() > 1 {
        findings.push(Finding::warning(
            format!("one more failure takes the quorum of the {product} servers"),
            evidence,
            "add a server, so that there are three or five",
        ));
    }
    if let Some(expected) = expected.filter(|expected| peers.len() > usize::try_from(*expected).unwrap_or(0))
    {
        findings.push(Finding::note(
            format!("{product} has more servers than this node was told"),
            format!("{} peers, bootstrap_expect is {expected}", peers.len()),
            "while servers are replaced one by one this passes; else list them: consul operator raft list-peers",
        ));
    }
    findings
}

/// What memberlist says of keys that do not match, in lower case; its versions differ in the first letter.
const KEYS_DIFFER: [&str; 4] = [
    "no installed keys could decrypt the message",
    "remote state is encrypted and encryption is not configured",
    "encryption is configured but remote state is not encrypted",
    "decrypt packet failed",
];

pub(super) fn gossip(case: &Case) -> Vec<Finding> {
    let mut units = vec![("consul", "consul.gossip_key", "consul keyring -list")];
    if case.has(Role::NomadServer) {
        units.push(("nomad", "nomad.gossip_key", "nomad operator gossip keyring list"));
    }
    units
        .into_iter()
        .filter_map(|(unit, key, list)| keys_differ(case, unit, key, list))
        .collect()
}

fn keys_differ(case: &Case, unit: &str, key: &str, list: &str) -> Option<Finding> {
    let patience = Duration::from_secs(4);
    let service = format!("{unit}.service");
    // systemd 219 cannot search: the last lines are looked through here.
    let journal = [
        "--unit",
        &service,
        "--lines",
        "400",
        "--output",
        "cat",
        "--no-pager",
    ];
    let said = case
        .programs()
        .check(&Invocation::new("journalctl", journal, patience));
    let said = if let Ok(said) = said {
        said.stdout
    } else {
        // System V: where the script lets it write.
        let log = format!("/var/log/{unit}.log");
        let tail = Invocation::new("tail", ["-n", "400", log.as_str()], patience);
        case.programs().check(&tail).ok()?.stdout
    };
    let (count, last) = mismatches(&said)?;
    Some(Finding::fault(
        format!("the gossip key of {unit} is not the one that others have"),
        format!("{count} times in the last 400 lines of its log, last: {last}"),
        format!("give every node the same {key}; compare by: {list}"),
    ))
}

fn mismatches(log: &str) -> Option<(usize, &str)> {
    let differ = |line: &&str| {
        let line = line.to_ascii_lowercase();
        KEYS_DIFFER.iter().any(|words| line.contains(words))
    };
    let lines: Vec<&str> = log.lines().filter(differ).collect();
    lines.last().map(|last| (lines.len(), last.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_of_the_peers() {
        let address = |last: &u32| format!("10.0.0.{last}:8300");
        let told = |peers: u32, living: &[u32], expected| -> Vec<(Severity, String)> {
            let peers: Vec<String> = (1..=peers).map(|last| address(&last)).collect();
            let living: Vec<String> = living.iter().map(address).collect();
            let findings = quorum("Consul", "consul operator raft", &peers, &living, expected);
            findings
                .into_iter()
                .map(|finding| (finding.severity, finding.fact))
                .collect()
        };
        let words = |severity, text: &str| vec![(severity, text.to_owned())];
        assert_eq!(told(3, &[1, 2, 3], Some(3)), []);
        assert_eq!(told(1, &[1], Some(1)), []);
        assert_eq!(told(0, &[1], Some(1)), []);
        assert_eq!(
            told(3, &[1, 2], Some(3)),
            words(Severity::Warning, "raft of Consul has a peer that is gone")
        );
        assert_eq!(
            told(3, &[1], Some(3)),
            words(Severity::Fault, "the Consul servers have no quorum")
        );
        assert_eq!(
            told(2, &[1, 2], None),
            words(
                Severity::Warning,
                "one more failure takes the quorum of the Consul servers"
            )
        );
        assert_eq!(
            told(4, &[1, 2, 3, 4], Some(3)),
            words(Severity::Note, "Consul has more servers than this node was told")
        );
    }

    #[test]
    fn a_log_with_keys_that_differ_is_known_whatever_the_case() {
        let log = "started\n[ERR] memberlist: Decrypt packet failed: No installed keys could decrypt the message\n\
                   [WARN] remote state is encrypted and encryption is not configured\nagent: Synced\n";
        let (count, last) = mismatches(log).unwrap();
        assert_eq!(count, 2);
        assert!(last.starts_with("[WARN]"));
        assert_eq!(mismatches("agent: Synced node info\n"), None);
    }
}
