//! Secrets on their way through a node: who may see them, and what changes when they do.

use std::collections::BTreeMap;
use std::time::Duration;

use cos_agent::host::{Invocation, Output, ProgramError, Programs};
use cos_agent::node::apply::{Change, diff, observe};
use cos_agent::node::config::NodeSpec;
use cos_agent::node::render::{
    self, CONSUL_GOSSIP, CONSUL_KEY, CONSUL_TOKENS, NOMAD_CONFIGURATION, NOMAD_GOSSIP, NOMAD_KEY,
    NOMAD_TOKENS,
};
use cos_agent::node::report::Timeline;
use cos_agent::node::secrets::{Fetched, needs};
use cos_agent::node::{
    Environment, Mode, NodeError, apply_spec, apply_spec_with_last_words, commands, plan_spec,
};

use crate::converge::{Wanted, assert_converged, die_after, spec};
use crate::machine::{self, Binaries, Machine, Store};

/// A node that is everything, without a secret.
pub(crate) fn all_roles() -> NodeSpec {
    spec(
        "{version: 1, role: [consul-server, nomad-server, nomad-client],
          consul: {bootstrap_expect: 1, retry_join: [192.0.2.1]}, nomad: {bootstrap_expect: 1}}",
    )
}

/// A node that is everything, and has every secret that there can be.
pub(crate) fn everything_secret() -> NodeSpec {
    spec(
        "version: 1
role: [consul-server, nomad-server, nomad-client]
consul:
  bootstrap_expect: 1
  retry_join: [192.0.2.1]
  gossip_key: ssm:/cos/consul/gossip
  tls: {ca: ssm:/cos/ca, certificate: ssm:/cos/consul/certificate, key: ssm:/cos/consul/key}
  acl:
    enabled: true
    agent_token: ssm:/cos/consul/agent
    default_token: ssm:/cos/consul/default
    initial_management_token: ssm:/cos/consul/management
nomad:
  bootstrap_expect: 1
  gossip_key: ssm:/cos/nomad/gossip
  tls: {ca: ssm:/cos/ca, certificate: ssm:/cos/nomad/certificate, key: ssm:/cos/nomad/key}
  acl: true
  consul_token: ssm:/cos/nomad/consul
  introduction_token: ssm:/cos/nomad/introduction
",
    )
}

/// Parameter Store with all of them; another generation has other values. The gossip keys stay.
pub(crate) fn secrets(generation: u8) -> Store {
    let mut parameters = planted(generation);
    parameters.extend([
        ("/cos/consul/gossip", gossip(1)),
        ("/cos/nomad/gossip", gossip(2)),
    ]);
    Store {
        parameters,
        ..Store::default()
    }
}

fn planted(generation: u8) -> BTreeMap<&'static str, String> {
    let token = |number: u8| format!("5ec2e7{number:02x}-0000-4000-8000-{generation:012x}");
    let block = |label: &str, number: u8| {
        let body = base64(&[number, generation].repeat(40));
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    BTreeMap::from([
        ("/cos/ca", block("CERTIFICATE", 1)),
        ("/cos/consul/certificate", block("CERTIFICATE", 2)),
        ("/cos/consul/key", block("EC PRIVATE KEY", 3)),
        ("/cos/consul/agent", token(1)),
        ("/cos/consul/default", token(2)),
        ("/cos/consul/management", token(3)),
        ("/cos/nomad/certificate", block("CERTIFICATE", 4)),
        ("/cos/nomad/key", block("EC PRIVATE KEY", 5)),
        ("/cos/nomad/consul", token(4)),
        (
            "/cos/nomad/introduction",
            format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", token(5)),
        ),
    ])
}

fn gossip(number: u8) -> String {
    base64(&[number; 32])
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(word >> (18 - 6 * place) & 63).unwrap();
            let character = if place <= chunk.len() {
                ALPHABET[index]
            } else {
                b'='
            };
            text.push(char::from(character));
        }
    }
    text
}

fn wanted(secrets: Store) -> Wanted {
    Wanted {
        spec: everything_secret(),
        versions: machine::versions((1, 21, 5), (1, 11, 0)),
        secrets,
    }
}

