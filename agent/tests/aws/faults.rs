//! Every way in which AWS, the metadata service or the way to them can misbehave.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cos_agent::aws::{Client, CredentialsError, Environment, Kind, Settings};
use cos_agent::error::chain;

use crate::fake::{self, PLANTED, client, imds, json_error, parameters, role_client, xml_error};
use crate::server::{Response, Server};

const DEADLINE: Duration = Duration::from_secs(20);

/// Makes the answer of a service that misbehaves.
type Fault = fn() -> Response;

fn ask(client: &Client) -> Result<(), cos_agent::aws::AwsError> {
    client.get_parameters(["/cos/key"]).map(|_| ())
}

/// A server that answers `fault` the first `times`.
fn faulty(times: u32, fault: impl Fn() -> Response + Send + 'static) -> Server {
    let mut left = times;
    Server::start(move |request| {
        if left > 0 {
            left -= 1;
            return fault();
        }
        fake::aws(request)
    })
}

#[test]
fn what_may_pass_is_asked_again() {
    let faults: [(&str, Fault); 7] = [
        ("throttled", || json_error("ThrottlingException", "Rate exceeded")),
        ("429", || Response::new(429, "")),
        ("500", || {
            Response::new(500, r#"{"__type":"InternalServerError"}"#)
        }),
        ("503", || {
            Response::new(503, "<html><body>Service Unavailable</body></html>")
        }),
        ("half an answer", || parameters().cut(25)),
        ("nothing", || parameters().cut(0)),
        ("another page", || {
            Response::new(200, "<html>Please log in</html>")
        }),
    ];
    for (name, fault) in faults {
        let server = faulty(2, fault);
        let met = ask(&client(&server, DEADLINE));
        assert!(met.is_ok(), "{name}: {met:?}");
        assert_eq!(server.asked().len(), 3, "{name}");
    }
    let server = faulty(2, || xml_error("Throttling", "Rate exceeded"));
    let met = client(&server, DEADLINE).describe_lifecycle_hooks("servers");
    assert_eq!(met.unwrap().len(), 2);
    let server = faulty(1, || Response::new(200, "<html><p>not XML</html>"));
    let met = client(&server, DEADLINE).describe_lifecycle_hooks("servers");
    assert_eq!(met.unwrap().len(), 2);
}

#[test]
fn what_does_not_pass_ends_at_the_deadline_with_the_reason() {
    let deadline = Duration::from_millis(1500);
    let faults: [(Fault, &str, &str); 4] = [
        (
            || json_error("ThrottlingException", "Rate exceeded"),
            "takes no more requests now: ThrottlingException Rate exceeded [request 3a9e4e7f-0000]",
            "higher-throughput",
        ),
        (
            || Response::new(500, ""),
            "gives no usable answer: it answers 500",
            "security group",
        ),
        (
            || Response::new(200, format!("<html>{PLANTED}</html>")),
            "its answer is not readable (Syntax at line 1 column 1)",
            "security group",
        ),
        (
            || parameters().after(Duration::from_secs(30)),
            "no answer in time",
            "security group",
        ),
    ];
    for (fault, reason, hint) in faults {
        let server = faulty(u32::MAX, fault);
        let start = Instant::now();
        let error = ask(&client(&server, deadline)).unwrap_err();
        assert!(
            start.elapsed() < deadline + Duration::from_secs(1),
            "{reason}: {:?}",
            start.elapsed()
        );
        let text = chain(&error);
        assert!(
            text.contains("ssm:GetParameters failed after") && text.contains(reason),
            "{text}"
        );
        assert!(
            error.tries > 1 && error.hint().unwrap().contains(hint),
            "{error:?} {:?}",
            error.hint()
        );
        assert!(!text.contains(PLANTED), "{text}");
    }
}

#[test]
fn one_request_that_hangs_leaves_time_for_another() {
    let server = faulty(1, || parameters().after(Duration::from_mins(1)));
    let start = Instant::now();
    ask(&client(&server, Duration::from_secs(4))).unwrap();
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_service_that_comes_late_is_waited_for_and_one_that_never_comes_is_named() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let settings = |deadline| {
        let environment: Environment = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", PLANTED),
            ("AWS_ENDPOINT_URL_SSM", &format!("http://{address}")),
        ]
        .into_iter()
        .collect();
        Settings {
            deadline,
            ..Settings::new(fake::REGION, environment)
        }
    };
    let error = ask(&Client::new(settings(Duration::from_millis(300)))).unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains(&format!(
            "http://{address} gives no usable answer: the connection is refused"
        )),
        "{text}"
    );
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        Server::on(TcpListener::bind(address).unwrap(), fake::aws)
    });
    ask(&Client::new(settings(DEADLINE))).unwrap();
    drop(late.join().unwrap());
}

