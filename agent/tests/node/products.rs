//! The products' own validators over what each role gets: every version at hand, documents as they usually are and
//! with everything in them, and each row of the table of versions by itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cos_agent::host::{Files, Invocation, Output, Programs, RealPrograms};
use cos_agent::node::apply::{validators, write_tree};
use cos_agent::node::config::{self, NodeSpec, Role};
use cos_agent::node::render::{
    self, Evidence, FEATURES, Feature, Init, Installed, Product, RenderError, Version, Versions,
};
use cos_agent::node::render_for_validation;
use cos_agent::node::secrets::Fetched;
use cos_agent::node::sources::{Document, InstanceFacts, Origin};

use crate::binaries::{at_hand, install, pair};
use crate::machine::Machine;

#[test]
fn consul_and_nomad_take_what_each_role_gets() {
    let machine = tempfile::tempdir().unwrap();
    let files = Files::new(machine.path());
    let Some([(_, consul), (_, nomad)]) = pair() else {
        eprintln!("SKIPPED: consul_and_nomad_take_what_each_role_gets needs both products");
        return;
    };
    install(Product::Consul, &consul, &files);
    install(Product::Nomad, &nomad, &files);
    let versions = Versions::detect(&files, &RealPrograms).unwrap();
    for role in Role::ALL {
        let rendered = tempfile::tempdir().unwrap();
        let validators =
            render_for_validation(role, &InstanceFacts::sample(), &versions, &files, rendered.path())
                .unwrap();
        assert_eq!(validators.len(), if role.has_nomad() { 2 } else { 1 });
        for validator in validators {
            RealPrograms
                .check(&validator)
                .unwrap_or_else(|error| panic!("{role}: {error}"));
            // The validators do judge: one key too many, and they refuse.
            let folder = Path::new(validator.arguments.last().unwrap());
            fs::write(folder.join("zz.json"), r#"{"no_such_key_of_any_version": true}"#).unwrap();
            assert!(
                RealPrograms.check(&validator).is_err(),
                "{role}: {validator} judges nothing"
            );
        }
    }
}

/// Everything that one may say of Consul on a server.
const CONSUL_SERVER: &str = r#"
  bootstrap_expect: 3
  retry_join: {tag_key: "cos:consul", tag_value: main}
  datacenter: main
  recursors: [192.0.2.53]
  data_dir: /data/consul
  ui: true
  gossip_key: ssm:/gossip
  tls: {ca: "ssm:/ca", certificate: "ssm:/certificate", key: "ssm:/key", auto_encrypt: true}
  acl:
    enabled: true
    default_policy: deny
    agent_token: ssm:/agent
    default_token: ssm:/default
    initial_management_token: ssm:/management
  autopilot:
    cleanup_dead_servers: true
    last_contact_threshold: 200ms
    max_trailing_logs: 250
    server_stabilization_time: 10s
    min_quorum: 3
  log_level: trace
  service:
    user: consul
    environment: {GOMAXPROCS: "2", WORDS: 'a "b" 100%'}
    standard_output: journal
    standard_error: inherit
"#;

/// Everything that one may say of Consul beside Nomad.
const CONSUL_CLIENT: &str = r#"
  retry_join: [192.0.2.1, "192.0.2.2:8301"]
  gossip_key: ssm:/gossip
  tls: {ca: "ssm:/ca", auto_encrypt: true}
  acl: {enabled: true, agent_token: "ssm:/agent", default_token: "ssm:/default"}
  log_level: error
"#;

const NOMAD_BOTH: &str = r#"
  region: eu
  data_dir: /data/nomad
  log_dir: /opt/nomad/log
  tls: {ca: "ssm:/ca", certificate: "ssm:/certificate", key: "ssm:/key", verify_https_client: true}
  acl: true
  consul_token: ssm:/consul
  telemetry: {publish_allocation_metrics: false, publish_node_metrics: true, prometheus_metrics: true}
  log_level: error
  service: {environment: {GOMAXPROCS: "2"}}
"#;

const NOMAD_SERVER: &str = r"
  bootstrap_expect: 3
  gossip_key: ssm:/gossip
  autopilot:
    cleanup_dead_servers: true
    last_contact_threshold: 200ms
    max_trailing_logs: 250
    server_stabilization_time: 10s
    min_quorum: 3
    disable_upgrade_migration: true
";

const NOMAD_CLIENT: &str = r#"
  meta: {team: shop, disk.kind: nvme}
  host_volumes: {tmp: {path: /tmp, read_only: true}, root: {path: /root}}
  client_options: {driver.raw_exec.enable: "1"}
"#;

/// What newer Nomads take beside that.
fn newer(nomad: Version, server: bool) -> String {
    let mut lines = String::new();
    let mut line = |feature: Feature, of_server: bool, line: &str| {
        if feature.known_by(nomad) && of_server == server {
            lines.push_str(line);
        }
    };
    line(Feature::NomadNodePool, false, "  node_pool: web\n");
    line(Feature::NomadDrainOnShutdown, false, "  drain_deadline: 7m\n");
    line(
        Feature::NomadClientIntroduction,
        false,
        "  introduction_token: ssm:/introduction\n",
    );
    line(Feature::NomadKeyring, true, "  kms_key: alias/nomad\n");
    line(
        Feature::NomadClientIntroduction,
        true,
        "  client_introduction: strict\n",
    );
    lines
}

/// Documents with the usual and with everything, by what they are for.
fn documents(nomad: Version) -> Vec<(&'static str, String)> {
    let join = r#"{retry_join: {tag_key: "cos:consul", tag_value: main}}"#;
    let (server, client) = (newer(nomad, true), newer(nomad, false));
    let document = |role: &str, consul: &str, nomad: &str| {
        let nomad = if nomad.is_empty() {
            String::new()
        } else {
            format!("nomad: {nomad}\n")
        };
        format!("version: 1\nrole: {role}\nconsul: {consul}\n{nomad}")
    };
    let usual = CONSUL_SERVER.split("  datacenter").next().unwrap();
    vec![
        ("consul server", document("consul-server", usual, "")),
        (
            "consul server, everything",
            document("consul-server", CONSUL_SERVER, ""),
        ),
        (
            "nomad server",
            document("nomad-server", join, "{bootstrap_expect: 3}"),
        ),
        (
            "nomad server, everything",
            document(
                "nomad-server",
                CONSUL_CLIENT,
                &format!("{NOMAD_SERVER}{NOMAD_BOTH}{server}"),
            ),
        ),
        ("nomad client", document("nomad-client", join, "")),
        (
            "nomad client, everything",
            document(
                "nomad-client",
                CONSUL_CLIENT,
                &format!("{NOMAD_CLIENT}{NOMAD_BOTH}{client}"),
            ) + "docker: {privileged: true}\necr: {registries: [{region: us-east-1}], users: [ec2-user]}\n",
        ),
        (
            "all roles, everything",
            document(
                "[consul-server, nomad-server, nomad-client]",
                CONSUL_SERVER,
                &format!("{NOMAD_SERVER}{NOMAD_CLIENT}{NOMAD_BOTH}{server}{client}"),
            ),
        ),
    ]
}

fn spec(document: &str) -> NodeSpec {
    let document = Document {
        origin: Origin::Sample,
        bytes: document.into(),
    };
    let config = config::read(&[document]).unwrap_or_else(|faults| panic!("{faults:?}"));
    config::resolve(&config, &InstanceFacts::sample(), None).unwrap()
}

fn installed(consul: Version, nomad: Version) -> Installed {
    Machine::new().installed(Versions {
        consul,
        nomad,
        init: Init::Systemd(Version::new(252, 0, 0)),
    })
}

/// What a product says of a node; the binary is taken from where it lies.
fn judge(product: Product, binary: &Path, spec: &NodeSpec, installed: &Installed) -> Result<String, String> {
    let desired = render::render(spec, installed, &Fetched::placeholders(spec)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_tree(&desired, folder.path()).unwrap();
    let all = validators(&desired, &installed.versions, &Files::new("/"), folder.path());
    let (_, mut validator) = all.into_iter().find(|(of, _)| *of == product).unwrap();
    validator.program = binary.to_string_lossy().into_owned();
    let Output { stdout, stderr, .. } = RealPrograms
        .check(&validator)
        .map_err(|error| error.to_string())?;
    Ok(stdout + &stderr)
}

#[test]
fn every_version_takes_every_document_without_a_murmur() {
    let mut judged = 0;
    for product in [Product::Consul, Product::Nomad] {
        for (version, binary) in at_hand(product) {
            let installed = match product {
                Product::Nomad => installed(Version::new(1, 21, 0), version),
                _ => installed(version, Version::new(1, 11, 0)),
            };
            for (what, document) in documents(installed.versions.nomad) {
                let spec = spec(&document);
                if product == Product::Nomad && spec.nomad.is_none() {
                    continue;
                }
                let said = judge(product, &binary, &spec, &installed)
                    .unwrap_or_else(|error| panic!("{product} {version}, {what}: {error}"));
                for word in ["deprecated", "no effect", "invalid", "unknown"] {
                    assert!(!said.contains(word), "{product} {version}, {what}: {said}");
                }
                judged += 1;
            }
        }
    }
    eprintln!("{judged} configurations were judged by real binaries");
}

/// A switch by itself, as its product reads it; none of what no validator can see.
fn probe(feature: Feature) -> Option<&'static str> {
    Some(match feature {
        Feature::ConsulUiConfig => r#"{"ui_config": {"enabled": true}}"#,
        Feature::ConsulDisableCompat19 => r#"{"telemetry": {"disable_compat_1.9": true}}"#,
        Feature::ConsulInitialManagement => r#"{"acl": {"tokens": {"initial_management": "x"}}}"#,
        Feature::ConsulTlsBlock => r#"{"tls": {"defaults": {"ca_file": "/none"}}}"#,
        Feature::NomadConfigValidate => "",
        Feature::NomadDrainOnShutdown => r#"client { drain_on_shutdown { deadline = "5m" } }"#,
        Feature::NomadKeyring => {
            r#"keyring "awskms" { active = true region = "eu-central-1" kms_key_id = "alias/nomad" }"#
        }
        Feature::NomadNodePool => r#"client { node_pool = "web" }"#,
        Feature::NomadConsulIdentity => r#"consul { service_identity { aud = ["consul.io"] ttl = "1h" } }"#,
        Feature::NomadClientIntroduction => r#"server { client_introduction { enforcement = "strict" } }"#,
        Feature::NomadDefaultIneligible => "client { default_ineligible = true }",
        Feature::NomadRaftProtocol3
        | Feature::NomadNotify
        | Feature::NomadNotifyReload
        | Feature::SystemdFileStream
        | Feature::SystemdAppendStream
        | Feature::SystemdTruncateStream => return None,
    })
}

fn takes(product: Product, binary: &Path, fragment: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (base, words) = match product {
        Product::Consul => (
            r#"{"data_dir": "/none", "bind_addr": "192.0.2.1"}"#,
            &["validate"][..],
        ),
        _ => (
            "data_dir = \"/none\"\nserver {\n  enabled = true\n  bootstrap_expect = 1\n}\n",
            &["config", "validate"][..],
        ),
    };
    let suffix = if product == Product::Consul { "json" } else { "hcl" };
    fs::write(folder.path().join(format!("a.{suffix}")), base).unwrap();
    if !fragment.is_empty() {
        fs::write(folder.path().join(format!("b.{suffix}")), fragment).unwrap();
    }
    let place = folder.path().to_string_lossy().into_owned();
    let arguments = words.iter().copied().chain([place.as_str()]);
    let validator = Invocation::new(&binary.to_string_lossy(), arguments, Duration::from_mins(2));
    RealPrograms.check(&validator).is_ok()
}

#[test]
fn the_table_is_what_the_binaries_say() {
    for row in &FEATURES {
        let binaries = match row.product {
            Product::Systemd => continue,
            product => at_hand(product),
        };
        let Some(probe) = probe(row.feature) else {
            assert_eq!(
                row.evidence,
                Evidence::Documented,
                "{:?} has no probe",
                row.feature
            );
            continue;
        };
        let mut verdicts = Vec::new();
        for (version, binary) in &binaries {
            let taken = takes(row.product, binary, probe);
            assert_eq!(
                taken,
                row.feature.known_by(*version),
                "{:?}: {} {version}",
                row.feature,
                row.product
            );
            verdicts.push(taken);
        }
        // The column of evidence claims no more than what was just seen, where all versions are at hand.
        let (taken, refused) = (verdicts.contains(&true), verdicts.contains(&false));
        let all = binaries.len() >= if row.product == Product::Consul { 3 } else { 2 };
        match row.evidence {
            Evidence::Run => assert!(!all || (taken && refused), "{:?} was not run", row.feature),
            Evidence::Taken => assert!(!all || taken, "{:?} was not taken", row.feature),
            // Those that would take it are not at hand.
            Evidence::Documented => assert!(!taken, "{:?} was taken", row.feature),
        }
    }
}

#[test]
fn what_a_version_cannot_do_is_refused_before_anybody_judges() {
    let settings = [
        (
            "nomad-client",
            "node_pool: web",
            (1, 5, 6),
            "nomad.node_pool needs Nomad 1.6.0, installed is 1.5.6",
        ),
        (
            "nomad-client",
            "drain_deadline: 1m",
            (1, 5, 3),
            "nomad.drain_deadline needs Nomad 1.5.4, installed is 1.5.3",
        ),
        (
            "nomad-client",
            "introduction_token: 'ssm:/x'",
            (1, 10, 5),
            "nomad.introduction_token needs Nomad 1.11.0, installed is 1.10.5",
        ),
        (
            "nomad-server",
            "client_introduction: warn",
            (1, 10, 5),
            "nomad.client_introduction needs Nomad 1.11.0, installed is 1.10.5",
        ),
    ];
    for (role, setting, (major, minor, patch), expected) in settings {
        let expect = if role == "nomad-server" {
            "bootstrap_expect: 3, "
        } else {
            ""
        };
        let spec = spec(&format!(
            "version: 1\nrole: {role}\nconsul: {{retry_join: [192.0.2.1]}}\nnomad: {{{expect}{setting}}}\n"
        ));
        let installed = installed(Version::new(1, 21, 0), Version::new(major, minor, patch));
        let error = render::render(&spec, &installed, &Fetched::placeholders(&spec)).unwrap_err();
        assert!(matches!(error, RenderError::TooOld { .. }));
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_nomad_that_cannot_judge_is_told_and_no_fault() {
    let machine = Machine::new();
    let old = crate::machine::Binaries {
        nomad: "1.2.6",
        ..crate::machine::Binaries::TODAY
    };
    let environment = cos_agent::node::Environment {
        files: &machine.files,
        programs: &old,
        manager: Some(&machine),
        consul: &machine,
        secrets: &crate::machine::Store::default(),
        deadline: Duration::from_secs(1),
        timeline: &cos_agent::node::report::Timeline::new(),
        outlook: None,
        neighbours: None,
    };
    let spec = spec(
        "version: 1\nrole: nomad-server\nconsul: {retry_join: [192.0.2.1]}\nnomad: {bootstrap_expect: 3}\n",
    );
    let applied =
        cos_agent::node::apply_spec(&spec, &environment, cos_agent::node::Mode::DryRun, |_| {}).unwrap();
    assert_eq!(
        applied.notes,
        ["nobody judged Nomad's configuration: Nomad 1.2.6 cannot (`nomad config validate` came with 1.3.0)"]
    );
}