fn apply(
    machine: &Machine,
    secrets: &Store,
    programs: &(dyn Programs + Sync),
    mode: Mode,
    told: &mut Vec<String>,
) -> Result<cos_agent::node::Applied, NodeError> {
    let environment = Environment {
        files: &machine.files,
        programs,
        manager: Some(machine),
        consul: machine,
        secrets,
        deadline: Duration::from_secs(1),
        timeline: &Timeline::new(),
        outlook: None,
        neighbours: None,
    };
    apply_spec(&everything_secret(), &environment, mode, |effect| {
        told.push(format!("{effect} {effect:?} {effect:#?}"));
    })
}

/// Programs that keep what they were given, and whose validators repeat all that they read, as an unkind one might.
struct Gossips {
    calls: std::sync::Mutex<Vec<String>>,
    refuse: bool,
}

impl Gossips {
    fn new(refuse: bool) -> Self {
        Self {
            calls: std::sync::Mutex::default(),
            refuse,
        }
    }
}

impl Programs for Gossips {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        self.calls.lock().unwrap().push(format!("{invocation:?}"));
        let folder = invocation.arguments.last().unwrap();
        let Ok(files) = std::fs::read_dir(folder) else {
            return Binaries::TODAY.run(invocation);
        };
        let read = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path()).unwrap();
        Ok(Output {
            status: Some(i32::from(self.refuse)),
            stdout: files.flatten().map(read).collect(),
            stderr: String::new(),
        })
    }
}

