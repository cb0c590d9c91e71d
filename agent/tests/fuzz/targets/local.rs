//! Answers of Nomad, Consul and Docker on the same machine, as `health`, `drain` and `watch` read them.

use std::path::Path;

use cos_agent::host::{Files, RealPrograms};
use cos_agent::node::config::Role;
use cos_agent::node::drain::{Consul, ConsulAgent, Nomad, NomadAgent};
use cos_agent::node::health::{ConsulApi, LocalApis, LocalConsul, Probes, System, examine};
use cos_agent::node::render::{Record, Version};

use crate::server::{Answers, Said};
use crate::target::{JSON, TEXT, Target};

const NAME: &str = "i-0123456789abcdef0";

const CONSUL: [(&str, &str); 3] = [
    (
        "/v1/agent/self",
        r#"{"Config":{"NodeName":"i-0123456789abcdef0","Datacenter":"eu-central-1","Server":true}}"#,
    ),
    ("/v1/status/leader", r#""192.0.2.1:8300""#),
    (
        "/v1/agent/members",
        r#"[{"Name":"i-0123456789abcdef0","Tags":{"role":"consul"},"Status":1},{"Name":"i-2","Tags":{"role":"consul"},
        "Status":1},{"Name":"i-3","Tags":{"role":"node"},"Status":4}]"#,
    ),
];

const NOMAD: [(&str, &str); 4] = [
    (
        "/v1/agent/health",
        r#"{"client":{"ok":true,"message":"ok"},"server":{"ok":true,"message":"ok"}}"#,
    ),
    (
        "/v1/agent/self",
        r#"{"stats":{"client":{"node_id":"n-1"}},"config":{"LeaveOnTerm":true},"member":{}}"#,
    ),
    (
        "/v1/node/n-1",
        r#"{"Status":"ready","Drivers":{"docker":{"Detected":true,"Healthy":true,"HealthDescription":"Healthy"}}}"#,
    ),
    (
        "/v1/agent/members",
        r#"{"Members":[{"Name":"a","Status":"alive"},{"Name":"b","Status":"alive","Tags":{}}]}"#,
    ),
];

const RAFT: &str = r#"{"Servers":[{"ID":"a","Node":"i-1.global","Leader":true,"Voter":true},
    {"ID":"b","Node":"i-2.global","Leader":false,"Voter":true},{"ID":"c","Node":"i-3","Leader":false,"Voter":false}]}"#;

const AUTOPILOT: &str = r#"{"Healthy":false,"Servers":[{"ID":"a","SerfStatus":"alive","Healthy":true},
    {"ID":"b","SerfStatus":"failed","Healthy":false}]}"#;

const NODE: &str = r#"{"SchedulingEligibility":"ineligible","DrainStrategy":{"Deadline":1},
    "LastDrain":{"Status":"draining"},"Attributes":{}}"#;

const ALLOCATIONS: &str = r#"[{"JobType":"service","ID":"a"},{"JobType":"system"},{"ID":"b"}]"#;

fn record(role: Role) -> Record {
    Record {
        version: 1,
        roles: role.into(),
        name: NAME.to_owned(),
        datacenter: "leader".to_owned(),
        consul_servers: Some(2),
        nomad_servers: Some(2),
        consul: Version::new(1, 21, 5),
        nomad: Version::new(1, 11, 0),
        consul_acl: false,
        nomad_acl: false,
        nomad_https: false,
        mounts: Vec::new(),
        dns: None,
        registries: Vec::new(),
        watch: None,
    }
}

fn answers(all: &[(&str, &str)]) -> Answers {
    let answers = Answers::default();
    for (path, body) in all {
        answers.set(path, Said::Body(200, body.as_bytes().to_vec()));
    }
    answers
}

/// Whether a check of the node passes.
fn passes(check: &str, record: &Record, apis: &LocalApis) -> bool {
    let probes = Probes {
        apis,
        files: &Files::new("/nonexistent"),
        programs: &RealPrograms,
        system: System::Configured,
        registries: None,
    };
    let outcomes = examine(record, &probes);
    outcomes
        .iter()
        .any(|outcome| outcome.check.to_string() == check && outcome.healthy)
}

