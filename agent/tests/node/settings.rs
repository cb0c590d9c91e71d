//! Each setting of a node where it has its effect.

use std::time::Duration;

use cos_agent::node::config::{self, Fault, OnRebalance};
use cos_agent::node::render::{self, DesiredState};
use cos_agent::node::secrets::Fetched;
use cos_agent::node::sources::{Document, Origin};
use cos_agent::node::watch::WatchSpec;
use serde_json::{Value as Json, json};

use crate::converge::spec;
use crate::machine::{self, Machine};

/// What a node of these versions gets.
fn rendered(document: &str, consul: (u32, u32, u32), nomad: (u32, u32, u32)) -> DesiredState {
    let spec = spec(document);
    let installed = Machine::new().installed(machine::versions(consul, nomad));
    render::render(&spec, &installed, &Fetched::placeholders(&spec)).unwrap()
}

fn text(desired: &DesiredState, path: &str) -> String {
    String::from_utf8(desired.files[path].clone().unwrap().content).unwrap()
}

fn consul(document: &str, version: (u32, u32, u32)) -> Json {
    let desired = rendered(document, version, (1, 11, 0));
    serde_json::from_str(&text(&desired, render::CONSUL_CONFIGURATION)).unwrap()
}

fn nomad(document: &str, version: (u32, u32, u32)) -> Json {
    let desired = rendered(document, (1, 21, 0), version);
    hcl::from_str(&text(&desired, render::NOMAD_CONFIGURATION)).unwrap()
}

const SERVER: &str =
    "version: 1\nrole: consul-server\nconsul:\n  bootstrap_expect: 3\n  retry_join: [192.0.2.1]\n";
const NOMAD_SERVER: &str =
    "version: 1\nrole: nomad-server\nconsul: {retry_join: [192.0.2.1]}\nnomad:\n  bootstrap_expect: 3\n";
const CLIENT: &str =
    "version: 1\nrole: nomad-client\nconsul: {retry_join: [192.0.2.1]}\nnomad:\n  meta: {}\n";

const PEM: &str = "{ca: 'ssm:/ca', certificate: 'ssm:/certificate', key: 'ssm:/key'}";

#[test]
fn consuls_certificates_are_named_as_the_version_names_them() {
    let document = format!("{SERVER}  tls: {PEM}\n");
    let old = consul(&document, (1, 11, 4));
    assert_eq!(old["ca_file"], "/opt/consul/tls/cos-ca.pem");
    assert_eq!(old["cert_file"], "/opt/consul/tls/cos-certificate.pem");
    assert_eq!(old["key_file"], "/opt/consul/tls/cos-key.pem");
    for key in ["verify_incoming", "verify_outgoing", "verify_server_hostname"] {
        assert_eq!(old[key], true, "{key}");
    }
    assert_eq!(old["tls"], Json::Null);
    let new = consul(&document, (1, 12, 0));
    assert_eq!(
        new["tls"],
        json!({
            "defaults": {
                "ca_file": "/opt/consul/tls/cos-ca.pem",
                "cert_file": "/opt/consul/tls/cos-certificate.pem",
                "key_file": "/opt/consul/tls/cos-key.pem",
                "verify_incoming": true,
                "verify_outgoing": true,
            },
            "internal_rpc": {"verify_server_hostname": true},
            "grpc": {"verify_incoming": false},
        })
    );
    assert_eq!(new["ca_file"], Json::Null);
    assert_eq!(new["ports"], json!({"https": 8501}));
    assert_eq!(new["addresses"], json!({"http": "127.0.0.1"}));
    assert_eq!(new["auto_encrypt"], Json::Null);
}

#[test]
fn each_switch_of_consuls_encryption_switches() {
    let base = PEM.trim_end_matches('}');
    let document = format!(
        "{SERVER}  tls: {base}, verify_incoming: false, verify_outgoing: false, verify_server_hostname: false, \
         https: false, auto_encrypt: true}}\n"
    );
    let new = consul(&document, (1, 21, 0));
    assert_eq!(new["tls"]["defaults"]["verify_incoming"], false);
    assert_eq!(new["tls"]["defaults"]["verify_outgoing"], false);
    assert_eq!(new["tls"]["internal_rpc"]["verify_server_hostname"], false);
    assert_eq!(new["ports"], Json::Null);
    assert_eq!(new["addresses"], Json::Null);
    assert_eq!(new["auto_encrypt"], json!({"allow_tls": true}));
    let client = "{version: 1, role: nomad-client,
        consul: {retry_join: [192.0.2.1], tls: {ca: 'ssm:/ca', auto_encrypt: true}}}";
    let client = consul(client, (1, 8, 7));
    assert_eq!(client["auto_encrypt"], json!({"tls": true}));
    assert_eq!(client["cert_file"], Json::Null);
}

