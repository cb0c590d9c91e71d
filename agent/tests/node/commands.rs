//! The commands that look and change nothing, as a user calls them, and what a dry run tells.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use cos_agent::cli::{Cli, Command};
use cos_agent::host::Files;
use cos_agent::node::commands::tell;
use cos_agent::node::config::{self, NodeSpec};
use cos_agent::node::render::CONSUL_CONFIGURATION;
use cos_agent::node::report::Timeline;
use cos_agent::node::sources::{Document, InstanceFacts, Origin};
use cos_agent::node::{Environment, Mode, NodeError, apply_spec, plan_spec};
use serde_json::Value as Json;

use crate::machine::{Binaries, Machine, Store};
use crate::secrets::{everything_secret, secrets};

/// What a command says, and how it ends.
struct Said {
    out: String,
    talk: String,
    ended: Result<(), NodeError>,
}

fn call(arguments: &[&str]) -> Said {
    let cli = Cli::try_parse_from(["cos-agent"].iter().chain(arguments)).unwrap();
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let ended = match cli.command {
        Command::Check(arguments) => arguments.run(&mut out, &mut talk),
        Command::Explain(arguments) => arguments.run(&mut out, &mut talk),
        Command::Render(arguments) => arguments.run(&mut out, &mut talk),
        Command::Schema(arguments) => arguments.run(&mut out, &mut talk),
        other => panic!("{other:?}"),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        out: text(out),
        talk: text(talk),
        ended,
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) -> String {
        let files = Files::new(self.0.path());
        files.write_atomic(name, content.as_bytes(), 0o644).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0
            .path()
            .join(name.trim_start_matches('/'))
            .display()
            .to_string()
    }
}

const CLIENT: &str = "version: 1\nrole: nomad-client\ndatacenter: web\nconsul:\n  retry_join: {tag_key: 'cos:consul', tag_value: main}\n";

#[test]
fn each_document_is_checked_alone_or_all_together() {
    let folder = Folder::new();
    let node = folder.file("node.yaml", CLIENT);
    let pool = folder.file("50-pool.yaml", "version: 1\nnomad: {node_pool: big}\n");
    let wrong = folder.file(
        "60-wrong.yaml",
        "version: 1\nnomad: {node_poool: big}\nconsul: {retry_join: 3}\n",
    );
    let said = call(&["check", &node]);
    assert_eq!(said.out, format!("{node}: nomad-client is valid\n"));
    assert!(said.ended.is_ok());
    // A drop-in by itself is no node.
    let said = call(&["check", &node, &pool]);
    assert_eq!(
        said.ended.unwrap_err().to_string(),
        "1 of 2 documents have faults"
    );
    assert!(
        said.talk.contains(&format!("{pool}: role is missing")),
        "{}",
        said.talk
    );
    let said = call(&["check", "--over", &node, &pool]);
    assert_eq!(said.out, format!("{pool}: nomad-client is valid\n"));
    let said = call(&["check", "--together", &node, &pool]);
    assert_eq!(said.out, format!("{node} + {pool}: nomad-client is valid\n"));
    let said = call(&["check", "--together", &node, &pool, &wrong]);
    assert_eq!(
        said.talk,
        format!(
            "{wrong}: nomad.node_poool is not a known key; did you mean node_pool? (line 2, column 9)\n\
             {wrong}: consul.retry_join must be a mapping with tag_key and tag_value, or a list of addresses, got 3 \
             (line 3, column 22)\n"
        )
    );
    let said = call(&["check", "--json", &node, &wrong]);
    assert_eq!(said.talk, "");
    assert_eq!(said.ended.unwrap_err().exit_code(), 2);
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json[0]["valid"], true);
    assert_eq!(json[0]["role"], "nomad-client");
    let faults = json[1]["faults"].as_array().unwrap();
    let fault = faults
        .iter()
        .find(|fault| fault["path"] == "nomad.node_poool")
        .unwrap();
    assert_eq!((&fault["line"], &fault["source"]), (&2.into(), &"file".into()));
    assert!(matches!(
        call(&["check", "/nonexistent"]).ended,
        Err(NodeError::NoFile(_))
    ));
}

