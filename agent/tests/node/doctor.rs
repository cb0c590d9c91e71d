//! The doctor against nodes that are well, unwell in one way each, and broken in all ways at once.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cos_agent::host::{Files, Invocation, Output, ProgramError, Programs, RealPrograms};
use cos_agent::node::doctor::{Action, Attempt, CloudProbe, Diagnosis, Finding, Patient, Severity, examine};
use cos_agent::node::render::{RECORD, Record, Version};

use crate::health::{consul, docker, nomad, record};
use crate::server::{Request, Response, Server};

/// A machine whose services run, whose clock is kept and whose log is quiet.
struct Machine {
    /// Answers before all others: program and its first arguments, and what it prints.
    first: Vec<(&'static str, Result<String, &'static str>)>,
}

impl Programs for Machine {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        let words = invocation.to_string();
        let output = |status, stdout: String| {
            Ok(Output {
                status: Some(status),
                stdout,
                stderr: String::new(),
            })
        };
        for (start, answer) in &self.first {
            if words.starts_with(start) {
                return match answer {
                    Ok(stdout) => output(0, stdout.clone()),
                    Err(stdout) => output(1, (*stdout).to_owned()),
                };
            }
        }
        if words.starts_with("systemctl show -p Id") {
            let units = invocation
                .arguments
                .iter()
                .filter(|word| word.ends_with(".service"));
            let shown = units.map(|unit| {
                format!(
                    "Id={unit}\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n\
                     UnitFileState=enabled\n"
                )
            });
            return output(0, shown.collect::<Vec<_>>().join("\n"));
        }
        match words.split(' ').next().unwrap() {
            "chronyc" => output(
                0,
                "A9,169.254.169.123,4,1.1,0.0,0.0,0.0,1.2,0.0,0.1,0.0,0.0,16.1,Normal\n".to_owned(),
            ),
            "journalctl" | "systemctl" => output(0, String::new()),
            other => panic!("{other}: {words}"),
        }
    }
}

/// A role that may do everything, or not this.
struct Cloud {
    denied: Option<Action>,
    higher: Option<bool>,
}

impl CloudProbe for Cloud {
    fn attempt(&self, action: &Action) -> Attempt {
        if self.denied.as_ref() == Some(action) {
            return Attempt::Denied {
                missing: action.name().to_owned(),
                said: "AccessDeniedException".to_owned(),
                fix: format!("allow {}", action.name()),
            };
        }
        Attempt::Allowed
    }

    fn higher_throughput(&self) -> Option<bool> {
        self.higher
    }
}