#[test]
fn consuls_tokens_have_the_names_of_the_version() {
    let document = format!(
        "{SERVER}  acl: {{enabled: true, agent_token: 'ssm:/a', default_token: 'ssm:/d', \
         initial_management_token: 'ssm:/m'}}\n"
    );
    let token = "00000000-0000-0000-0000-000000000000";
    for (version, management) in [((1, 10, 12), "master"), ((1, 11, 0), "initial_management")] {
        let desired = rendered(&document, version, (1, 11, 0));
        let tokens: Json = serde_json::from_str(&text(&desired, render::CONSUL_TOKENS)).unwrap();
        let expected = json!({"agent": token, "default": token, management: token});
        assert_eq!(tokens, json!({"acl": {"tokens": expected}}));
    }
    assert_eq!(
        consul(&document, (1, 21, 0))["acl"],
        json!({"enabled": true, "default_policy": "deny"})
    );
    let allow = format!("{SERVER}  acl: {{enabled: true, default_policy: allow}}\n");
    assert_eq!(consul(&allow, (1, 21, 0))["acl"]["default_policy"], "allow");
    assert_eq!(
        rendered(&allow, (1, 21, 0), (1, 11, 0)).files[render::CONSUL_TOKENS],
        None
    );
    assert_eq!(consul(SERVER, (1, 21, 0))["acl"], Json::Null);
}

#[test]
fn everything_else_of_consul_is_written_as_said() {
    let document = format!(
        "{SERVER}  data_dir: /data/consul\n  ui: false\n  log_level: warn\n  autopilot: {{cleanup_dead_servers: false, \
         last_contact_threshold: 500ms, max_trailing_logs: 500, server_stabilization_time: 20s, min_quorum: 3, \
         redundancy_zone_tag: zone, disable_upgrade_migration: true, upgrade_version_tag: version}}\n"
    );
    let written = consul(&document, (1, 8, 7));
    assert_eq!(written["data_dir"], "/data/consul");
    assert_eq!(written["log_level"], "warn");
    assert_eq!(
        (&written["ui"], &written["ui_config"]),
        (&Json::Null, &Json::Null)
    );
    assert_eq!(
        written["autopilot"],
        json!({
            "cleanup_dead_servers": false,
            "last_contact_threshold": "500ms",
            "max_trailing_logs": 500,
            "server_stabilization_time": "20s",
            "min_quorum": 3,
            "redundancy_zone_tag": "zone",
            "disable_upgrade_migration": true,
            "upgrade_version_tag": "version",
        })
    );
    // What nobody said is Consul's own: the values that run-consul used to write are its defaults.
    let plain = consul(SERVER, (1, 21, 0));
    assert_eq!(plain["autopilot"], Json::Null);
    assert_eq!(plain["log_level"], "info");
    assert_eq!(plain["recursors"], json!(["169.254.169.253"]));
    assert_eq!(plain["ui_config"], json!({"enabled": true}));
    let desired = rendered(&document, (1, 21, 0), (1, 11, 0));
    assert_eq!(desired.directories["/data/consul"].user, "consul");
    assert_eq!(
        text(&desired, render::CONSUL_DROP_IN),
        "# Written by cos-agent; changes are lost.\n[Service]\nExecStart=\nExecStart=/opt/consul/bin/consul agent \
         -config-dir=/opt/consul/config -data-dir=/data/consul\n"
    );
}

