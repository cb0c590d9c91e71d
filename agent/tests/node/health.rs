//! Health against agents that answer as Consul, Nomad and Docker do, well and unwell.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use cos_agent::host::{Files, RealPrograms};
use cos_agent::node::config::Role;
use cos_agent::node::health::{Failure, Health, LocalApis, Probes, RegistryTokens, System, examine, prove};
use cos_agent::node::render::{ExpectedMount, Record, Version};

use crate::server::{Request, Response, Server};

const NAME: &str = "i-0123456789abcdef0";

pub(crate) fn record(role: Role) -> Record {
    Record {
        version: 1,
        roles: role.into(),
        name: NAME.to_owned(),
        datacenter: "leader".to_owned(),
        consul_servers: (role == Role::ConsulServer).then_some(3),
        nomad_servers: (role == Role::NomadServer).then_some(3),
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

/// Probes of a machine without files.
fn probes<'a>(apis: &'a LocalApis, files: &'a Files) -> Probes<'a> {
    Probes {
        apis,
        files,
        programs: &RealPrograms,
        system: System::Configured,
        registries: None,
    }
}

fn member(name: &str, role: &str, status: u8) -> serde_json::Value {
    serde_json::json!({"Name": name, "Tags": {"role": role}, "Status": status})
}

pub(crate) fn consul(request: &Request) -> Response {
    Response::new(
        200,
        match request.path.as_str() {
            "/v1/agent/self" => {
                format!(
                    r#"{{"Config": {{"NodeName": "{NAME}", "Datacenter": "eu-central-1", "Server": true}}}}"#
                )
            }
            "/v1/status/leader" => r#""192.0.2.1:8300""#.to_owned(),
            "/v1/status/peers" => "[]".to_owned(),
            "/v1/agent/members" => serde_json::json!([
                member(NAME, "consul", 1),
                member("i-2", "consul", 1),
                member("i-3", "consul", 1),
            ])
            .to_string(),
            other => panic!("{other}"),
        },
    )
}

pub(crate) fn nomad(request: &Request) -> Response {
    Response::new(200, match request.path.as_str() {
        "/v1/agent/health" => {
            r#"{"client": {"ok": true, "message": "ok"}, "server": {"ok": true, "message": "ok"}}"#.to_owned()
        }
        "/v1/status/leader" => r#""192.0.2.1:4647""#.to_owned(),
        "/v1/agent/self" => r#"{"stats": {"client": {"node_id": "n-1"}}, "config": {}, "member": {}}"#.to_owned(),
        "/v1/node/n-1" => serde_json::json!({
            "Status": "ready",
            "Drivers": {"docker": {"Detected": true, "Healthy": true, "HealthDescription": "Healthy"}},
        }).to_string(),
        "/v1/agent/members" => serde_json::json!({"Members": [
            {"Name": "a", "Status": "alive"}, {"Name": "b", "Status": "alive"}, {"Name": "c", "Status": "alive"},
        ]}).to_string(),
        other => panic!("{other}"),
    })
}

/// Docker's socket, as far as `_ping` goes.
pub(crate) fn docker(path: &Path, status: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 256];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /_ping HTTP/1.0\r\n"));
            write!(stream, "HTTP/1.0 {status}\r\nContent-Length: 2\r\n\r\nOK").unwrap();
        }
    });
}

fn reason(health: &Health, check: &str) -> (bool, String) {
    let found = health
        .checks
        .iter()
        .find(|outcome| outcome.check.to_string() == check)
        .unwrap();
    (found.healthy, found.reason.clone())
}

#[test]
fn each_role_is_healthy_when_all_answer_well() {
    let (consul, nomad) = (Server::start(consul), Server::start(nomad));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    docker(&socket, "200 OK");
    for (role, checks) in [
        (Role::ConsulServer, 3),
        (Role::NomadServer, 5),
        (Role::NomadClient, 6),
    ] {
        let apis = LocalApis::new(&consul.url, &nomad.url, socket.clone());
        let health = prove(
            &record(role),
            &probes(&apis, &Files::new("/nonexistent")),
            Duration::from_secs(5),
        );
        assert!(health.healthy, "{health:?}");
        assert_eq!(health.checks.len(), checks);
    }
}

