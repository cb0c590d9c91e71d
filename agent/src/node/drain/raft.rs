//! Owns the rule by which a server may leave: quorum survives it. And how servers are read from the APIs.
//! Touches nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id in the raft configuration.
    pub id: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it is alive and not behind.
    pub healthy: bool,
}

/// The servers of a cluster as they see each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raft {
    /// This server's id; none if it is not in the configuration.
    pub own: Option<String>,
    /// Whether there is a leader.
    pub leader: bool,
    /// All servers of the configuration.
    pub peers: Vec<Peer>,
}

/// Votes that decide among `voters`.
pub(crate) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether this server may leave, of a cluster that should have `servers`; the error is why not.
///
/// A server that leaves takes its vote out of the configuration. So among the voters that remain, those that are
/// healthy must be a majority: of the voters that remain, or the cluster stops at once; and of the servers that the
/// cluster should have, or two servers that go together leave it to one. Without a leader nothing can be taken out
/// of the configuration. A server without a vote costs nobody anything.
pub fn may_leave(raft: &Raft, servers: u32) -> Result<(), String> {
    let own = raft.own.as_deref();
    if !raft
        .peers
        .iter()
        .any(|peer| Some(peer.id.as_str()) == own && peer.voter)
    {
        return Ok(());
    }
    if !raft.leader {
        return Err("the servers have no leader, who alone can let one go".to_owned());
    }
    let rest = raft
        .peers
        .iter()
        .filter(|peer| peer.voter && Some(peer.id.as_str()) != own);
    let (remaining, healthy) = rest.fold((0, 0), |(all, healthy), peer| {
        (all + 1, healthy + usize::from(peer.healthy))
    });
    if remaining == 0 {
        return Err("this is the only server with a vote".to_owned());
    }
    let servers = usize::try_from(servers).unwrap_or(usize::MAX);
    let needed = majority(remaining).max(majority(servers));
    if healthy < needed {
        return Err(format!(
            "without this server {healthy} of {remaining} voters are healthy, {needed} must be (the cluster should \
             have {servers} servers)"
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configuration {
    servers: Vec<ConfigurationServer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigurationServer {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    leader: bool,
    voter: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health {
    servers: Option<Vec<HealthServer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthServer {
    #[serde(rename = "ID")]
    id: String,
    healthy: bool,
    #[serde(default)]
    serf_status: String,
}

/// Puts together `/v1/operator/raft/configuration` and `/v1/operator/autopilot/health`, which Consul and Nomad write
/// alike. A server of which autopilot says nothing is not healthy. `name` is this server's own, to which Nomad adds
/// a dot and its region.
pub(super) fn read(configuration: Configuration, health: Health, name: &str) -> Raft {
    let healthy: BTreeMap<String, bool> = health
        .servers
        .unwrap_or_default()
        .into_iter()
        .map(|server| (server.id, server.healthy && server.serf_status == "alive"))
        .collect();
    let is_own = |server: &&ConfigurationServer| {
        let rest = server.node.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let own = configuration.servers.iter().find(is_own);
    Raft {
        own: own.map(|server| server.id.clone()),
        leader: configuration.servers.iter().any(|server| server.leader),
        peers: configuration
            .servers
            .iter()
            .map(|server| Peer {
                id: server.id.clone(),
                voter: server.voter,
                healthy: healthy.get(&server.id).copied().unwrap_or(false),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As much of raft as quorum needs: who has a vote, who is up.
    #[derive(Debug, Clone)]
    struct Cluster {
        voters: Vec<bool>,
    }

    impl Cluster {
        fn up(&self) -> usize {
            self.voters.iter().filter(|up| **up).count()
        }

        /// A leader exists, and can commit, if a majority of the configuration is up.
        fn has_quorum(&self) -> bool {
            self.up() >= majority(self.voters.len())
        }

        fn seen_by(&self, own: usize) -> Raft {
            Raft {
                own: Some(own.to_string()),
                leader: self.has_quorum(),
                peers: self
                    .voters
                    .iter()
                    .enumerate()
                    .map(|(id, up)| Peer {
                        id: id.to_string(),
                        voter: true,
                        healthy: *up,
                    })
                    .collect(),
            }
        }

        /// The leader appends the configuration without the server, which a majority of it must take; then the
        /// server is gone.
        fn leave(&self, own: usize) -> Option<Self> {
            if !self.has_quorum() {
                return None;
            }
            let mut after = self.clone();
            after.voters.remove(own);
            (!after.voters.is_empty() && after.has_quorum()).then_some(after)
        }
    }

    proptest! {
        /// Without a wanted size, the rule allows exactly what raft survives.
        #[test]
        fn the_rule_is_what_raft_survives(voters in prop::collection::vec(any::<bool>(), 1..10), own: prop::sample::Index) {
            let mut cluster = Cluster { voters };
            let own = own.index(cluster.voters.len());
            // Whoever asks is up.
            cluster.voters[own] = true;
            let allowed = may_leave(&cluster.seen_by(own), 1).is_ok();
            prop_assert_eq!(allowed, cluster.leave(own).is_some());
        }

        /// Whatever crashes, comes back, joins and leaves by the rule, in any order and with what another server saw
        /// a moment before: quorum is lost by crashes only, never by a server that leaves.
        #[test]
        fn no_server_that_leaves_costs_quorum(
            size in 1_usize..8,
            deeds in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..60),
        ) {
            let mut cluster = Cluster { voters: vec![true; size] };
            for (deed, which) in deeds {
                if cluster.voters.is_empty() { break; }
                let which = which.index(cluster.voters.len());
                let before = cluster.has_quorum();
                match deed {
                    0 => cluster.voters[which] = false,
                    1 => cluster.voters[which] = true,
                    2 if before => cluster.voters.push(true),
                    _ => {
                        let asks = cluster.voters[which];
                        if asks && may_leave(&cluster.seen_by(which), u32::try_from(size).unwrap()).is_ok() {
                            cluster.voters.remove(which);
                            prop_assert!(cluster.has_quorum(), "{:?} lost its quorum", cluster);
                            prop_assert!(cluster.up() >= majority(size));
                        }
                    }
                }
            }
        }

        /// Two that decide on the same view and leave one after the other: raft goes on.
        #[test]
        fn two_at_once_leave_a_cluster_that_goes_on(size in 2_usize..10) {
            let cluster = Cluster { voters: vec![true; size] };
            let first = may_leave(&cluster.seen_by(0), u32::try_from(size).unwrap()).is_ok();
            let second = may_leave(&cluster.seen_by(1), u32::try_from(size).unwrap()).is_ok();
            if first && second {
                let after = cluster.leave(0).and_then(|cluster| cluster.leave(0));
                prop_assert!(after.is_some_and(|cluster| cluster.has_quorum()));
            }
        }
    }

    fn peers(voters: &[bool]) -> Raft {
        Cluster {
            voters: voters.to_vec(),
        }
        .seen_by(0)
    }

    #[test]
    fn the_usual_clusters() {
        // Of three healthy ones, one may leave; of two, none, if there should be three.
        assert!(may_leave(&peers(&[true, true, true]), 3).is_ok());
        assert!(may_leave(&peers(&[true, true]), 3).is_err());
        assert!(may_leave(&peers(&[true, true]), 2).is_err());
        // One of three is down: the second must stay, until a replacement has its vote.
        let said = may_leave(&peers(&[true, true, false]), 3).unwrap_err();
        assert!(said.contains("1 of 2 voters are healthy, 2 must be"), "{said}");
        assert!(may_leave(&peers(&[true, true, false, true]), 3).is_ok());
        assert!(may_leave(&peers(&[true]), 1).unwrap_err().contains("only server"));
        assert!(
            may_leave(&peers(&[true, false, false]), 3)
                .unwrap_err()
                .contains("no leader")
        );
        // Without a vote, or not in the configuration at all.
        let mut reader = peers(&[true, true, true]);
        reader.peers[0].voter = false;
        assert!(may_leave(&reader, 3).is_ok());
        reader.own = None;
        assert!(may_leave(&reader, 3).is_ok());
    }

    #[test]
    fn both_products_answers_are_read() {
        let configuration = r#"{"Index": 9, "Servers": [
            {"Address": "10.0.0.1:8300", "ID": "a", "Leader": true, "Node": "i-1", "ProtocolVersion": "3", "Voter": true, "LastIndex": 1},
            {"Address": "10.0.0.2:8300", "ID": "b", "Leader": false, "Node": "i-2.global", "ProtocolVersion": "3", "Voter": true, "LastIndex": 1},
            {"Address": "10.0.0.3:8300", "ID": "c", "Leader": false, "Node": "i-22.global", "ProtocolVersion": "3", "Voter": false, "LastIndex": 1}]}"#;
        let health = r#"{"Healthy": false, "FailureTolerance": 0, "Servers": [
            {"ID": "a", "SerfStatus": "alive", "Healthy": true}, {"ID": "b", "SerfStatus": "failed", "Healthy": true}]}"#;
        let raft = read(
            serde_json::from_str(configuration).unwrap(),
            serde_json::from_str(health).unwrap(),
            "i-2",
        );
        assert_eq!(raft.own.as_deref(), Some("b"));
        let seen: Vec<_> = raft
            .peers
            .iter()
            .map(|peer| (peer.id.as_str(), peer.voter, peer.healthy))
            .collect();
        assert_eq!(seen, [("a", true, true), ("b", true, false), ("c", false, false)]);
        assert!(raft.leader);
    }
}