#[test]
fn user_data_is_checked_as_it_is() {
    let folder = Folder::new();
    let templates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../templates/user-data");
    for role in ["consul-client", "consul-server", "nomad-client", "nomad-server"] {
        let template = templates.join(format!("{role}.yaml")).display().to_string();
        let said = call(&["check", &template]);
        assert_eq!(
            said.out,
            format!("{template}: {role} is valid\n"),
            "{}",
            said.talk
        );
    }
    let parts = folder.file(
        "user-data",
        &format!(
            "Content-Type: multipart/mixed; boundary=B\nMIME-Version: 1.0\n\n--B\nContent-Type: text/x-shellscript\n\n\
             #!/bin/sh\n--B\nContent-Type: application/vnd.cos.node+yaml\n\n{CLIENT}datacentre: x\n--B--\n"
        ),
    );
    let said = call(&["check", &parts]);
    assert_eq!(
        said.talk,
        format!(
            "{parts}: user-data part 2: datacentre is not a known key; did you mean datacenter? (line 6, column 1)\n"
        )
    );
    let script = folder.file("script", "#!/bin/sh\ncos-agent apply\n");
    assert_eq!(
        call(&["check", &script]).talk,
        format!("{script}: the document holds no NodeConfig but a script\n")
    );
    let empty = folder.file("empty", "");
    assert!(
        call(&["check", &empty])
            .talk
            .contains("must be a mapping, got nothing")
    );
}

#[test]
fn what_is_included_is_looked_at_where_it_is_given() {
    let folder = Folder::new();
    let node = folder.file("node.yaml", "version: 1\ninclude: [/cos/base]\ndatacenter: web\n");
    let base = folder.file(
        "base.yaml",
        "role: nomad-client\nconsul: {retry_join: [192.0.2.1]}\n",
    );
    let said = call(&["check", &node]);
    assert!(
        said.talk.contains("note: parameter /cos/base was not looked at"),
        "{}",
        said.talk
    );
    assert!(said.ended.is_err());
    let said = call(&["check", &node, "--parameter", &format!("/cos/base={base}")]);
    assert_eq!(said.out, format!("{node}: nomad-client is valid\n"));
    let said = call(&[
        "explain",
        "role",
        "--config",
        &node,
        "--facts",
        "sample",
        "--parameter",
        &format!("/cos/base={base}"),
    ]);
    assert_eq!(
        said.out,
        "role  \"nomad-client\"  (parameter /cos/base, line 1, column 7)\n"
    );
}

#[test]
fn explain_tells_who_says_what_and_what_holds_otherwise() {
    let folder = Folder::new();
    folder.file("/etc/cos/node.yaml", CLIENT);
    folder.file(
        "/etc/cos/node.d/50.yaml",
        "version: 1\nconsul: {recursors: [192.0.2.53, 192.0.2.54]}\n",
    );
    let root = folder.path("");
    let said = call(&["explain", "consul", "--root", &root, "--facts", "sample"]);
    assert!(said.ended.is_ok(), "{}", said.talk);
    let squeezed: Vec<String> = said
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "consul.retry_join.tag_key \"cos:consul\" (/etc/cos/node.yaml, line 5, column 25)",
        "consul.recursors[1] \"192.0.2.54\" (/etc/cos/node.d/50.yaml, line 2, column 34)",
        "consul.datacenter the AWS region (default)",
        "consul.manage_configuration true (default)",
    ] {
        assert!(
            squeezed.iter().any(|told| told == line),
            "{line} is not in\n{}",
            said.out
        );
    }
    assert!(
        !said.out.contains("bootstrap_expect") && !said.out.contains("nomad."),
        "{}",
        said.out
    );
    let said = call(&["explain", "--json", "--root", &root, "--facts", "sample"]);
    let json: Json = serde_json::from_str(&said.out).unwrap();
    let of = |path: &str| {
        json.as_array()
            .unwrap()
            .iter()
            .find(|line| line["path"] == path)
            .unwrap()
    };
    assert_eq!(
        (&of("datacenter")["source"], &of("datacenter")["line"]),
        (&"file".into(), &3.into())
    );
    assert_eq!(of("log.console")["default"], "true");
    assert_eq!(of("consul.recursors[0]")["source"], "drop-in");
    // What is wrong is told too, and a secret that stands where its place should be named is not.
    folder.file(
        "/etc/cos/node.d/60.yaml",
        "version: 1\nconsul: {gossip_key: hunter2-the-secret}\n",
    );
    let said = call(&["explain", "--root", &root, "--facts", "sample"]);
    assert_eq!(said.ended.unwrap_err().exit_code(), 2);
    assert!(
        said.talk
            .contains("consul.gossip_key must be ssm:/parameter/name or file:/path"),
        "{}",
        said.talk
    );
    assert!(!(said.out + &said.talk).contains("hunter2"));
}

