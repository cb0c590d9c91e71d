//! Every flag of both commands and what comes of it; how two calls add up; what is kept, and where no secret goes.

mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::node::config::{Faults, NodeConfig};
use crate::node::sources::MEDIA_TYPE;
use table::{Comes, table};

const KEY: &str = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=";

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// A machine's files, with certificates.
struct Machine {
    files: Files,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        for (path, content) in [
            ("/tls/ca/one.pem", "-----BEGIN CERTIFICATE-----\n1"),
            ("/tls/ca/two.pem", "-----BEGIN CERTIFICATE-----\n2\n"),
            ("/tls/ca/README", "no certificate"),
            ("/tls/ca.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("/tls/keys/key.pem", "-----BEGIN PRIVATE KEY-----\n"),
        ] {
            files.write_atomic(path, content.as_bytes(), 0o600).unwrap();
        }
        Self { files, folder }
    }

    fn part(&self, shim: Shim, line: &str) -> Result<Part, String> {
        let given = flags::parse(shim.flags(), &words(line))?;
        part(shim, &given, &self.files)
    }

    /// What a call comes to: documents as they are read, and what is kept if they are accepted.
    fn call(&self, shim: Shim, line: &str, others: &[Document]) -> (Vec<Document>, Vec<String>) {
        let part = self.part(shim, line).unwrap();
        let mut documents = others.to_vec();
        documents.extend(Document::drop_ins(&self.files, Path::new(crate::node::sources::DROP_INS)).unwrap());
        let mut gathered = Gathered {
            documents,
            facts: Some(InstanceFacts::sample()),
            ..Gathered::default()
        };
        let kept = lay_over(shim, &part, &mut gathered).unwrap();
        keep(&part, &kept, &self.files).unwrap();
        (gathered.documents, gathered.notes)
    }

    /// What a later `apply` reads.
    fn later(&self) -> Vec<Document> {
        Document::drop_ins(&self.files, Path::new(crate::node::sources::DROP_INS)).unwrap()
    }
}

/// Read, where keys that have no effect yet are none of our business.
fn faults(documents: &[Document]) -> Vec<String> {
    let Err(Faults(faults)) = config::read(documents) else {
        return Vec::new();
    };
    let real = faults
        .iter()
        .filter(|fault| !fault.message.contains("has no effect in this version"));
    real.map(ToString::to_string).collect()
}

fn said(documents: &[Document], path: &str) -> Vec<String> {
    let all = config::explain(documents).unwrap();
    let below = all.iter().filter(|said| said.path.starts_with(path));
    below
        .map(|said| format!("{} = {} ({})", said.path, said.value, said.origin))
        .collect()
}

#[test]
fn each_flag_says_what_it_always_said() {
    let machine = Machine::new();
    for (shim, line, comes) in table() {
        let read = machine.part(shim, &line.replace("KEY", KEY));
        let at = |part: &Part, path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            Json::Object(part.says.clone()).pointer(&pointer).cloned()
        };
        match (comes, read) {
            (Comes::Refused(message), Err(said)) => assert!(said.contains(message), "{line}: {said}"),
            (Comes::Says(path, value), Ok(part)) => assert_eq!(at(&part, path), Some(value), "{line}"),
            (Comes::Otherwise(path, value), Ok(part)) => {
                assert!(
                    part.otherwise.contains(&(path, value)),
                    "{line}: {:?}",
                    part.otherwise
                );
            }
            (Comes::Note(note), Ok(part)) => {
                assert!(
                    part.notes.iter().any(|said| said.contains(note)),
                    "{line}: {:?}",
                    part.notes
                );
            }
            (Comes::Nothing, Ok(part)) => assert_eq!(part.notes, Vec::<String>::new(), "{line}"),
            (_, read) => panic!("{line}: {read:?}"),
        }
    }
}