#[test]
fn a_service_runs_as_said() {
    let service = r#"  service:
    user: ec2-user
    environment: {CONSUL_X: "50% of \"C:\\\"", GOMAXPROCS: "2"}
    standard_output: append:/var/log/consul.log
    standard_error: journal
"#;
    let desired = rendered(&format!("{SERVER}{service}"), (1, 21, 0), (1, 11, 0));
    assert_eq!(
        text(&desired, render::CONSUL_DROP_IN),
        "# Written by cos-agent; changes are lost.\n[Service]\nUser=ec2-user\nGroup=consul\n\
         Environment=\"CONSUL_X=50%% of \\\"C:\\\\\\\"\"\nEnvironment=\"GOMAXPROCS=2\"\n\
         StandardOutput=append:/var/log/consul.log\nStandardError=journal\n"
    );
    assert_eq!(desired.directories["/opt/consul/data"].user, "ec2-user");
    assert_eq!(
        desired.files[render::CONSUL_CONFIGURATION].as_ref().unwrap().user,
        "root"
    );
    // Nobody asked for anything: the unit of the image does.
    assert_eq!(
        rendered(SERVER, (1, 21, 0), (1, 11, 0)).files[render::CONSUL_DROP_IN],
        None
    );
}

#[test]
fn a_nomad_server_needs_no_root_and_a_client_does() {
    let server = rendered(NOMAD_SERVER, (1, 21, 0), (1, 11, 0));
    let drop_in = text(&server, render::NOMAD_DROP_IN);
    assert!(drop_in.contains("\nUser=nomad\nGroup=nomad\n"), "{drop_in}");
    assert!(!drop_in.contains("TimeoutStopSec"), "{drop_in}");
    assert_eq!(server.directories["/opt/nomad/data/server"].user, "nomad");
    let client = rendered(
        &format!("{CLIENT}  drain_deadline: 10m\n"),
        (1, 21, 0),
        (1, 11, 0),
    );
    let drop_in = text(&client, render::NOMAD_DROP_IN);
    assert!(!drop_in.contains("User="), "{drop_in}");
    assert!(drop_in.contains("\nTimeoutStopSec=630\n"), "{drop_in}");
    assert!(!client.directories.contains_key("/opt/nomad/data"));
    let both = "{version: 1, role: [consul-server, nomad-server, nomad-client],
        consul: {bootstrap_expect: 1, retry_join: [192.0.2.1]}, nomad: {bootstrap_expect: 1}}";
    let both = rendered(both, (1, 21, 0), (1, 11, 0));
    assert!(!text(&both, render::NOMAD_DROP_IN).contains("User="));
    assert!(!both.directories.contains_key("/opt/nomad/data/server"));
}

#[test]
fn everything_of_a_nomad_server_is_written_as_said() {
    let document = format!(
        "{NOMAD_SERVER}  region: eu\n  data_dir: /data/nomad\n  log_dir: /opt/nomad/log\n  log_level: debug\n  acl: true\n  \
         client_introduction: strict\n  autopilot: {{cleanup_dead_servers: true, last_contact_threshold: 200ms, \
         max_trailing_logs: 250, server_stabilization_time: 10s, min_quorum: 3, disable_upgrade_migration: false}}\n  \
         telemetry: {{publish_allocation_metrics: false, publish_node_metrics: false, prometheus_metrics: false}}\n  \
         tls: {}, http: false, verify_server_hostname: false, verify_https_client: true}}\n",
        PEM.trim_end_matches('}')
    );
    let written = nomad(&document, (1, 11, 0));
    assert_eq!(written["region"], "eu");
    assert_eq!(written["data_dir"], "/data/nomad");
    assert_eq!(written["log_level"], "debug");
    assert_eq!(written["log_file"], "/opt/nomad/log/");
    assert_eq!(written["log_rotate_max_files"], 7);
    assert_eq!(written["acl"], json!({"enabled": true}));
    assert_eq!(
        written["server"],
        json!({
            "enabled": true,
            "bootstrap_expect": 3,
            "client_introduction": {"enforcement": "strict"},
        })
    );
    assert_eq!(
        written["autopilot"],
        json!({
            "cleanup_dead_servers": true,
            "disable_upgrade_migration": false,
            "max_trailing_logs": 250,
            "min_quorum": 3,
            "last_contact_threshold": "200ms",
            "server_stabilization_time": "10s",
        })
    );
    assert_eq!(
        written["telemetry"],
        json!({
            "publish_allocation_metrics": false,
            "publish_node_metrics": false,
            "prometheus_metrics": false,
            "disable_hostname": true,
        })
    );
    assert_eq!(
        written["tls"],
        json!({
            "http": false,
            "rpc": true,
            "ca_file": "/opt/nomad/tls/cos-ca.pem",
            "cert_file": "/opt/nomad/tls/cos-certificate.pem",
            "key_file": "/opt/nomad/tls/cos-key.pem",
            "verify_server_hostname": false,
            "verify_https_client": true,
        })
    );
    let plain = nomad(NOMAD_SERVER, (1, 11, 0));
    assert_eq!(plain["telemetry"]["prometheus_metrics"], true);
    for absent in ["acl", "tls", "autopilot", "log_file"] {
        assert_eq!(plain.get(absent), None);
    }
    let https = nomad(&format!("{NOMAD_SERVER}  tls: {PEM}\n"), (1, 11, 0));
    assert_eq!(https["tls"]["http"], true);
    assert_eq!(https["tls"]["verify_server_hostname"], true);
    assert_eq!(https["tls"]["verify_https_client"], false);
    // Raft 3, which run-nomad asked for, is what Nomad speaks by itself since 1.3.
    assert_eq!(nomad(NOMAD_SERVER, (1, 2, 16))["server"]["raft_protocol"], 3);
    let folders = rendered(&document, (1, 21, 0), (1, 11, 0)).directories;
    for folder in [
        "/data/nomad",
        "/data/nomad/server",
        "/opt/nomad/log",
        "/opt/nomad/tls",
    ] {
        assert_eq!(folders[folder].user, "nomad", "{folder}");
    }
}