#[test]
fn a_file_is_rendered_without_an_instance() {
    let folder = Folder::new();
    let node = folder.file("node.yaml", CLIENT);
    let offline = [
        "--config",
        &node,
        "--facts",
        "sample",
        "--versions",
        "consul=1.21.5,nomad=1.11.0",
    ];
    let render = |path: &str| call(&[&["render", path][..], &offline].concat());
    let said = render(CONSUL_CONFIGURATION);
    assert!(said.ended.is_ok(), "{}", said.talk);
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["datacenter"], "eu-central-1");
    let all = render("all").out;
    assert!(
        all.contains("==> /opt/nomad/config/cos.hcl (0640 root:nomad)\n"),
        "{all}"
    );
    assert!(all.contains(&said.out), "{all}");
    let error = render("/etc/motd").ended.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no file /etc/motd; it has /etc/docker/config.json"),
        "{error}"
    );
    // Another instance, and a group.
    let facts = InstanceFacts {
        region: "us-west-2".to_owned(),
        ..InstanceFacts::sample()
    };
    let facts = folder.file("facts.json", &serde_json::to_string(&facts).unwrap());
    let server = folder.file(
        "server.yaml",
        "version: 1\nrole: consul-server\nconsul: {bootstrap_expect: auto-scaling-group, retry_join: [192.0.2.1]}\n",
    );
    let line = [
        "render",
        CONSUL_CONFIGURATION,
        "--config",
        &server,
        "--facts",
        &facts,
        "--versions",
        "consul=1.21.5,nomad=1.11.0",
    ];
    assert!(call(&line).ended.is_err(), "nobody knows the group");
    let said = call(&[&line[..], &["--group", "5"]].concat());
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&json["bootstrap_expect"], &json["datacenter"]),
        (&5.into(), &"us-west-2".into())
    );
}

#[test]
fn the_schema_is_printed_for_machines_and_people() {
    let json: Json = serde_json::from_str(&call(&["schema"]).out).unwrap();
    assert_eq!(json, config::json_schema());
    assert_eq!(call(&["schema", "--markdown"]).out, config::reference());
}

fn spec(document: &str) -> NodeSpec {
    let document = Document {
        origin: Origin::UserData,
        bytes: document.into(),
    };
    let config = config::read(&[document]).unwrap();
    config::resolve(&config, &InstanceFacts::sample(), None).unwrap()
}

fn environment<'m>(machine: &'m Machine, store: &'m Store, timeline: &'m Timeline) -> Environment<'m> {
    Environment {
        secrets: store,
        timeline,
        files: &machine.files,
        programs: &Binaries::TODAY,
        manager: Some(machine),
        consul: machine,
        deadline: Duration::from_secs(1),
        outlook: None,
        neighbours: None,
    }
}

/// `change: why` with the diff below it.
fn told(machine: &Machine, spec: &NodeSpec) -> Vec<String> {
    told_with(machine, spec, &Store::default())
}

fn told_with(machine: &Machine, spec: &NodeSpec, store: &Store) -> Vec<String> {
    let timeline = Timeline::new();
    let planned = plan_spec(spec, &environment(machine, store, &timeline), Mode::DryRun).unwrap();
    let told = tell(&planned, &machine.files).unwrap();
    let line = |told: &cos_agent::node::commands::Told| {
        format!(
            "{}: {}\n{}",
            told.change,
            told.why,
            told.diff.clone().unwrap_or_default()
        )
    };
    told.iter().map(line).collect()
}