#[test]
fn each_flag_is_in_the_table_and_in_the_usage() {
    for shim in [Shim::Consul, Shim::Nomad] {
        let told: BTreeSet<String> = table()
            .iter()
            .filter(|(of, ..)| *of == shim)
            .flat_map(|(_, line, _)| words(line))
            .collect();
        for name in shim.flag_names() {
            assert!(told.contains(name), "no test of {} {name}", shim.name());
            assert!(shim.usage().contains(name), "{name}");
        }
    }
    // Every flag of the scripts' last releases.
    let upstream = "--server --client --config-dir --data-dir --systemd-stdout --systemd-stderr --bin-dir --user \
        --cluster-tag-key --cluster-tag-value --datacenter --autopilot-cleanup-dead-servers \
        --autopilot-last-contact-threshold --autopilot-max-trailing-logs --autopilot-server-stabilization-time \
        --autopilot-redundancy-zone-tag --autopilot-disable-upgrade-migration --autopilot-upgrade-version-tag \
        --enable-gossip-encryption --gossip-encryption-key --enable-rpc-encryption --verify-server-hostname --ca-path \
        --cert-file-path --key-file-path --environment --skip-consul-config --recursor";
    let names = |line: &str| words(line).into_iter().collect::<BTreeSet<_>>();
    let ours = |shim: Shim| {
        shim.flag_names()
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ours(Shim::Consul), names(upstream));
    let upstream = "--server --client --num-servers --config-dir --data-dir --bin-dir --systemd-stdout \
        --systemd-stderr --user --cluster-tag-key --cluster-tag-value --skip-nomad-config --use-sudo --environment \
        --datacenter --log-dir";
    assert_eq!(ours(Shim::Nomad), names(upstream));
}

#[test]
fn whatever_is_said_is_a_valid_node() {
    for (shim, line, comes) in table() {
        if matches!(comes, Comes::Refused(_)) {
            continue;
        }
        let machine = Machine::new();
        let line = line.replace("KEY", KEY);
        if shim == Shim::Nomad {
            machine.call(
                Shim::Consul,
                "--client --cluster-tag-key k --cluster-tag-value v",
                &[],
            );
        }
        let (documents, _) = machine.call(shim, &line, &[]);
        let mut told = faults(&documents);
        // Without a configuration of its own the node needs none of this.
        told.retain(|fault| {
            !line.contains("--skip-consul-config") || !fault.contains("retry_join is missing")
        });
        assert_eq!(told, Vec::<String>::new(), "{line}");
        let config = |documents: &[Document]| {
            config::explain(documents)
                .unwrap()
                .into_iter()
                .map(|said| (said.path, said.value))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            config(&documents),
            config(&machine.later()),
            "{line}: a later apply makes the same node"
        );
    }
}

#[test]
fn two_calls_add_up_and_a_second_of_the_same_replaces_the_first() {
    let machine = Machine::new();
    let (documents, notes) = machine.call(
        Shim::Consul,
        "--client --cluster-tag-key k --cluster-tag-value v",
        &[],
    );
    assert_eq!(
        said(&documents, "role"),
        ["role[0] = \"consul-client\" (arguments of run-consul)"]
    );
    assert_eq!(notes, Vec::<String>::new());
    let (documents, _) = machine.call(Shim::Nomad, "--client --datacenter public-services", &[]);
    assert_eq!(
        said(&documents, "role"),
        ["role[0] = \"nomad-client\" (arguments of run-nomad)"]
    );
    assert_eq!(
        said(&documents, "consul.retry_join.tag_key"),
        ["consul.retry_join.tag_key = \"k\" (/etc/cos/node.d/90-run.json)"]
    );
    assert_eq!(faults(&documents), Vec::<String>::new());
    // The other one again, with other flags.
    let (documents, _) = machine.call(
        Shim::Consul,
        "--server --cluster-tag-key x --cluster-tag-value y",
        &[],
    );
    assert_eq!(
        said(&documents, "role"),
        [
            "role[0] = \"consul-server\" (arguments of run-consul)",
            "role[1] = \"nomad-client\" (arguments of run-consul)"
        ]
    );
    assert_eq!(
        said(&documents, "datacenter"),
        ["datacenter = \"public-services\" (/etc/cos/node.d/90-run.json)"]
    );
    assert_eq!(
        said(&machine.later(), "consul.retry_join.tag_key"),
        ["consul.retry_join.tag_key = \"x\" (/etc/cos/node.d/90-run.json)"]
    );
    // And back.
    machine.call(
        Shim::Consul,
        "--client --cluster-tag-key k --cluster-tag-value v",
        &[],
    );
    let (documents, _) = machine.call(Shim::Nomad, "--server --num-servers 3", &[]);
    assert_eq!(
        said(&documents, "role"),
        ["role[0] = \"nomad-server\" (arguments of run-nomad)"]
    );
    assert_eq!(said(&documents, "docker"), Vec::<String>::new());
}

