//! The metadata client against a server that behaves, and one that misbehaves in each known way.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use cos_agent::node::sources::{Imds, ImdsError, InstanceFacts};

use crate::server::{Request, Response, Server};

const IDENTITY: &str = r#"{
  "accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "eu-central-1a",
  "billingProducts": null, "imageId": "ami-1", "instanceId": "i-0123456789abcdef0", "instanceType": "m6i.large",
  "privateIp": "192.0.2.10", "region": "eu-central-1", "version": "2017-09-30"
}"#;

/// A service as AWS describes it; the token must be the one it gave.
pub(crate) fn service(request: &Request) -> Response {
    if request.method == "PUT" && request.path == "/latest/api/token" {
        assert_eq!(
            request.header("X-aws-ec2-metadata-token-ttl-seconds"),
            Some("21600")
        );
        return Response::new(200, "token-1");
    }
    if request.header("X-aws-ec2-metadata-token") != Some("token-1") {
        return Response::new(401, "");
    }
    match request.path.as_str() {
        "/latest/dynamic/instance-identity/document" => Response::new(200, IDENTITY),
        "/latest/meta-data/services/domain" => Response::new(200, "amazonaws.com"),
        "/latest/meta-data/services/partition" => Response::new(200, "aws"),
        "/latest/user-data" => Response::new(200, "#cloud-config\n"),
        _ => Response::new(404, ""),
    }
}

fn client(server: &Server) -> Imds {
    Imds::new(&server.url, Duration::from_secs(10))
}

#[test]
fn facts_come_with_one_token() {
    let server = Server::start(service);
    let imds = client(&server);
    assert_eq!(imds.facts().unwrap(), InstanceFacts::sample());
    assert_eq!(imds.user_data().unwrap().unwrap(), b"#cloud-config\n");
    assert_eq!(server.count("PUT /latest/api/token"), 1);
}

#[test]
fn without_user_data_there_is_none() {
    let server = Server::start(|request| match request.path.as_str() {
        "/latest/user-data" => Response::new(404, "<html>Not Found"),
        _ => service(request),
    });
    assert_eq!(client(&server).user_data().unwrap(), None);
}

#[test]
fn where_the_domain_is_not_told_the_region_tells_it() {
    let server = Server::start(|request| match request.path.as_str() {
        "/latest/dynamic/instance-identity/document" => {
            Response::new(200, IDENTITY.replace("eu-central-1", "cn-north-1"))
        }
        path if path.starts_with("/latest/meta-data/services/") => Response::new(404, ""),
        _ => service(request),
    });
    let facts = client(&server).facts().unwrap();
    assert_eq!(
        (facts.partition.as_str(), facts.domain.as_str()),
        ("aws-cn", "amazonaws.com.cn")
    );
}

#[test]
fn a_forgotten_token_is_asked_for_again() {
    let mut refusals = 0;
    let server = Server::start(move |request| {
        if request.method == "GET" && refusals < 2 {
            refusals += 1;
            return Response::new(401, "");
        }
        service(request)
    });
    assert!(client(&server).facts().is_ok());
    assert_eq!(server.count("PUT /latest/api/token"), 3);
}

#[test]
fn disabled_is_said_at_once() {
    let server = Server::start(|_| Response::new(403, ""));
    let start = Instant::now();
    let error = client(&server).facts().unwrap_err();
    assert!(matches!(error, ImdsError::Disabled { .. }), "{error}");
    assert!(
        error.to_string().contains("is disabled for this instance"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("--http-endpoint enabled"));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn what_may_pass_is_asked_again() {
    for status in [429, 500, 503] {
        let mut refusals = 0;
        let server = Server::start(move |request| {
            refusals += 1;
            if refusals % 2 == 1 {
                Response::new(status, "")
            } else {
                service(request)
            }
        });
        assert_eq!(
            client(&server).facts().unwrap(),
            InstanceFacts::sample(),
            "after {status}"
        );
    }
}

#[test]
fn a_service_that_comes_late_is_waited_for() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        Server::on(TcpListener::bind(address).unwrap(), service)
    });
    let facts = Imds::new(&format!("http://{address}"), Duration::from_secs(10))
        .facts()
        .unwrap();
    assert_eq!(facts, InstanceFacts::sample());
    drop(late.join().unwrap());
}

#[test]
fn silence_ends_with_the_budget_and_the_reason() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let start = Instant::now();
    let error = Imds::new(&format!("http://{address}"), Duration::from_millis(300))
        .facts()
        .unwrap_err();
    assert!(
        error.to_string().ends_with("the connection is refused"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_token_that_does_not_come_back_points_at_the_hop_limit() {
    let server = Server::start(|request| {
        let mut response = service(request);
        response.after = Duration::from_secs(10);
        response
    });
    let error = Imds::new(&server.url, Duration::from_millis(500))
        .facts()
        .unwrap_err();
    assert!(error.hint().unwrap().contains("hop limit"), "{error}");
}

#[test]
fn a_redirect_is_not_followed() {
    let server = Server::start(|request| match request.path.as_str() {
        "/latest/user-data" => {
            let mut response = Response::new(302, "");
            response.headers = "Location: http://127.0.0.1:1/elsewhere\r\n".to_owned();
            response
        }
        _ => service(request),
    });
    let error = client(&server).user_data().unwrap_err();
    assert!(matches!(error, ImdsError::Status { status: 302, .. }), "{error}");
}

#[test]
fn an_identity_that_lacks_something_is_an_error() {
    let server = Server::start(|request| match request.path.as_str() {
        "/latest/dynamic/instance-identity/document" => Response::new(200, r#"{"region": "eu-central-1"}"#),
        _ => service(request),
    });
    assert!(matches!(client(&server).facts(), Err(ImdsError::Document(_))));
}