/// One answer of one product, as `health` judges it by a check; all others are good.
fn health(product: &str, path: &'static str, role: Role, check: &'static str) -> Target {
    let (consul, nomad) = (answers(&CONSUL), answers(&NOMAD));
    let of_consul = product == "consul";
    let sample = if of_consul { &CONSUL[..] } else { &NOMAD[..] };
    let sample = sample.iter().find(|(named, _)| *named == path).unwrap().1;
    let apis = LocalApis::new(&consul.serve(), &nomad.serve(), "/nonexistent".into());
    let record = record(role);
    Target::new(format!("health {product} {path}"), [sample], JSON, move |input| {
        let answers = if of_consul { &consul } else { &nomad };
        answers.set(path, Said::Body(200, input.to_vec()));
        passes(check, &record, &apis)
    })
    .weighing(1)
}

/// One answer, as `drain` and `watch` read it.
fn drain(
    name: &str,
    path: &'static str,
    sample: &str,
    ask: impl Fn(&NomadAgent, &ConsulAgent) -> bool + Send + 'static,
) -> Target {
    let answers = answers(&[
        ("/v1/operator/raft/configuration", RAFT),
        ("/v1/operator/autopilot/health", AUTOPILOT),
        ("/v1/agent/self", NOMAD[1].1),
    ]);
    let url = answers.serve();
    // For as long as the test runs.
    let files: &'static Files = Box::leak(Box::new(Files::new("/nonexistent")));
    let nomad = NomadAgent::new(&url, files, "i-1", None, Path::new("/opt/nomad/data"));
    let consul = ConsulAgent::new(&url, files, "i-1", None);
    Target::new(format!("drain {name}"), [sample], JSON, move |input| {
        answers.set(path, Said::Body(200, input.to_vec()));
        ask(&nomad, &consul)
    })
    .weighing(2)
}

/// Everything that a server says, from its status line on.
fn raw() -> Target {
    let answers = Answers::default();
    let consul = LocalConsul::new(&answers.serve());
    let samples = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{}",
    ];
    Target::new("http", samples, TEXT, move |input| {
        answers.set("/", Said::Raw(input.to_vec()));
        consul.answers().is_ok()
    })
    .weighing(2)
}

fn docker() -> Target {
    let answers = Answers::default();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    answers.serve_docker(&socket);
    let (consul, nomad) = (Answers::default().serve(), Answers::default().serve());
    let apis = LocalApis::new(&consul, &nomad, socket);
    let record = record(Role::NomadClient);
    let sample = "HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
    Target::new("health docker", [sample], TEXT, move |input| {
        let _kept = &folder;
        answers.set("/_ping", Said::Raw(input.to_vec()));
        passes("docker", &record, &apis)
    })
    .weighing(1)
}

pub(crate) fn targets() -> Vec<Target> {
    vec![
        health("consul", "/v1/agent/self", Role::ConsulServer, "consul-agent"),
        health("consul", "/v1/status/leader", Role::ConsulServer, "consul-leader"),
        health(
            "consul",
            "/v1/agent/members",
            Role::ConsulServer,
            "consul-members",
        ),
        health("nomad", "/v1/agent/health", Role::NomadServer, "nomad-agent"),
        health("nomad", "/v1/agent/members", Role::NomadServer, "nomad-servers"),
        health("nomad", "/v1/agent/self", Role::NomadClient, "nomad-node"),
        health("nomad", "/v1/node/n-1", Role::NomadClient, "nomad-node"),
        drain("nomad node", "/v1/node/n-1", NODE, |nomad, _| {
            nomad.node().is_ok()
        }),
        drain("nomad allocations", "/v1/allocations", ALLOCATIONS, |nomad, _| {
            nomad.allocations(true).is_ok_and(|count| count.is_some())
        }),
        drain("nomad self", "/v1/agent/self", NOMAD[1].1, |nomad, _| {
            nomad.leaves_on_signal().is_ok_and(|leaves| leaves.is_some())
        }),
        drain(
            "nomad raft",
            "/v1/operator/raft/configuration",
            RAFT,
            |nomad, _| nomad.raft().is_ok_and(|raft| raft.own.is_some()),
        ),
        drain(
            "consul autopilot",
            "/v1/operator/autopilot/health",
            AUTOPILOT,
            |_, consul| {
                consul
                    .raft()
                    .is_ok_and(|raft| raft.peers.iter().any(|peer| peer.healthy))
            },
        ),
        raw(),
        docker(),
    ]
}