#[test]
fn what_another_source_says_holds_where_no_flag_says_it() {
    let machine = Machine::new();
    let node = Document {
        origin: Origin::File("/etc/cos/node.yaml".into()),
        bytes: b"{version: 1, role: consul-server, consul: {bootstrap_expect: 3, retry_join: [192.0.2.1], \
                datacenter: a}, docker: {privileged: false}}"
            .to_vec(),
    };
    let later = Document {
        origin: Origin::DropIn("/etc/cos/node.d/95-mine.yaml".into()),
        bytes: b"{version: 1, consul: {recursors: [192.0.2.53]}}".to_vec(),
    };
    let others = [node, later];
    let (documents, notes) = machine.call(
        Shim::Consul,
        "--server --datacenter b --recursor 192.0.2.2",
        &others,
    );
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(
        said(&documents, "consul.bootstrap_expect"),
        ["consul.bootstrap_expect = 3 (/etc/cos/node.yaml)"]
    );
    assert_eq!(
        said(&documents, "consul.datacenter"),
        ["consul.datacenter = \"b\" (arguments of run-consul)"]
    );
    assert_eq!(
        said(&documents, "consul.recursors"),
        ["consul.recursors[0] = \"192.0.2.53\" (/etc/cos/node.d/95-mine.yaml)"]
    );
    let (documents, notes) = Machine::new().call(Shim::Nomad, "--client", &others[..1]);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(
        said(&documents, "docker"),
        ["docker.privileged = false (/etc/cos/node.yaml)"]
    );
    let (documents, notes) = machine.call(Shim::Consul, "--server", &[]);
    let own = InstanceFacts::sample().private_ipv4;
    assert_eq!(
        said(&documents, "consul.retry_join"),
        [format!(
            "consul.retry_join[0] = \"{own}\" (arguments of run-consul)"
        )]
    );
    assert!(notes[0].contains("joins nobody by itself"), "{notes:?}");
}

#[test]
fn a_key_of_the_command_line_is_in_one_file_of_root_only() {
    let machine = Machine::new();
    let line = format!("--client --enable-gossip-encryption --gossip-encryption-key {KEY}");
    let (documents, notes) = machine.call(Shim::Consul, &line, &[]);
    assert_eq!(
        machine.files.read(consul::GOSSIP_KEY).unwrap().unwrap(),
        KEY.as_bytes()
    );
    assert_eq!(machine.files.mode(consul::GOSSIP_KEY).unwrap(), Some(0o600));
    assert_eq!(
        machine.files.mode("/var/lib/cos-agent/secrets").unwrap(),
        Some(0o700)
    );
    let mut told = notes.join("\n");
    for document in &documents {
        told += &String::from_utf8_lossy(&document.bytes);
    }
    told += &String::from_utf8(machine.files.read(KEPT).unwrap().unwrap()).unwrap();
    assert!(!told.contains(KEY), "{told}");
    let mut count = 0;
    let mut folders = vec![machine.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if std::fs::read(entry.path())
                .unwrap()
                .windows(KEY.len())
                .any(|window| window == KEY.as_bytes())
            {
                count += 1;
            }
        }
    }
    assert_eq!(count, 1);
}

#[test]
fn certificates_of_a_folder_become_one_file() {
    let machine = Machine::new();
    let line = "--client --enable-rpc-encryption --ca-path /tls/ca --cert-file-path /tls/cert.pem --key-file-path /tls/key.pem";
    machine.call(Shim::Consul, line, &[]);
    assert_eq!(
        machine.files.read(consul::AUTHORITIES).unwrap().unwrap(),
        b"-----BEGIN CERTIFICATE-----\n1\n-----BEGIN CERTIFICATE-----\n2\n"
    );
}

fn apply(root: &Path) -> ApplyArguments {
    ApplyArguments {
        dry_run: false,
        config: Vec::new(),
        imds: "http://127.0.0.1:1".to_owned(),
        root: root.to_owned(),
        deadline: Duration::from_secs(1),
        consul: "http://127.0.0.1:1".to_owned(),
        json: false,
    }
}

