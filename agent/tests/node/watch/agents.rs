//! The real clients of Nomad, Consul and the metadata service against servers that record what they are asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cos_agent::host::Files;
use cos_agent::node::drain::{ApiError, Consul, ConsulAgent, DrainView, Nomad, NomadAgent, may_leave};
use cos_agent::node::sources::Imds;
use cos_agent::node::watch::{NoticeSource, Source};

use crate::server::{Request, Response, Server};

const DATA: &str = "/opt/nomad/data";

/// What a server was asked: method, path, token, body.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

fn recording(mut answer: impl FnMut(&Request) -> Response + Send + 'static) -> (Server, Asked) {
    let asked = Asked::default();
    let record = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let token = request
            .header("X-Nomad-Token")
            .or(request.header("X-Consul-Token"))
            .unwrap_or("none");
        let line = format!("{} {}", request.method, request.path);
        record
            .lock()
            .unwrap()
            .push((line, token.to_owned(), request.body.clone()));
        answer(request)
    });
    (server, asked)
}

/// A machine whose Nomad keeps its identity.
fn machine() -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    let files = Files::new(root.path());
    files
        .write_atomic("/opt/nomad/data/client/client-id", b"n-1", 0o600)
        .unwrap();
    files
        .write_atomic("/opt/nomad/data/client/secret-id", b"own-secret\n", 0o600)
        .unwrap();
    files
        .write_atomic("/etc/token", b"operators-token\n", 0o600)
        .unwrap();
    (root, files)
}

fn node(eligibility: &str, strategy: &str, last: &str) -> String {
    format!(
        r#"{{"SchedulingEligibility": "{eligibility}", "DrainStrategy": {strategy}, "LastDrain": {last}, "Attributes": {{}}}}"#
    )
}

#[test]
fn nomad_is_asked_with_the_nodes_own_identity() {
    let (_root, files) = machine();
    let (server, asked) = recording(|request| match request.path.as_str() {
        "/v1/node/n-1" => Response::new(200, node("eligible", "null", "null")),
        path if path.starts_with("/v1/allocations") => Response::new(403, "Permission denied"),
        "/v1/node/n-1/eligibility" => Response::new(403, "Permission denied"),
        _ => Response::new(200, "{}"),
    });
    let nomad = NomadAgent::new(&server.url, &files, "i-1", None, DATA.as_ref());
    let seen = nomad.node().unwrap();
    assert!(seen.eligible);
    assert_eq!(seen.drain, DrainView::None);
    assert_eq!(nomad.allocations(false).unwrap(), None);
    assert!(matches!(nomad.take_out(), Err(ApiError::Denied(_))));
    nomad
        .drain(Duration::from_millis(90_500), true, "spot \"x\"")
        .unwrap();
    nomad.drain(Duration::from_millis(900), false, "late").unwrap();
    nomad.end_drain(true).unwrap();
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|(_, token, _)| token == "own-secret"));
    let changes: Vec<_> = asked
        .iter()
        .filter(|(line, ..)| line.starts_with("PUT"))
        .collect();
    let bodies: Vec<_> = changes
        .iter()
        .map(|(line, _, body)| format!("{line} {body}"))
        .collect();
    assert_eq!(
        bodies,
        [
            r#"PUT /v1/node/n-1/eligibility {"Eligibility":"ineligible"}"#,
            r#"PUT /v1/node/n-1/drain {"DrainSpec":{"Deadline":90500000000,"IgnoreSystemJobs":true},"Meta":{"message":"spot \"x\""}}"#,
            r#"PUT /v1/node/n-1/drain {"DrainSpec":{"Deadline":-1,"IgnoreSystemJobs":false},"Meta":{"message":"late"}}"#,
            r#"PUT /v1/node/n-1/drain {"DrainSpec":null,"MarkEligible":true}"#,
        ]
    );
}

#[test]
fn a_token_file_comes_first_and_its_absence_is_told() {
    let (_root, files) = machine();
    let allocations = r#"[{"JobType": "service", "ID": "a"}, {"JobType": "system"}, {"JobType": "batch"}]"#;
    let (server, asked) = recording(move |_| Response::new(200, allocations));
    let nomad = NomadAgent::new(
        &server.url,
        &files,
        "i-1",
        Some("/etc/token".as_ref()),
        DATA.as_ref(),
    );
    assert_eq!(nomad.allocations(false).unwrap(), Some(3));
    assert_eq!(nomad.allocations(true).unwrap(), Some(2));
    let (line, token, _) = asked.lock().unwrap()[0].clone();
    assert_eq!(token, "operators-token");
    assert!(
        line.contains("filter=NodeID%20%3D%3D%20%22n-1%22%20and%20ClientStatus%20%21%3D"),
        "{line}"
    );
    let nomad = NomadAgent::new(
        &server.url,
        &files,
        "i-1",
        Some("/etc/none".as_ref()),
        DATA.as_ref(),
    );
    let error = nomad.take_out().unwrap_err();
    assert_eq!(
        error,
        ApiError::Failed("there is no token in /etc/none".to_owned())
    );
}