fn imds(request: &Request) -> Response {
    let date = format!("Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
    let mut response = match (request.method.as_str(), request.path.as_str()) {
        ("PUT", _) => Response::new(200, "token"),
        _ if request.header("X-aws-ec2-metadata-token").is_none() => Response::new(401, ""),
        (_, "/latest/meta-data/iam/security-credentials/") => Response::new(200, "node"),
        (_, "/latest/meta-data/iam/security-credentials/node") => Response::new(
            200,
            r#"{"Code": "Success", "Expiration": "2090-01-01T00:00:00Z", "SecretAccessKey": "planted-secret"}"#,
        ),
        _ => Response::new(404, ""),
    };
    response.headers = date;
    response
}

/// A node, with every part of it to be broken.
struct Node {
    files: Files,
    patient: Patient,
    folder: tempfile::TempDir,
}

impl Node {
    fn new(programs: Machine, imds: impl FnMut(&Request) -> Response + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let record = Record {
            version: 2,
            // 1.11.0 is known to be bad.
            nomad: Version::new(1, 11, 1),
            ..record(cos_agent::node::config::Role::NomadClient)
        };
        files
            .write_atomic(RECORD, &serde_json::to_vec(&record).unwrap(), 0o644)
            .unwrap();
        files.write_atomic("/usr/sbin/iptables", b"", 0o755).unwrap();
        files.make_directory("/run/systemd/system", 0o755).unwrap();
        let socket = folder.path().join("docker.sock");
        docker(&socket, "200 OK");
        let patient = Patient {
            files: files.clone(),
            programs: Arc::new(programs),
            imds: Server::start(imds).url,
            consul: Server::start(consul).url,
            nomad: Server::start(nomad).url,
            docker: socket,
            cloud: None,
            now: SystemTime::now(),
        };
        Self {
            files,
            patient,
            folder,
        }
    }

    fn well() -> Self {
        Self::new(Machine { first: Vec::new() }, imds)
    }

    fn examine(&self) -> Diagnosis {
        examine(self.patient.clone(), Duration::from_secs(8))
    }

    /// What is wrong; whether the node drifted cannot be told here, since it has no configuration.
    fn wrong(&self) -> Vec<Finding> {
        let diagnosis = self.examine();
        let wrong = diagnosis.findings.into_iter();
        wrong
            .filter(|finding| finding.severity != Severity::Note)
            .collect()
    }

    /// The one thing that is wrong.
    fn one(&self) -> Finding {
        let wrong = self.wrong();
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        wrong.into_iter().next().unwrap()
    }
}

#[test]
fn nothing_is_wrong_with_a_node_that_is_well() {
    let node = Node::well();
    let diagnosis = node.examine();
    assert!(diagnosis.healthy, "{diagnosis:#?}");
    assert_eq!(diagnosis.examined.len(), 13);
    let [note] = &diagnosis.findings[..] else {
        panic!("{diagnosis:#?}")
    };
    assert!(
        note.fact
            .starts_with("whether the node is what its configuration says"),
        "{note:?}"
    );
    let told = serde_json::to_string(&diagnosis).unwrap();
    assert!(!told.contains("planted-secret"));
}

#[test]
fn each_illness_of_the_metadata_service_has_its_cure() {
    let with = |status_of: fn(&Request) -> Option<Response>| {
        Node::new(Machine { first: Vec::new() }, move |request| {
            status_of(request).unwrap_or_else(|| imds(request))
        })
        .one()
    };
    let off = with(|_| Some(Response::new(403, "")));
    assert!(
        off.fact.contains("switched off") && off.fix.contains("--http-endpoint enabled"),
        "{off:?}"
    );
    assert!(off.fix.contains("INSTANCE-ID") || off.fix.contains("i-0123456789abcdef0"));
    let far = with(|request| {
        (request.method == "PUT").then(|| {
            let mut response = Response::new(200, "token");
            response.after = Duration::from_secs(6);
            response
        })
    });
    assert!(far.fix.contains("--http-put-response-hop-limit 2"), "{far:?}");
    let old =
        with(|request| (request.path == "/latest/meta-data/instance-id").then(|| Response::new(200, "i-1")));
    assert_eq!(old.severity, Severity::Warning);
    assert!(old.fix.contains("--http-tokens required"), "{old:?}");
    let no_role = with(|request| {
        request
            .path
            .ends_with("security-credentials/")
            .then(|| Response::new(404, ""))
    });
    assert!(
        no_role.fix.contains("associate-iam-instance-profile"),
        "{no_role:?}"
    );
    let refused = with(|request| {
        request.path.ends_with("credentials/node").then(|| {
            Response::new(
                200,
                r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "no trust"}"#,
            )
        })
    });
    assert!(
        refused.evidence.contains("no trust") && refused.fix.contains("ec2.amazonaws.com"),
        "{refused:?}"
    );
    let late = with(|request| {
        let mut response = imds(request);
        let then = SystemTime::now() - Duration::from_mins(10);
        response.headers = format!("Date: {}\r\n", httpdate::fmt_http_date(then));
        Some(response)
    });
    assert!(late.fact.contains("ahead: AWS refuses"), "{late:?}");
}

#[test]
fn each_illness_of_the_machine_has_its_cure() {
    let with = |start, answer| {
        Node::new(
            Machine {
                first: vec![(start, answer)],
            },
            imds,
        )
        .one()
    };
    let clock = with("chronyc", Err("506 Cannot talk to daemon"));
    assert!(clock.fix.contains("chronyd"), "{clock:?}");
    let gossip = with(
        "journalctl --unit consul.service --lines 400",
        Ok("memberlist: Decrypt packet failed: No installed keys could decrypt the message\n".to_owned()),
    );
    assert!(gossip.fix.contains("consul.gossip_key"), "{gossip:?}");
    let permission = with(
        "journalctl --unit consul.service --lines 200",
        Ok("UnauthorizedOperation: You are not authorized to perform: ec2:DescribeInstances x\n".to_owned()),
    );
    assert!(
        permission.fix.contains("\"Action\": \"ec2:DescribeInstances\""),
        "{permission:?}"
    );
    let node = Node::well();
    node.files.remove("/usr/sbin/iptables").unwrap();
    assert_eq!(node.one().check, "packet-filter");
    // Docker runs and does not answer.
    let node = Node::well();
    std::fs::remove_file(node.folder.path().join("docker.sock")).unwrap();
    assert!(node.one().fact.contains("does not answer"));
}