#[test]
fn everything_of_a_nomad_client_is_written_as_said() {
    let document = format!(
        "{CLIENT}  host_volumes: {{certs: {{path: /etc/ssl/certs, read_only: true}}, data: {{path: /data}}}}\n  \
         client_options: {{driver.raw_exec.enable: '1', fingerprint.denylist: env_gce}}\n  drain_deadline: 90s\n"
    );
    let client = &nomad(&document, (1, 11, 0))["client"];
    assert_eq!(
        client["host_volume"],
        json!({
            "certs": {"path": "/etc/ssl/certs", "read_only": true},
            "data": {"path": "/data", "read_only": false},
        })
    );
    assert_eq!(
        client["options"],
        json!({"driver.raw_exec.enable": "1", "fingerprint.denylist": "env_gce"})
    );
    assert_eq!(client["drain_on_shutdown"], json!({"deadline": "90s"}));
    let plain = nomad(CLIENT, (1, 11, 0));
    assert_eq!(plain["client"]["drain_on_shutdown"], json!({"deadline": "5m"}));
    assert_eq!(nomad(CLIENT, (1, 5, 3))["client"].get("drain_on_shutdown"), None);
}

#[test]
fn jobs_get_identities_where_consul_asks_for_tokens() {
    let acl = "{version: 1, role: nomad-server, consul: {retry_join: [192.0.2.1], acl: {enabled: true}},
        nomad: {bootstrap_expect: 3, consul_token: 'ssm:/token'}}";
    let identity = json!({"aud": ["consul.io"], "ttl": "1h"});
    let new = nomad(acl, (1, 7, 0));
    assert_eq!(new["consul"]["service_identity"], identity);
    assert_eq!(new["consul"]["task_identity"], identity);
    assert_eq!(new["consul"].get("token"), None, "it has a file of its own");
    assert_eq!(
        nomad(acl, (1, 6, 10))["consul"],
        json!({"address": "127.0.0.1:8500"})
    );
    assert_eq!(
        nomad(NOMAD_SERVER, (1, 11, 0))["consul"],
        json!({"address": "127.0.0.1:8500"})
    );
    let desired = rendered(acl, (1, 21, 0), (1, 11, 0));
    let tokens: Json = hcl::from_str(&text(&desired, render::NOMAD_TOKENS)).unwrap();
    assert_eq!(
        tokens,
        json!({"consul": {"token": "00000000-0000-0000-0000-000000000000"}})
    );
}

#[test]
fn a_load_balancer_needs_no_certificate_and_agents_do() {
    let base = PEM.trim_end_matches('}');
    let document = format!("{SERVER}  tls: {base}, verify_https_client: false}}\n");
    let new = consul(&document, (1, 21, 0));
    assert_eq!(new["tls"]["defaults"]["verify_incoming"], true);
    assert_eq!(new["tls"]["https"], json!({"verify_incoming": false}));
    let old = consul(&document, (1, 11, 4));
    assert_eq!(
        [&old["verify_incoming"], &old["verify_incoming_rpc"]],
        [&json!(false), &json!(true)]
    );
    // Nobody who said nothing of it gets a key for it.
    let plain = format!("{SERVER}  tls: {PEM}\n");
    assert_eq!(consul(&plain, (1, 21, 0))["tls"]["https"], Json::Null);
    assert_eq!(consul(&plain, (1, 11, 4))["verify_incoming_rpc"], Json::Null);
}