#[test]
fn a_drain_is_told_from_one_that_ended_and_one_that_was_cancelled() {
    let (_root, files) = machine();
    for (answer, expected) in [
        (
            node("ineligible", r#"{"Deadline": 1}"#, r#"{"Status": "draining"}"#),
            DrainView::Running,
        ),
        (
            node("ineligible", "null", r#"{"Status": "complete"}"#),
            DrainView::Complete,
        ),
        (
            node("ineligible", "null", r#"{"Status": "canceled"}"#),
            DrainView::None,
        ),
        // Nomad before 1.1 keeps no word of the last drain: one that left the node ineligible was not cancelled.
        (node("ineligible", "null", "null"), DrainView::Complete),
        (node("eligible", "null", "null"), DrainView::None),
    ] {
        let server = Server::start(move |_| Response::new(200, answer.clone()));
        let nomad = NomadAgent::new(&server.url, &files, "i-1", None, DATA.as_ref());
        assert_eq!(nomad.node().unwrap().drain, expected);
    }
}

#[test]
fn each_kind_of_failure_is_told_apart() {
    let (_root, files) = machine();
    let ask = |url: &str| {
        NomadAgent::new(url, &files, "i-1", None, DATA.as_ref())
            .node()
            .unwrap_err()
    };
    assert!(matches!(ask("http://127.0.0.1:1"), ApiError::Absent(_)));
    for (status, body, denied) in [
        (403, "Permission denied", true),
        (500, "rpc error: Permission denied", true),
        (500, "No cluster leader", false),
        (404, "node not found", false),
        (200, "<html>", false),
    ] {
        let server = Server::start(move |_| Response::new(status, body));
        let error = ask(&server.url);
        assert_eq!(matches!(error, ApiError::Denied(_)), denied, "{error:?}");
        assert!(!error.to_string().contains("own-secret"), "{error}");
    }
}

#[test]
fn servers_are_read_alike_from_both_products() {
    let (_root, files) = machine();
    let answer = |request: &Request| match request.path.as_str() {
        "/v1/operator/raft/configuration" => Response::new(
            200,
            r#"{"Servers": [{"ID": "a", "Node": "i-1.global", "Leader": true, "Voter": true},
                {"ID": "b", "Node": "i-2.global", "Leader": false, "Voter": true},
                {"ID": "c", "Node": "i-3.global", "Leader": false, "Voter": true}]}"#,
        ),
        // One is down, so the answer is 429; the body counts.
        "/v1/operator/autopilot/health" => Response::new(
            429,
            r#"{"Healthy": false, "Servers": [{"ID": "a", "SerfStatus": "alive", "Healthy": true},
                {"ID": "b", "SerfStatus": "alive", "Healthy": true}, {"ID": "c", "SerfStatus": "failed", "Healthy": false}]}"#,
        ),
        _ => Response::new(200, r#"{"stats": {}, "config": {"LeaveOnTerm": true}}"#),
    };
    let server = Server::start(answer);
    let nomad = NomadAgent::new(&server.url, &files, "i-1", None, DATA.as_ref());
    let raft = nomad.raft().unwrap();
    assert_eq!(
        (raft.own.as_deref(), raft.leader, raft.peers.len()),
        (Some("a"), true, 3)
    );
    assert!(
        may_leave(&raft, 3)
            .unwrap_err()
            .contains("1 of 2 voters are healthy")
    );
    assert_eq!(nomad.leaves_on_signal().unwrap(), Some(true));
    assert_eq!(
        ConsulAgent::new(&server.url, &files, "i-1", None).raft().unwrap(),
        raft
    );
}

#[test]
fn consul_is_asked_to_leave_and_to_rest() {
    let (_root, files) = machine();
    let (server, asked) = recording(|_| Response::new(200, ""));
    let consul = ConsulAgent::new(&server.url, &files, "i-1", Some("/etc/token".as_ref()));
    consul.leave().unwrap();
    consul.maintenance(true, "spot & more").unwrap();
    let asked = asked.lock().unwrap();
    let lines: Vec<_> = asked
        .iter()
        .map(|(line, token, _)| format!("{line} {token}"))
        .collect();
    assert_eq!(
        lines,
        [
            "PUT /v1/agent/leave operators-token",
            "PUT /v1/agent/maintenance?enable=true&reason=spot%20%26%20more operators-token"
        ]
    );
}

#[test]
fn a_day_of_notices_costs_one_token_and_one_connection() {
    let server = Server::start(move |request| {
        if request.method == "PUT" {
            return Response::new(200, "token-1");
        }
        if request.header("X-aws-ec2-metadata-token") != Some("token-1") {
            return Response::new(401, "");
        }
        match request.path.as_str() {
            "/latest/meta-data/autoscaling/target-lifecycle-state" => Response::new(200, "InService"),
            _ => Response::new(404, "<html>Not Found</html>"),
        }
    });
    let mut imds = Imds::new(&server.url, Duration::from_secs(1));
    for _ in 0..500 {
        for source in Source::METADATA {
            let document = imds.read(source.path().unwrap()).unwrap();
            assert_eq!(document.is_some(), source == Source::Target);
        }
    }
    assert_eq!(server.count("PUT /latest/api/token"), 1);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_metadata_service_that_is_silent_is_left_after_two_seconds_each_time() {
    let server = Server::start(|_| {
        let mut response = Response::new(200, "token-1");
        response.after = Duration::from_secs(30);
        response
    });
    let mut imds = Imds::new(&server.url, Duration::from_secs(1));
    for _ in 0..2 {
        let start = std::time::Instant::now();
        assert!(imds.read(Source::Spot.path().unwrap()).is_err());
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
}