#[test]
fn a_certificate_that_ran_out_is_told_and_its_key_is_not_read() {
    let node = Node::well();
    let mut parameters = rcgen::CertificateParams::new(vec!["node.eu.consul".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    node.files
        .write_atomic("/opt/consul/tls/node.pem", certificate.as_bytes(), 0o640)
        .unwrap();
    node.files
        .write_atomic(
            "/opt/consul/tls/node-key.pem",
            key.serialize_pem().as_bytes(),
            0o640,
        )
        .unwrap();
    let told = node.one();
    assert!(
        told.fact.contains("ran out") && told.evidence.contains("/opt/consul/tls/node.pem"),
        "{told:?}"
    );
}

#[test]
fn a_permission_that_the_role_lacks_is_told_as_a_policy() {
    let node = Node::well();
    let with = |denied, higher| {
        let cloud = Cloud { denied, higher };
        let patient = Patient {
            cloud: Some(Arc::new(cloud)),
            ..node.patient.clone()
        };
        Node {
            files: node.files.clone(),
            patient,
            folder: tempfile::tempdir().unwrap(),
        }
    };
    assert!(with(None, Some(false)).wrong().is_empty());
    let told = with(Some(Action::GetAuthorizationToken), None).one();
    assert_eq!(told.fix, "allow ecr:GetAuthorizationToken");
    // What is not needed is not tried: this node joins by addresses, and takes nothing from Parameter Store.
    assert!(with(Some(Action::DescribeInstances), None).wrong().is_empty());
    let join = br#"{"retry_join": ["provider=aws region=eu tag_key=a tag_value=b"]}"#;
    node.files
        .write_atomic("/opt/consul/config/cos.json", join, 0o640)
        .unwrap();
    assert!(
        with(Some(Action::DescribeInstances), None)
            .one()
            .fact
            .contains("ec2:DescribeInstances")
    );
}

#[test]
fn consul_without_servers_and_nomad_without_a_leader_are_told() {
    let mut node = Node::well();
    node.patient.consul = Server::start(|request| match request.path.as_str() {
        "/v1/agent/members" => {
            Response::new(200, r#"[{"Name": "i-1", "Tags": {"role": "node"}, "Status": 1}]"#)
        }
        _ => consul(request),
    })
    .url;
    assert!(node.one().fact.contains("found no Consul server"));
    let mut node = Node::well();
    node.patient.nomad = Server::start(|request| match request.path.as_str() {
        "/v1/status/leader" => Response::new(500, "No cluster leader"),
        _ => nomad(request),
    })
    .url;
    assert!(node.one().evidence.contains("No cluster leader"));
    let mut node = Node::well();
    node.patient.nomad = Server::start(|_| Response::new(403, "Permission denied")).url;
    // That access control is on is nothing wrong.
    assert!(node.wrong().is_empty());
}

/// The parameter that a configuration names is tried by its own name, and so is the group.
#[test]
fn what_the_configuration_asks_of_aws_is_tried() {
    struct Asked(Mutex<Vec<Action>>);
    impl CloudProbe for Asked {
        fn attempt(&self, action: &Action) -> Attempt {
            self.0.lock().unwrap().push(action.clone());
            match action {
                Action::GetParameters(_) => Attempt::Missing("there is none".to_owned()),
                _ => Attempt::Allowed,
            }
        }

        fn higher_throughput(&self) -> Option<bool> {
            None
        }
    }
    let mut node = Node::new(Machine { first: Vec::new() }, |request| {
        match request.path.as_str() {
            "/latest/dynamic/instance-identity/document" => Response::new(
                200,
                r#"{"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "eu-central-1a",
                "instanceId": "i-0123456789abcdef0", "instanceType": "m6i.large", "privateIp": "192.0.2.10",
                "region": "eu-central-1"}"#,
            ),
            _ => imds(request),
        }
    });
    let document = "version: 1\nrole: consul-server\nconsul:\n  bootstrap_expect: auto-scaling-group\n  \
                    retry_join: [192.0.2.1]\n  gossip_key: ssm:/cos/consul/gossip\n";
    node.files
        .write_atomic("/etc/cos/node.yaml", document.as_bytes(), 0o644)
        .unwrap();
    let asked = Arc::new(Asked(Mutex::default()));
    node.patient.cloud = Some(asked.clone());
    let wrong = node.wrong();
    let told: Vec<&str> = wrong
        .iter()
        .filter(|finding| finding.check == "permissions")
        .map(|finding| finding.fact.as_str())
        .collect();
    assert_eq!(told, ["a parameter that the configuration names is not there"]);
    let asked = asked.0.lock().unwrap();
    for action in [
        Action::GetParameters("/cos/consul/gossip".to_owned()),
        Action::DescribeAutoScalingInstances,
    ] {
        assert!(asked.contains(&action), "{asked:?}");
    }
}

/// Takes connections and never answers.
fn black_hole() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            kept.push(stream);
        }
    });
    url
}

/// Every program hangs until its own deadline, however long that is.
struct Hanging;

impl Programs for Hanging {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        let sleep = Invocation::new("sleep", ["600"], invocation.deadline);
        RealPrograms.run(&sleep)
    }
}

#[test]
fn whatever_is_broken_the_answer_comes_within_ten_seconds() {
    let mut node = Node::well();
    let socket = node.folder.path().join("hanging.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    node.patient = Patient {
        imds: black_hole(),
        consul: black_hole(),
        nomad: black_hole(),
        docker: socket,
        programs: Arc::new(Hanging),
        ..node.patient
    };
    let start = Instant::now();
    let diagnosis = node.examine();
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(!diagnosis.healthy);
    let checks: Vec<&str> = diagnosis.findings.iter().map(|finding| finding.check).collect();
    for check in ["metadata", "clock", "services", "consul", "nomad"] {
        assert!(checks.contains(&check), "{check}: {checks:?}");
    }
}

#[test]
fn a_machine_that_was_never_configured_says_so_and_no_more_than_it_knows() {
    let node = Node::well();
    node.files.remove(RECORD).unwrap();
    let told = node.one();
    assert_eq!((told.check, told.fix.as_str()), ("record", "cos-agent apply"));
}