#[test]
fn a_key_of_kms_wraps_the_keys_of_nomads_servers() {
    let key = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef";
    let server = nomad(&format!("{NOMAD_SERVER}  kms_key: {key}\n"), (1, 11, 0));
    assert_eq!(
        server["keyring"]["awskms"],
        json!({"active": true, "region": "eu-central-1", "kms_key_id": key})
    );
    for (key, good) in [
        ("alias/nomad", true),
        ("01234567-89ab-cdef-0123-456789abcdef", true),
        ("mrk-0123456789abcdef0123456789abcdef", true),
        ("arn:aws-cn:kms:cn-north-1:123456789012:alias/nomad", true),
        ("alias/", false),
        ("nomad", false),
        (
            "arn:aws:s3:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
            false,
        ),
        ("arn:aws:kms:eu-central-1:1:alias/nomad", false),
        ("01234567-89ab-cdef-0123-456789abcde", false),
        ("01234567-89AB-cdef-0123-456789abcdef", false),
    ] {
        let document = Document {
            origin: Origin::UserData,
            bytes: format!("{NOMAD_SERVER}  kms_key: '{key}'\n").into(),
        };
        assert_eq!(config::read(&[document]).is_ok(), good, "{key}");
    }
}

#[test]
fn what_cos_does_not_manage_it_leaves_alone() {
    let document = "{version: 1, role: nomad-server,
        consul: {manage_configuration: false, service: {environment: {A: b}}},
        nomad: {manage_configuration: false, bootstrap_expect: 3}}";
    let desired = rendered(document, (1, 21, 0), (1, 11, 0));
    let paths: Vec<&str> = desired.files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            render::CONSUL_DROP_IN,
            render::NOMAD_DROP_IN,
            render::NOMAD_DISKS_DROP_IN,
            render::RECORD
        ]
    );
    assert!(text(&desired, render::CONSUL_DROP_IN).contains("Environment=\"A=b\""));
    let machine = Machine::new();
    for path in [render::CONSUL_CONFIGURATION, render::NOMAD_CONFIGURATION] {
        machine
            .files
            .write_atomic(path, b"the operator's", 0o640)
            .unwrap();
    }
    let wanted = crate::converge::Wanted {
        spec: spec(document),
        versions: machine::versions((1, 21, 0), (1, 11, 0)),
        secrets: machine::Store::default(),
    };
    assert!(crate::converge::die_after(&machine, &wanted, usize::MAX));
    assert_eq!(
        machine.files.read(render::CONSUL_CONFIGURATION).unwrap().unwrap(),
        b"the operator's"
    );
    let log = machine.log.borrow();
    assert!(
        log.contains(&"start consul".to_owned()) && log.contains(&"start nomad".to_owned()),
        "{log:?}"
    );
}

#[test]
fn what_a_user_says_of_the_watcher_reaches_it() {
    let watched = |document: &str| {
        let desired = rendered(document, (1, 21, 0), (1, 11, 0));
        WatchSpec::of(&serde_json::from_str(&text(&desired, render::RECORD)).unwrap())
    };
    assert_eq!(watched(CLIENT), WatchSpec::client());
    let all = "readiness: {eligible: false, hook: launch, deadline: 2m}\n\
               watch: {rebalance: drain, drain_deadline: 4m, scheduled_event_lead: 1h, hook: terminate}\n";
    let expected = WatchSpec {
        hold_until_ready: false,
        launch_hook: Some("launch".to_owned()),
        ready_deadline: Duration::from_mins(2),
        rebalance: OnRebalance::Drain,
        drain: Duration::from_mins(4),
        scheduled_lead: Duration::from_hours(1),
        termination_hook: Some("terminate".to_owned()),
        ..WatchSpec::client()
    };
    assert_eq!(watched(&format!("{CLIENT}{all}")), expected);
    // Whoever drains by hand where nobody watches gets what is usual.
    assert_eq!(
        watched(&format!("{CLIENT}watch: {{enabled: false}}\n")),
        WatchSpec::client()
    );
}