/// Every line that gives a secret away.
fn telltales(store: &Store) -> Vec<String> {
    let lines = store.parameters.values().flat_map(|value| value.lines());
    lines
        .filter(|line| !line.starts_with("-----"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn planted_secrets_are_where_they_belong_and_nowhere_else() {
    let store = secrets(1);
    let mut telltales = telltales(&store);
    assert_eq!(
        telltales.len(),
        needs(&everything_secret()).len() - 1,
        "the authority is asked for twice"
    );
    let machine = Machine::new();
    let mut said = vec![format!(
        "{:?} {:#?}",
        everything_secret(),
        needs(&everything_secret())
    )];
    let fetched = Fetched::fetch(&everything_secret(), &store, &machine.files).unwrap();
    let desired = wanted(store.clone()).on(&machine);
    said.push(format!("{fetched:?} {desired:?} {desired:#?}"));
    said.push(
        serde_json::to_string(&diff(&desired, &observe(&desired, &machine.files, None).unwrap())).unwrap(),
    );
    for mode in [Mode::DryRun, Mode::Execute] {
        let programs = Gossips::new(false);
        let applied = apply(&machine, &store, &programs, mode, &mut said).unwrap();
        // A first start judges by itself; a dry run asks the validators.
        assert!(
            mode == Mode::Execute || applied.notes.len() > 5,
            "the validators said much: {:?}",
            applied.notes
        );
        said.push(serde_json::to_string_pretty(&applied).unwrap());
        said.push(format!("{applied:?}"));
        said.extend(programs.calls.into_inner().unwrap());
    }
    // A refusal repeats what was read, too; so do its causes.
    let programs = Gossips::new(true);
    let error = apply(&Machine::new(), &store, &programs, Mode::DryRun, &mut said).unwrap_err();
    said.push(format!("{error:?} {}", cos_agent::error::chain(&error)));
    assert!(said.last().unwrap().contains("(secret)"));
    // A unit that fails says it all once more.
    let failing = Machine::new();
    failing.broken.borrow_mut().push("consul");
    *failing.farewell.borrow_mut() = telltales.clone();
    let environment = Environment {
        files: &failing.files,
        programs: &Binaries::TODAY,
        manager: Some(&failing),
        consul: &failing,
        secrets: &store,
        timeline: &Timeline::new(),
        deadline: Duration::from_secs(1),
        outlook: None,
        neighbours: None,
    };
    let (failed, last_words) =
        apply_spec_with_last_words(&everything_secret(), &environment, Mode::Execute, |_| {});
    assert!(failed.is_err());
    assert_eq!(last_words.len(), telltales.len());
    said.extend(last_words);
    // A second generation: what changes is not told either.
    let next = secrets(2);
    let programs = Gossips::new(false);
    let mut changing = next.clone();
    changing.parameters.extend([
        ("/cos/consul/gossip", gossip(8)),
        ("/cos/nomad/gossip", gossip(9)),
    ]);
    let environment = Environment {
        files: &machine.files,
        programs: &programs,
        manager: Some(&machine),
        consul: &machine,
        secrets: &changing,
        timeline: &Timeline::new(),
        deadline: Duration::from_secs(1),
        outlook: None,
        neighbours: None,
    };
    let planned = plan_spec(&everything_secret(), &environment, Mode::DryRun).unwrap();
    let told = commands::tell(&planned, &machine.files).unwrap();
    assert!(
        told.iter().filter(|told| told.diff.is_some()).count() >= 8,
        "old and new are compared"
    );
    said.push(serde_json::to_string(&told).unwrap());
    said.push(format!("{planned:?}"));
    telltales.extend(self::telltales(&changing));
    apply(&machine, &next, &programs, Mode::Execute, &mut said).unwrap();
    apply(&machine, &store, &programs, Mode::Execute, &mut said).unwrap();
    said.push(format!("{:?}", machine.log.borrow()));
    said.push(std::fs::read_to_string("/proc/self/environ").unwrap_or_default());
    said.push(std::fs::read_to_string("/proc/self/cmdline").unwrap_or_default());
    for telltale in telltales.iter().chain(&self::telltales(&next)) {
        for said in &said {
            assert!(!said.contains(telltale.as_str()), "{telltale} is in {said}");
        }
    }
    // On disk each is in a file that only root and the service may read, and in no other.
    let (files, _) = machine.state();
    let mut holders = 0;
    for (path, (content, mode)) in files {
        let content = String::from_utf8_lossy(&content).into_owned();
        if telltales
            .iter()
            .any(|telltale| content.contains(telltale.as_str()))
        {
            assert!(matches!(mode, 0o600 | 0o640), "{path} has mode {mode:04o}");
            assert!(
                path.starts_with("/opt/consul/") || path.starts_with("/opt/nomad/"),
                "{path}"
            );
            holders += 1;
        }
    }
    assert_eq!(holders, 11);
}

#[test]
fn all_are_fetched_at_once_and_nobody_is_asked_for_nothing() {
    let store = secrets(1);
    let machine = Machine::new();
    Fetched::fetch(&everything_secret(), &store, &machine.files).unwrap();
    assert_eq!(store.calls.get(), 1);
    let none = Store::default();
    Fetched::fetch(&all_roles(), &none, &machine.files).unwrap();
    assert_eq!(none.calls.get(), 0);
}

#[test]
fn what_is_missing_is_told_with_who_needs_it_and_the_permission() {
    let machine = Machine::new();
    let mut store = secrets(1);
    store.parameters.remove("/cos/consul/agent");
    store.parameters.remove("/cos/nomad/key");
    let error = apply(&machine, &store, &Binaries::TODAY, Mode::Execute, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no parameter /cos/consul/agent, which consul.acl.agent_token needs; /cos/nomad/key, which \
         nomad.tls.key needs"
    );
    assert_eq!(error.exit_code(), 6);
    let hint = error.hint().unwrap();
    for part in [
        "ssm:GetParameters",
        "kms:Decrypt",
        "parameter/cos/consul/agent",
        "parameter/cos/nomad/key",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    assert!(machine.log.borrow().is_empty(), "nothing is touched");
    store = secrets(1);
    store
        .parameters
        .insert("/cos/consul/gossip", "c2hvcnQ=".to_owned());
    store.parameters.insert("/cos/nomad/key", "not a key".to_owned());
    let error = apply(&machine, &store, &Binaries::TODAY, Mode::Execute, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ssm:/cos/consul/gossip, which consul.gossip_key needs, must be 32 bytes in base64, and is 5 (make one by \
         `consul keygen`); ssm:/cos/nomad/key, which nomad.tls.key needs, must be PEM, and has no block (is it the \
         name of a file, or cut off?)"
    );
}

#[test]
fn a_secret_may_be_a_file_that_something_else_puts_there() {
    let machine = Machine::new();
    let spec = spec(
        "{version: 1, role: nomad-client,
          consul: {retry_join: [192.0.2.1], gossip_key: 'file:/run/vault/gossip'}}",
    );
    let store = Store::default();
    let error = Fetched::fetch(&spec, &store, &machine.files).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no file /run/vault/gossip, which consul.gossip_key needs"
    );
    let key = gossip(7);
    machine
        .files
        .write_atomic("/run/vault/gossip", format!("{key}\n").as_bytes(), 0o600)
        .unwrap();
    let wanted = Wanted {
        spec,
        versions: machine::versions((1, 21, 5), (1, 11, 0)),
        secrets: store,
    };
    let written = wanted.on(&machine).files[CONSUL_GOSSIP].clone().unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written.content).unwrap();
    assert_eq!(written["encrypt"], key);
}

/// What happens to a node of today when its secrets change, but for what every change of a file brings.
fn changes_after(change: impl Fn(&mut Store)) -> (Vec<String>, Vec<String>) {
    changes_with((1, 11, 0), change)
}

fn changes_with(nomad: (u32, u32, u32), change: impl Fn(&mut Store)) -> (Vec<String>, Vec<String>) {
    let machine = Machine::new();
    let versions = machine::versions((1, 21, 5), nomad);
    let mut wanted = wanted(secrets(1));
    wanted.versions = versions;
    assert!(die_after(&machine, &wanted, usize::MAX));
    change(&mut wanted.secrets);
    let desired = wanted.on(&machine);
    let changes = diff(
        &desired,
        &observe(&desired, &machine.files, Some(&machine)).unwrap(),
    );
    let written = changes.0.iter().filter_map(|change| match change {
        Change::Write { path, .. } => Some(path.clone()),
        _ => None,
    });
    let acts = changes.0.iter().filter(|change| {
        matches!(
            change,
            Change::Reload { .. } | Change::Restart { .. } | Change::Start { .. } | Change::Stop { .. }
        )
    });
    let result = (written.collect(), acts.map(ToString::to_string).collect());
    assert!(die_after(&machine, &wanted, usize::MAX));
    assert_converged(&machine, &desired, "after new secrets");
    result
}

#[test]
fn what_a_product_can_read_again_is_reloaded_and_not_restarted() {
    let new = planted(2);
    let replace = |names: &'static [&'static str]| {
        let new = new.clone();
        move |store: &mut Store| {
            for name in names {
                store.parameters.insert(name, new[name].clone());
            }
        }
    };
    let consul_tokens = replace(&["/cos/consul/agent", "/cos/consul/default"]);
    assert_eq!(
        changes_after(consul_tokens),
        (vec![CONSUL_TOKENS.to_owned()], vec!["reload consul".to_owned()])
    );
    let keys = replace(&["/cos/consul/key", "/cos/nomad/key"]);
    let (written, acts) = changes_after(keys);
    assert_eq!(written, [CONSUL_KEY, NOMAD_KEY]);
    assert_eq!(acts, ["reload consul", "reload nomad"]);
    let (written, acts) = changes_after(replace(&["/cos/ca"]));
    assert_eq!(written.len(), 2);
    assert_eq!(acts, ["reload consul", "reload nomad"]);
    // Nomad reads its token for Consul when it starts.
    let (written, acts) = changes_after(replace(&["/cos/nomad/consul"]));
    assert_eq!(written, [NOMAD_TOKENS]);
    assert_eq!(acts, ["restart nomad"]);
    // A client that was let in needs no new introduction.
    let (written, acts) = changes_after(replace(&["/cos/nomad/introduction"]));
    assert_eq!(written, ["/opt/nomad/data/client/intro_token.jwt"]);
    assert!(acts.is_empty(), "{acts:?}");
}