#[test]
fn wrong_usage_prints_the_usage_and_changes_nothing() {
    let machine = Machine::new();
    for (line, message) in [
        ("--client --nope", "unrecognized argument: --nope"),
        ("", "exactly one of"),
    ] {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let error = run(
            Shim::Consul,
            &words(line),
            apply(machine.folder.path()),
            &mut out,
            &mut talk,
        )
        .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(String::from_utf8(talk).unwrap().contains("Usage: run-consul"));
    }
    assert_eq!(machine.later(), []);
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    run(
        Shim::Nomad,
        &words("--help"),
        apply(machine.folder.path()),
        &mut out,
        &mut talk,
    )
    .unwrap();
    assert!(String::from_utf8(out).unwrap().contains("Usage: run-nomad"));
}

#[test]
fn the_printed_configuration_is_one() {
    let machine = Machine::new();
    let print = |shim, line: &str| {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        run(
            shim,
            &words(line),
            apply(machine.folder.path()),
            &mut out,
            &mut talk,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = print(
        Shim::Consul,
        "--print-config --server --cluster-tag-key cos:consul --cluster-tag-value main --environment A.b=c",
    );
    assert_eq!(
        text,
        "version: 1\nrole: \"consul-server\"\nconsul:\n  service:\n    environment:\n      \"A.b\": \"c\"\n  \
         retry_join:\n    tag_key: \"cos:consul\"\n    tag_value: \"main\"\n  bootstrap_expect: \
         \"auto-scaling-group\"\n"
    );
    let read = |text: String| -> NodeConfig {
        let document = Document {
            origin: Origin::UserData,
            bytes: text.into_bytes(),
        };
        config::read(&[document]).unwrap()
    };
    let text = print(
        Shim::Consul,
        "--print-config --client --cluster-tag-key k --cluster-tag-value v",
    );
    assert_eq!(read(text).role, Role::ConsulClient.into());
    let text = print(
        Shim::Nomad,
        "--print-config --server --client --num-servers 3 --datacenter leader",
    );
    assert!(
        text.starts_with("version: 1\nrole: [\"nomad-server\",\"nomad-client\"]\n"),
        "{text}"
    );
    assert_eq!(machine.later(), []);
    assert!(MEDIA_TYPE.ends_with("+yaml"));
}

#[test]
fn a_kept_file_that_is_not_ours_is_told() {
    let machine = Machine::new();
    machine.files.write_atomic(KEPT, b"mine: yes", 0o644).unwrap();
    let mut gathered = Gathered {
        documents: machine.later(),
        ..Gathered::default()
    };
    let error = lay_over(Shim::Nomad, &Part::default(), &mut gathered).unwrap_err();
    assert_eq!(error.to_string(), "/etc/cos/node.d/90-run.json is not readable");
    assert!(error.hint().unwrap().starts_with("remove it"));
}

#[test]
fn the_name_of_the_command_is_the_command() {
    let called = |name: &str| by_name([name, "--client"].map(OsString::from));
    assert_eq!(
        called("/usr/local/bin/run-consul"),
        ["cos-agent", "run-consul", "--client"]
    );
    assert_eq!(called("run-nomad"), ["cos-agent", "run-nomad", "--client"]);
    assert_eq!(
        called("/opt/cos/bin/cos-agent"),
        ["/opt/cos/bin/cos-agent", "--client"]
    );
    assert_eq!(by_name([]), Vec::<OsString>::new());
}

proptest! {
    #[test]
    fn any_flags_in_any_order_are_a_part_or_a_reason(
        chosen in prop::collection::vec((any::<prop::sample::Index>(), "[a-z0-9/=:\" -]{0,12}", any::<bool>()), 0..12),
        nomad in any::<bool>(),
    ) {
        let shim = if nomad { Shim::Nomad } else { Shim::Consul };
        let names = shim.flag_names();
        let mut arguments = Vec::new();
        for (index, value, with) in &chosen {
            arguments.push((*index.get(&names)).to_owned());
            arguments.extend(with.then(|| value.clone()));
        }
        let files = Files::new("/nonexistent");
        if let Ok(given) = flags::parse(shim.flags(), &arguments)
            && let Ok(part) = part(shim, &given, &files)
        {
            let mut gathered = Gathered { facts: Some(InstanceFacts::sample()), ..Gathered::default() };
            let kept = lay_over(shim, &part, &mut gathered).unwrap();
            prop_assert!(serde_json::from_slice::<Json>(&kept).is_ok());
            // Read or refused; nothing is lost on the way.
            let _ = config::read(&gathered.documents);
        }
    }
}