#[test]
fn a_nomad_that_can_be_ineligible_from_the_start_is() {
    let ineligible = |document: &str, version| {
        nomad(document, version)["client"]
            .get("default_ineligible")
            .cloned()
    };
    assert_eq!(ineligible(CLIENT, (2, 0, 3)), Some(json!(true)));
    assert_eq!(ineligible(CLIENT, (2, 0, 2)), None);
    for unheld in ["readiness: {eligible: false}\n", "watch: {enabled: false}\n"] {
        assert_eq!(ineligible(&format!("{CLIENT}{unheld}"), (2, 0, 3)), None);
    }
}

#[test]
fn settings_of_a_watcher_that_does_not_run_are_refused_together() {
    let document = format!(
        "{CLIENT}readiness: {{eligible: true, hook: a, deadline: 2m}}\n\
         watch: {{enabled: false, rebalance: drain, drain_deadline: 4m, scheduled_event_lead: 1h, hook: b}}\n"
    );
    let document = Document {
        origin: Origin::UserData,
        bytes: document.into(),
    };
    let faults = config::read(&[document]).unwrap_err().0;
    let refused = |fault: &&Fault| {
        fault
            .to_string()
            .contains("has no effect while watch.enabled is false")
    };
    assert_eq!(faults.iter().filter(refused).count(), 7, "{faults:?}");
}

#[test]
fn users_get_the_registries_too() {
    let document =
        "{version: 1, role: nomad-client, consul: {retry_join: [192.0.2.1]}, ecr: {users: [ec2-user]}}";
    let desired = rendered(document, (1, 21, 0), (1, 11, 0));
    let own = desired.files["/home/ec2-user/.docker/config.json"]
        .clone()
        .unwrap();
    assert_eq!((own.mode, own.user.as_str()), (0o600, "ec2-user"));
    assert_eq!(
        own.content,
        text(&desired, render::DOCKER_CLIENT_CONFIGURATION).as_bytes()
    );
    let nobody = spec(&document.replace("ec2-user", "nobody"));
    let installed = Machine::new().installed(machine::versions((1, 21, 0), (1, 11, 0)));
    let error = render::render(&nobody, &installed, &Fetched::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ecr.users is nobody, and this machine has no such user with a group"
    );
}

#[test]
fn another_user_gets_the_state_that_the_first_left_whenever_the_run_dies() {
    if !nix::unistd::Uid::effective().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run this as root: state changes its owner"
        );
        eprintln!("SKIPPED: another_user_gets_the_state_… needs root");
        return;
    }
    let wanted = |service: &str| crate::converge::Wanted {
        spec: spec(&format!("{SERVER}{service}")),
        versions: machine::versions((1, 21, 0), (1, 11, 0)),
        secrets: machine::Store::default(),
    };
    let (before, after) = (wanted(""), wanted("  service: {user: hashi}\n"));
    for steps in 0.. {
        let machine = Machine::new();
        let append = |path: &str, line: &str| {
            let text = machine.files.read(path).unwrap().unwrap();
            let text = [text.as_slice(), line.as_bytes()].concat();
            machine.files.write_atomic(path, &text, 0o644).unwrap();
        };
        append("/etc/passwd", "hashi:x:12345:54321::/home/hashi:/bin/sh\n");
        append("/etc/group", "hashi:x:54321:\n");
        assert!(crate::converge::die_after(&machine, &before, usize::MAX));
        machine
            .files
            .write_atomic("/opt/consul/data/raft/raft.db", b"state", 0o600)
            .unwrap();
        machine.log.borrow_mut().clear();
        let whole = crate::converge::die_after(&machine, &after, steps);
        assert!(crate::converge::die_after(&machine, &after, usize::MAX));
        crate::converge::assert_converged(&machine, &after.on(&machine), "with another user");
        for path in [
            "/opt/consul/data",
            "/opt/consul/data/raft",
            "/opt/consul/data/raft/raft.db",
        ] {
            assert_eq!(
                machine.files.owner(path).unwrap(),
                Some((12345, 54321)),
                "{path} after {steps}"
            );
        }
        let log = machine.log.borrow();
        assert_eq!(log[0], "stop consul", "it writes nothing as who it was: {log:?}");
        if whole {
            assert_eq!(*log, ["stop consul", "restart consul"]);
            break;
        }
    }
}