#[test]
fn a_denial_is_final_and_names_the_missing_permission() {
    let message = "User: arn:aws:sts::123456789012:assumed-role/node/i-1 is not authorized to perform: kms:Decrypt \
                   on resource: arn:aws:kms:eu-central-1:123456789012:key/1 because no identity-based policy allows \
                   the kms:Decrypt action";
    let server = faulty(u32::MAX, move || json_error("AccessDeniedException", message));
    let error = ask(&client(&server, DEADLINE)).unwrap_err();
    assert_eq!(server.asked().len(), 1);
    assert!(
        matches!(&error.kind, Kind::Denied { missing, resource: Some(_), .. } if missing == "kms:Decrypt"),
        "{error:?}"
    );
    assert!(
        error.hint().unwrap().contains(
            r#""Action": "kms:Decrypt", "Resource": "arn:aws:kms:eu-central-1:123456789012:key/1""#
        )
    );
    let server = faulty(u32::MAX, || xml_error("AccessDenied", ""));
    let error = client(&server, DEADLINE)
        .describe_auto_scaling_group("servers")
        .unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Denied { missing, .. } if missing == "autoscaling:DescribeAutoScalingGroups"),
        "{error:?}"
    );
}

#[test]
fn a_wrong_clock_is_told_with_both_clocks() {
    let there = SystemTime::now() + Duration::from_hours(3);
    let date = httpdate::fmt_http_date(there);
    let server = faulty(u32::MAX, move || {
        json_error("InvalidSignatureException", "Signature not yet current").with("Date", date.clone())
    });
    let error = ask(&client(&server, DEADLINE)).unwrap_err();
    assert_eq!(server.asked().len(), 1);
    let text = chain(&error);
    let clock = |time| humantime::format_rfc3339_seconds(time).to_string();
    assert!(text.contains(&clock(there)), "{text}");
    assert!(text.contains(&clock(SystemTime::now())[..16]), "{text}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("2h 59m") || hint.contains("3h"), "{hint}");
}

#[test]
fn expired_credentials_are_replaced_once() {
    let service = |request: &crate::server::Request| match request.key() {
        "ASIA1" => json_error(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        _ => parameters(),
    };
    let (role, server) = (imds(), Server::start(service));
    let client = role_client(&role, &server, DEADLINE);
    ask(&client).unwrap();
    let keys: Vec<String> = server
        .asked()
        .iter()
        .map(|request| request.key().to_owned())
        .collect();
    assert_eq!(keys, ["ASIA1", "ASIA2"]);
    assert_eq!(
        server.asked()[1].header("x-amz-security-token"),
        format!("{PLANTED}-2")
    );
    ask(&client).unwrap();
    assert_eq!(
        role.count("/latest/meta-data/iam/security-credentials/node"),
        2,
        "they are kept"
    );

    let refused = || json_error("ExpiredTokenException", "expired");
    let (role, server) = (imds(), faulty(u32::MAX, refused));
    let error = ask(&role_client(&role, &server, DEADLINE)).unwrap_err();
    assert_eq!(server.asked().len(), 2, "new ones once, not for ever");
    assert!(
        chain(&error).contains("does not take the credentials of the role node"),
        "{}",
        chain(&error)
    );

    let server = faulty(u32::MAX, refused);
    let error = ask(&client_of_environment(&server)).unwrap_err();
    assert_eq!(server.asked().len(), 1, "the environment has no newer ones");
    assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
}

fn client_of_environment(server: &Server) -> Client {
    client(server, DEADLINE)
}

#[test]
fn a_refused_request_is_not_repeated() {
    let refusals = [
        (400, r#"{"__type":"ValidationException","message":"bad name"}"#),
        (404, ""),
        (301, ""),
    ];
    for (status, body) in refusals {
        let server = faulty(u32::MAX, move || {
            Response::new(status, body).with("Location", "http://127.0.0.1:1/elsewhere")
        });
        let error = ask(&client(&server, DEADLINE)).unwrap_err();
        assert!(
            matches!(error.kind, Kind::Rejected { status: told, .. } if told == status),
            "{error:?}"
        );
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn an_instance_without_a_role_is_told_and_a_late_role_is_waited_for() {
    let server = Server::start(fake::aws);
    let bare = Server::start(|request| match request.path.as_str() {
        "/latest/api/token" => Response::new(200, "token"),
        _ => Response::new(404, ""),
    });
    let error = ask(&role_client(&bare, &server, Duration::from_millis(500))).unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Credentials(CredentialsError::NoRole { .. })),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("instance profile"));
    assert!(server.asked().is_empty());

    let mut absent = 3;
    let late = Server::start(move |request| {
        if request.method == "GET" && absent > 0 {
            absent -= 1;
            return Response::new(404, "");
        }
        fake::metadata(request, &mut 0)
    });
    ask(&role_client(&late, &server, DEADLINE)).unwrap();
}

#[test]
fn the_metadata_services_own_trouble_comes_through() {
    let server = Server::start(fake::aws);
    let disabled = Server::start(|_| Response::new(403, ""));
    let error = ask(&role_client(&disabled, &server, DEADLINE)).unwrap_err();
    assert!(
        chain(&error).contains("is disabled for this instance"),
        "{}",
        chain(&error)
    );
    assert!(error.hint().unwrap().contains("--http-endpoint enabled"));

    let refused = Server::start(|request| match request.path.as_str() {
        "/latest/meta-data/iam/security-credentials/node" => Response::new(
            200,
            r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role node.", "LastUpdated": "x"}"#,
        ),
        _ => fake::metadata(request, &mut 0),
    });
    let error = ask(&role_client(&refused, &server, DEADLINE)).unwrap_err();
    assert!(
        chain(&error).contains("no credentials for the role node: AssumeRoleUnauthorizedAccess"),
        "{}",
        chain(&error)
    );
    let garbage = Server::start(|request| match request.path.as_str() {
        "/latest/meta-data/iam/security-credentials/node" => Response::new(200, "<html>"),
        _ => fake::metadata(request, &mut 0),
    });
    let error = ask(&role_client(&garbage, &server, DEADLINE)).unwrap_err();
    assert!(
        chain(&error).contains("/iam/security-credentials/node is not readable"),
        "{}",
        chain(&error)
    );
    assert!(server.asked().is_empty());
}

#[test]
fn old_credentials_do_while_the_metadata_service_is_away() {
    // With less than four minutes left, new ones are asked for at each call.
    let mut given = 0;
    let role = Server::start(move |request| {
        let answer = fake::metadata(request, &mut given);
        if given > 1 {
            return Response::new(403, "");
        }
        let soon = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_mins(2));
        match answer.body.split_once("\"Expiration\": \"") {
            Some((before, _)) => Response::new(200, format!("{before}\"Expiration\": \"{soon}\"}}")),
            None => answer,
        }
    });
    let server = Server::start(fake::aws);
    let client = role_client(&role, &server, DEADLINE);
    for _ in 0..3 {
        ask(&client).unwrap();
        assert_eq!(server.asked().last().unwrap().key(), "ASIA1");
    }
}

#[test]
fn threads_share_one_client_and_its_credentials() {
    let (role, server) = (imds(), Server::start(fake::aws));
    let client = role_client(&role, &server, DEADLINE);
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                ask(&client.within(Duration::from_secs(15))).unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 20);
    assert_eq!(server.asked().len(), 20);
    assert_eq!(role.count("/latest/meta-data/iam/security-credentials/node"), 1);
}

#[test]
fn pages_that_lead_to_themselves_are_no_answer() {
    let mut pages = 0;
    let server = Server::start(move |_| {
        pages += 1;
        let next = if pages < 5 {
            "<nextToken>again</nextToken>"
        } else {
            ""
        };
        Response::new(
            200,
            format!("<DescribeTagsResponse><tagSet/>{next}</DescribeTagsResponse>"),
        )
    });
    let error = client(&server, DEADLINE).describe_tags("i-1").unwrap_err();
    assert!(
        chain(&error).contains("a page that leads to itself"),
        "{}",
        chain(&error)
    );
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn nodes_that_were_refused_together_do_not_come_back_together() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&times);
    let start = Instant::now();
    let server = Server::start(move |request| {
        record.lock().unwrap().push(start.elapsed());
        if start.elapsed() < Duration::from_secs(3) {
            return json_error("ThrottlingException", "Rate exceeded");
        }
        fake::aws(request)
    });
    let client = client(&server, Duration::from_mins(1));
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| ask(&client).unwrap());
        }
    });
    let times = times.lock().unwrap();
    // After two seconds the pauses are long enough to have spread: no tenth of a second holds two thirds of all.
    for tenth in 20..30_u128 {
        let inside = times.iter().filter(|time| time.as_millis() / 100 == tenth);
        assert!(inside.count() <= 20, "in tenth {tenth}: {times:?}");
    }
}

#[test]
fn no_output_holds_a_secret() {
    let (role, server) = (imds(), Server::start(fake::aws));
    let client = role_client(&role, &server, DEADLINE);
    let found = client.get_parameters(["/cos/key"]).unwrap();
    let token = client.get_authorization_token().unwrap();
    let shown = format!("{client:?} {found:?} {token:?}");
    assert!(!shown.contains(PLANTED), "{shown}");
    let environment: Environment = [
        ("AWS_SECRET_ACCESS_KEY", PLANTED),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("https_proxy", "http://user:planted-secret@proxy:3128"),
    ]
    .into_iter()
    .collect();
    let client = Client::new(Settings::new(fake::REGION, environment));
    let error = ask(&client.within(Duration::from_millis(200))).unwrap_err();
    let shown = format!("{client:?} {error:?} {}", chain(&error));
    assert!(!shown.contains(PLANTED), "{shown}");
}