#[test]
fn a_nomad_that_a_reload_would_kill_is_restarted() {
    let spec = "{version: 1, role: nomad-client, consul: {retry_join: [192.0.2.1]},
        nomad: {tls: {ca: 'ssm:/cos/ca', certificate: 'ssm:/cos/nomad/certificate', key: 'ssm:/cos/nomad/key'}}}";
    for (nomad, expected) in [
        ((1, 7, 7), "reload nomad"),
        ((1, 8, 0), "restart nomad"),
        ((1, 10, 0), "restart nomad"),
        ((1, 10, 1), "reload nomad"),
    ] {
        let machine = Machine::new();
        let mut wanted = Wanted {
            spec: crate::converge::spec(spec),
            versions: machine::versions((1, 21, 5), nomad),
            secrets: secrets(1),
        };
        assert!(die_after(&machine, &wanted, usize::MAX));
        machine.log.borrow_mut().clear();
        wanted
            .secrets
            .parameters
            .insert("/cos/nomad/key", planted(2)["/cos/nomad/key"].clone());
        assert!(die_after(&machine, &wanted, usize::MAX));
        assert_eq!(*machine.log.borrow(), [expected], "{nomad:?}");
        assert_converged(&machine, &wanted.on(&machine), "after a new key");
    }
}

