//! The storms that are lived through: few nodes in every run, five thousand by `./dev bench storm`.

use std::time::Duration;

use crate::limits::{DECRYPTIONS, HIGHER, HIGHER_ALONE, PACKETS, STANDARD};
use crate::report::Report;
use crate::storm::Storm;

/// A node with all secrets that a client can have: ten, as many as one call takes.
const SECRETS: &str = "version: 1
role: nomad-client
datacenter: private-services
consul:
  retry_join: {tag_key: 'cos:consul', tag_value: storm}
  gossip_key: ssm:/cos/consul/gossip
  tls: {ca: ssm:/cos/ca, certificate: ssm:/cos/consul/certificate, key: ssm:/cos/consul/key}
  acl: {enabled: true, agent_token: ssm:/cos/consul/agent, default_token: ssm:/cos/consul/default}
nomad:
  tls: {ca: ssm:/cos/ca, certificate: ssm:/cos/nomad/certificate, key: ssm:/cos/nomad/key}
  acl: true
  consul_token: ssm:/cos/nomad/consul
  introduction_token: ssm:/cos/nomad/introduction
";

/// A node that includes a parameter besides: what that says must be known before its secrets are, so it asks twice.
const INCLUDE: &str = "version: 1
role: nomad-client
include: [/cos/base]
consul:
  gossip_key: ssm:/cos/consul/gossip
  acl: {enabled: true, agent_token: ssm:/cos/consul/agent}
nomad: {consul_token: ssm:/cos/nomad/consul, acl: true}
";

/// The hardest of what AWS leaves open: a limit that gathers hardly anything while it is not used.
const SHALLOW: Duration = Duration::from_millis(100);

const USUAL: Storm = Storm {
    name: "standard throughput, SecureStrings",
    nodes: 5_000,
    requests: STANDARD,
    decryptions: DECRYPTIONS,
    depth: SHALLOW,
    user_data: SECRETS,
    kind: "SecureString",
    one_lost_of: 0,
    seed: 1,
};

#[expect(clippy::print_stdout, reason = "the figures are what a storm is for")]
fn live_through(storm: &Storm) -> Report {
    let report = storm.run();
    println!("{report}");
    for node in report.nodes.iter().filter(|node| node.failed.is_some()).take(3) {
        println!("  {}", node.failed.as_deref().unwrap_or_default());
    }
    assert_eq!(report.given_up(), 0, "{}", report.name);
    assert!(report.ratio() <= 1.2, "{report}");
    // All that a node asks the metadata service for, in whatever time, fits into a tenth of one second's packets.
    assert!(report.most_packets() < u64::from(PACKETS) / 10, "{report}");
    report
}

#[test]
fn hundreds_at_once() {
    let report = live_through(&Storm { nodes: 400, ..USUAL });
    // One call for ten secrets, and the metadata service is asked seven times: a token, the identity, tags and
    // user-data; a token, the role and its keys.
    assert_eq!(report.counts.answered, 400);
    assert!(report.nodes.iter().all(|node| node.metadata == 7));
}

#[test]
fn the_same_storm_again_is_the_same_storm() {
    let storm = Storm {
        nodes: 60,
        user_data: INCLUDE,
        one_lost_of: 7,
        ..USUAL
    };
    let run = |storm: &Storm| {
        let report = storm.run();
        assert_eq!((report.given_up(), report.counts.answered), (0, 120));
        assert!(report.counts.lost >= 17, "{report}");
        let times = report.nodes.iter().map(|node| (node.configured, node.requests));
        times.collect::<Vec<_>>()
    };
    assert_eq!(run(&storm), run(&storm));
    assert_ne!(run(&storm), run(&Storm { seed: 2, ..storm }));
}

/// `./dev bench storm`
#[test]
#[ignore = "takes a minute"]
fn five_thousand_at_once() {
    let storms = [
        USUAL,
        Storm {
            name: "standard throughput, no decryption",
            kind: "String",
            ..USUAL
        },
        Storm {
            name: "standard throughput, include and SecureStrings",
            user_data: INCLUDE,
            ..USUAL
        },
        Storm {
            name: "standard throughput that gathers for a second",
            depth: Duration::from_secs(1),
            ..USUAL
        },
        Storm {
            name: "standard throughput, one answer of a hundred lost",
            one_lost_of: 100,
            ..USUAL
        },
        Storm {
            name: "higher throughput of 1,000, SecureStrings",
            requests: HIGHER_ALONE,
            ..USUAL
        },
        Storm {
            name: "higher throughput of 1,000, no decryption",
            requests: HIGHER_ALONE,
            kind: "String",
            ..USUAL
        },
        Storm {
            name: "higher throughput of 3,000, SecureStrings",
            requests: HIGHER,
            ..USUAL
        },
        Storm {
            name: "higher throughput of 3,000, no decryption",
            requests: HIGHER,
            kind: "String",
            ..USUAL
        },
    ];
    for storm in storms {
        live_through(&storm);
    }
}