#[test]
fn each_failure_is_named_with_its_last_reason() {
    let consul = Server::start(|request| match request.path.as_str() {
        "/v1/status/leader" => Response::new(200, r#""""#),
        "/v1/agent/members" => {
            let members = [member(NAME, "node", 1), member("i-2", "consul", 4)];
            Response::new(200, serde_json::json!(members).to_string())
        }
        _ => consul(request),
    });
    let nomad = Server::start(|request| match request.path.as_str() {
        "/v1/agent/health" => Response::new(500, r#"{"client":{"ok":false,"message":"no known servers"}}"#),
        "/v1/node/n-1" => Response::new(
            200,
            r#"{"Status": "ready", "Drivers": {"docker":
            {"Detected": false, "Healthy": false, "HealthDescription": "Failed to connect to docker daemon"}}}"#,
        ),
        _ => nomad(request),
    });
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let start = Instant::now();
    let apis = LocalApis::new(&consul.url, &nomad.url, socket.clone());
    let health = prove(
        &record(Role::NomadClient),
        &probes(&apis, &Files::new("/nonexistent")),
        Duration::from_millis(300),
    );
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "the checks wait side by side"
    );
    assert!(!health.healthy);
    assert!(reason(&health, "consul-agent").0);
    assert_eq!(
        reason(&health, "consul-leader"),
        (false, "the servers have no leader".to_owned())
    );
    assert_eq!(
        reason(&health, "consul-members"),
        (false, "0 servers are alive, 1 should be".to_owned())
    );
    assert!(
        reason(&health, "nomad-agent").1.contains("no known servers"),
        "{health:?}"
    );
    assert!(
        reason(&health, "nomad-node")
            .1
            .contains("Failed to connect to docker daemon"),
        "{health:?}"
    );
    assert!(
        reason(&health, "docker")
            .1
            .contains("docker.sock does not answer"),
        "{health:?}"
    );
}

#[test]
fn what_comes_late_is_waited_for() {
    let mut asked = 0;
    let consul = Server::start(move |request| {
        asked += 1;
        if asked < 6 {
            Response::new(500, "No cluster leader")
        } else {
            consul(request)
        }
    });
    let apis = LocalApis::new(&consul.url, "http://127.0.0.1:1", "/nonexistent".into());
    let health = prove(
        &record(Role::ConsulServer),
        &probes(&apis, &Files::new("/nonexistent")),
        Duration::from_secs(10),
    );
    assert!(health.healthy, "{health:?}");
}

/// A role that may not, and one that may.
struct Registry(Result<String, Failure>);

impl RegistryTokens for Registry {
    fn obtainable(&self, hosts: &[String]) -> Result<String, Failure> {
        assert_eq!(hosts, ["123456789012.dkr.ecr.eu-central-1.amazonaws.com"]);
        self.0.clone()
    }
}

#[test]
fn a_node_is_checked_for_what_it_has() {
    let (consul, nomad) = (Server::start(consul), Server::start(nomad));
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path());
    let apis = LocalApis::new(&consul.url, &nomad.url, folder.path().join("docker.sock"));
    let names = |outcomes: &[cos_agent::node::health::Outcome]| -> Vec<String> {
        outcomes.iter().map(|outcome| outcome.check.to_string()).collect()
    };
    // As an apply before this version recorded it.
    let old = record(Role::NomadClient);
    assert_eq!(
        names(&examine(&old, &probes(&apis, &files))),
        [
            "consul-agent",
            "consul-leader",
            "consul-members",
            "nomad-agent",
            "docker",
            "nomad-node"
        ]
    );
    let new = Record {
        version: 2,
        mounts: vec![ExpectedMount {
            point: "/srv".to_owned(),
            source: None,
        }],
        registries: vec!["123456789012.dkr.ecr.eu-central-1.amazonaws.com".to_owned()],
        ..old
    };
    let denied = Registry(Err(Failure::passing("denied").hint("ecr:GetAuthorizationToken")));
    let with_registries = Probes {
        registries: Some(&denied),
        ..probes(&apis, &files)
    };
    let outcomes = examine(&new, &with_registries);
    assert_eq!(names(&outcomes)[6..], ["disks", "cni", "ecr"]);
    let [disks, cni, ecr] = &outcomes[6..] else {
        panic!()
    };
    assert_eq!(disks.reason, "nothing is mounted at /srv");
    assert!(cni.hard && cni.reason.contains("/opt/cni/bin/bridge"));
    assert_eq!(
        (ecr.reason.as_str(), ecr.hint.as_deref()),
        ("denied", Some("ecr:GetAuthorizationToken"))
    );
}

#[test]
fn what_cannot_pass_any_more_is_not_waited_for() {
    let (consul, nomad) = (Server::start(consul), Server::start(nomad));
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path());
    let socket = folder.path().join("docker.sock");
    docker(&socket, "200 OK");
    let apis = LocalApis::new(&consul.url, &nomad.url, socket);
    let record = Record {
        version: 2,
        ..record(Role::NomadClient)
    };
    let start = Instant::now();
    let health = prove(&record, &probes(&apis, &files), Duration::from_mins(1));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!health.healthy);
    assert!(!reason(&health, "cni").0 && reason(&health, "docker").0);
}
#[test]
fn a_consul_that_asks_for_a_token_answers() {
    use cos_agent::node::health::{ConsulApi, LocalConsul};
    for (status, answers) in [(200, true), (403, true), (500, false)] {
        let server = Server::start(move |_| Response::new(status, "Permission denied"));
        let told = LocalConsul::new(&server.url).answers();
        assert_eq!(told.is_ok(), answers, "{told:?}");
        assert_eq!(server.asked().len(), 1);
    }
}