#[test]
fn a_new_gossip_key_restarts_nothing_and_says_what_to_do() {
    let machine = Machine::new();
    apply(
        &machine,
        &secrets(1),
        &Binaries::TODAY,
        Mode::Execute,
        &mut Vec::new(),
    )
    .unwrap();
    machine.log.borrow_mut().clear();
    let mut store = secrets(1);
    store.parameters.insert("/cos/consul/gossip", gossip(8));
    store.parameters.insert("/cos/nomad/gossip", gossip(9));
    let applied = apply(&machine, &store, &Binaries::TODAY, Mode::Execute, &mut Vec::new()).unwrap();
    let written: Vec<String> = applied.changes.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        written,
        [
            format!("write {CONSUL_GOSSIP} (0640 root:consul)"),
            format!("write {NOMAD_GOSSIP} (0640 root:nomad)"),
        ]
    );
    assert!(machine.log.borrow().is_empty(), "{:?}", machine.log);
    for (product, command) in [
        ("Consul", "consul keyring"),
        ("Nomad", "nomad operator gossip keyring"),
    ] {
        let note = applied.notes.iter().find(|note| note.contains(command));
        assert!(
            note.unwrap()
                .starts_with(&format!("the gossip key of {product} changed"))
        );
    }
    // The first key is another matter: without one an agent does not encrypt.
    let first = wanted(secrets(1)).on(&Machine::new());
    let machine = Machine::new();
    let plain = Wanted {
        spec: all_roles(),
        ..wanted(Store::default())
    };
    assert!(die_after(&machine, &plain, usize::MAX));
    let observed = observe(&first, &machine.files, Some(&machine)).unwrap();
    let restarts = diff(&first, &observed).0;
    let restarts = restarts
        .iter()
        .filter(|change| matches!(change, Change::Restart { .. }));
    // Both products, and the watcher: that Consul asks for tokens now is in the record.
    assert_eq!(restarts.count(), 3);
}

#[test]
fn a_reload_that_died_ends_in_a_reload() {
    let machine = Machine::new();
    assert!(die_after(&machine, &wanted(secrets(1)), usize::MAX));
    let mut store = secrets(1);
    store
        .parameters
        .insert("/cos/consul/agent", planted(2)["/cos/consul/agent"].clone());
    let next = wanted(store);
    let mut deaths = 0;
    for steps in 0.. {
        let machine = Machine::new();
        assert!(die_after(&machine, &wanted(secrets(1)), usize::MAX));
        machine.log.borrow_mut().clear();
        let whole = die_after(&machine, &next, steps);
        assert!(die_after(&machine, &next, usize::MAX));
        assert_converged(&machine, &next.on(&machine), "after a reload that died");
        let log = machine.log.borrow();
        assert!(log.iter().all(|line| line == "reload consul"), "{steps}: {log:?}");
        assert!(!log.is_empty() && log.len() <= 2, "{steps}: {log:?}");
        deaths += 1;
        if whole {
            break;
        }
    }
    // The stamp goes, the file is written, the unit reloads and is waited for, the stamp comes back.
    assert_eq!(deaths, 6);
}

#[test]
fn a_token_is_never_in_the_main_configuration() {
    let desired = wanted(secrets(1)).on(&Machine::new());
    for path in [render::CONSUL_CONFIGURATION, NOMAD_CONFIGURATION] {
        let content = String::from_utf8(desired.files[path].as_ref().unwrap().content.clone()).unwrap();
        for telltale in telltales(&secrets(1)) {
            assert!(!content.contains(&telltale), "{path}");
        }
    }
}