#[test]
fn a_dry_run_tells_why_and_what() {
    let machine = Machine::new();
    let first = spec(CLIENT);
    let all = told(&machine, &first).concat();
    for line in [
        "write /opt/consul/config/cos.json (0640 root:consul): it is not there\n--- /dev/null\n+++ /opt/consul/config/cos.json\n",
        "+  \"datacenter\": \"eu-central-1\",\n",
        "enable consul: it does not start at boot\n",
        "start consul: it does not run\n",
        "wait for consul: it has yet to do its work\n",
    ] {
        assert!(all.contains(line), "{line} is not in\n{all}");
    }
    let (store, timeline) = (Store::default(), Timeline::new());
    apply_spec(
        &first,
        &environment(&machine, &store, &timeline),
        Mode::Execute,
        |_| {},
    )
    .unwrap();
    assert_eq!(told(&machine, &first), Vec::<String>::new());
    // Another datacenter, and a hand that was there meanwhile.
    let second = spec(&CLIENT.replace("web", "content"));
    machine
        .files
        .write_atomic("/etc/docker/config.json", b"{\"auths\": {}}\n", 0o600)
        .unwrap();
    let all = told(&machine, &second).concat();
    for line in [
        "forget what nomad was started with: what it reads at its start changes\n",
        "write /opt/nomad/config/cos.hcl (0640 root:nomad): its content is another\n--- /opt/nomad/config/cos.hcl\n",
        "-datacenter = \"web\"\n+datacenter = \"content\"\n",
        "write /etc/docker/config.json (0644 root:root): its content is another, its mode is 0600\n",
        // One side is not for everybody: neither is shown.
        "-(sha256 ",
        "restart nomad: it runs with another configuration or version\n",
    ] {
        assert!(all.contains(line), "{line} is not in\n{all}");
    }
    assert!(!all.contains("auths"), "{all}");
    // No Nomad at all.
    let third = spec("version: 1\nrole: consul-client\nconsul: {retry_join: [192.0.2.1]}\n");
    let all = told(&machine, &third).concat();
    for line in [
        "stop nomad: this node has no use for it\n",
        "remove /opt/nomad/config/cos.hcl: this node has no use for it\n--- /opt/nomad/config/cos.hcl\n+++ /dev/null\n",
    ] {
        assert!(all.contains(line), "{line} is not in\n{all}");
    }
}

#[test]
fn no_planted_secret_shows_in_a_dry_run() {
    let machine = Machine::new();
    let planted = [
        "hunter2-gossip",
        "6b7d2f5e-5f3b-4a7f-9f53-1f2a3b4c5d6e",
        "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=",
    ];
    let old = format!(
        "{{\n  \"encrypt\": \"{}\",\n  \"acl\": {{\"tokens\": {{\"agent\": \"{}\"}}}},\n  \"other\": \"{}\"\n}}\n",
        planted[0], planted[1], planted[2]
    );
    machine
        .files
        .write_atomic(CONSUL_CONFIGURATION, old.as_bytes(), 0o640)
        .unwrap();
    let all = told(&machine, &spec(CLIENT)).concat();
    assert!(all.contains("-  \"encrypt\": \"sha256 "), "{all}");
    for secret in planted {
        assert!(!all.contains(secret), "{secret} is in\n{all}");
    }
}

/// Every secret that a node can have: in place of none, and in place of another generation.
#[test]
fn no_secret_of_the_node_shows_in_a_dry_run() {
    let machine = Machine::new();
    let spec = everything_secret();
    let lines = |store: &Store| {
        let values = store.parameters.values().flat_map(|value| value.lines());
        let lines: Vec<String> = values
            .filter(|line| !line.starts_with("-----"))
            .map(str::to_owned)
            .collect();
        lines
    };
    let (old, new) = (secrets(1), secrets(2));
    let mut said = told_with(&machine, &spec, &old).concat();
    let timeline = Timeline::new();
    apply_spec(
        &spec,
        &environment(&machine, &old, &timeline),
        Mode::Execute,
        |_| {},
    )
    .unwrap();
    said += &told_with(&machine, &spec, &new).concat();
    assert!(said.contains("(sha256 "), "{said}");
    let planted: Vec<String> = lines(&old).into_iter().chain(lines(&new)).collect();
    assert!(planted.len() > 20);
    for secret in planted {
        assert!(!said.contains(&secret), "{secret} is in\n{said}");
    }
}
