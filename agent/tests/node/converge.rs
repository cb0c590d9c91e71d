//! Killed after every change and run again, a node becomes what it should be; then nothing is left to change.

use std::time::Duration;

use cos_agent::node::apply::{Change, Executor, Ports, diff, observe};
use cos_agent::node::config::{self, NodeSpec, Role};
use cos_agent::node::render::{self, CONSUL_CONFIGURATION, DesiredState, Versions};
use cos_agent::node::report::Timeline;
use cos_agent::node::secrets::Fetched;
use cos_agent::node::sources::{Document, InstanceFacts, Origin};
use cos_agent::node::{Applied, Environment, Mode, NodeError, apply_spec};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::machine::{self, Binaries, Machine, Store};
use crate::secrets::{all_roles, everything_secret, secrets};

pub(crate) fn spec(document: &str) -> NodeSpec {
    let document = Document {
        origin: Origin::UserData,
        bytes: document.into(),
    };
    config::resolve(
        &config::read(&[document]).unwrap(),
        &InstanceFacts::sample(),
        None,
    )
    .unwrap()
}

pub(crate) fn consul_server(expect: u32) -> NodeSpec {
    spec(&format!(
        "version: 1\nrole: consul-server\nconsul:\n  bootstrap_expect: {expect}\n  retry_join: [192.0.2.1]\n"
    ))
}

pub(crate) fn nomad_server(expect: u32) -> NodeSpec {
    spec(&format!(
        "version: 1\nrole: nomad-server\nconsul: {{retry_join: [192.0.2.1]}}\nnomad: {{bootstrap_expect: {expect}}}\n"
    ))
}

pub(crate) fn nomad_client(pool: &str) -> NodeSpec {
    spec(&format!(
        "version: 1\nrole: nomad-client\nconsul: {{retry_join: [192.0.2.1]}}\nnomad: {{node_pool: {pool}}}\n"
    ))
}

pub(crate) fn apply(
    machine: &Machine,
    spec: &NodeSpec,
    binaries: &Binaries,
    mode: Mode,
) -> Result<Applied, NodeError> {
    apply_recorded(machine, spec, binaries, mode, &Timeline::new())
}

pub(crate) fn apply_recorded(
    machine: &Machine,
    spec: &NodeSpec,
    binaries: &Binaries,
    mode: Mode,
    timeline: &Timeline,
) -> Result<Applied, NodeError> {
    let environment = Environment {
        files: &machine.files,
        programs: binaries,
        manager: Some(machine),
        consul: machine,
        secrets: &Store::default(),
        deadline: Duration::from_secs(1),
        timeline,
        outlook: None,
        neighbours: None,
    };
    apply_spec(spec, &environment, mode, |_| {})
}

/// What a node should be, and what it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) spec: NodeSpec,
    pub(crate) versions: Versions,
    pub(crate) secrets: Store,
}

impl Wanted {
    pub(crate) fn new(spec: NodeSpec, versions: Versions) -> Self {
        Self {
            spec,
            versions,
            secrets: Store::default(),
        }
    }

    pub(crate) fn on(&self, machine: &Machine) -> DesiredState {
        let secrets = Fetched::fetch(&self.spec, &self.secrets, &machine.files).unwrap();
        render::render(&self.spec, &machine.installed(self.versions), &secrets).unwrap()
    }
}

/// Carries out the first `steps` changes and dies; tells whether that were all.
pub(crate) fn die_after(machine: &Machine, wanted: &Wanted, steps: usize) -> bool {
    let desired = wanted.on(machine);
    let changes = diff(
        &desired,
        &observe(&desired, &machine.files, Some(machine)).unwrap(),
    );
    let ports = Ports {
        files: &machine.files,
        manager: machine,
        consul: machine,
    };
    let executor = Executor::new(ports, Duration::from_secs(1));
    changes
        .0
        .iter()
        .take(steps)
        .for_each(|change| executor.execute(change).unwrap());
    steps >= changes.0.len()
}

pub(crate) fn versions(nomad: (u32, u32, u32)) -> Versions {
    machine::versions((1, 21, 5), nomad)
}

/// Directories and files are what they should be, and each unit runs with them and nothing else.
pub(crate) fn assert_converged(machine: &Machine, desired: &DesiredState, story: &str) {
    for (path, directory) in &desired.directories {
        assert_eq!(
            machine.files.mode(path).unwrap(),
            Some(directory.mode),
            "{path} {story}"
        );
    }
    for (path, file) in &desired.files {
        let content = machine.files.read(path).unwrap();
        assert_eq!(
            content.as_deref(),
            file.as_ref().map(|file| file.content.as_slice()),
            "{path} {story}"
        );
        let mode = file.as_ref().map(|file| file.mode);
        assert_eq!(machine.files.mode(path).unwrap(), mode, "{path} {story}");
    }
    for (unit, wanted) in &desired.units {
        let seen = machine.units.borrow()[unit.name()].clone();
        let running = matches!(wanted, render::DesiredUnit::Running(_));
        assert_eq!(seen.enabled, running, "{unit:?} {story}");
        let with = running.then(|| machine.would_run_with(unit.name()));
        assert_eq!(
            seen.runs_with, with,
            "{unit:?} runs with other content than it should, {story}"
        );
        if let (render::DesiredUnit::Running(Some(with)), Some(read)) = (wanted, &seen.runs_with) {
            let reloaded = with.reloads.iter().flat_map(|reloads| &reloads.files);
            for path in with.files.iter().chain(reloaded) {
                let content = desired.files[path].as_ref().map(|file| file.content.clone());
                assert_eq!(read[path.as_str()], content, "{unit:?} {path} {story}");
            }
        }
    }
}

/// What may happen between the death of one run and the next.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    UnitsCrash,
    Reboot,
}

#[test]
fn killed_after_every_change_the_next_run_converges() {
    let old = versions((1, 7, 7));
    let today = versions((1, 11, 0));
    let plain = |spec| Wanted::new(spec, today);
    let secret = |generation| Wanted {
        spec: everything_secret(),
        versions: today,
        secrets: secrets(generation),
    };
    // From what, to what, and what is wanted after the death: the same, or what it was before.
    let stories: Vec<(&str, Option<Wanted>, Wanted)> = vec![
        ("consul server from nothing", None, plain(consul_server(3))),
        ("nomad server from nothing", None, plain(nomad_server(3))),
        ("nomad client from nothing", None, plain(nomad_client("a"))),
        ("everything secret from nothing", None, secret(1)),
        (
            "more servers",
            Some(plain(nomad_server(3))),
            plain(nomad_server(5)),
        ),
        (
            "another pool",
            Some(plain(nomad_client("a"))),
            plain(nomad_client("b")),
        ),
        (
            "new version",
            Some(Wanted::new(nomad_client("a"), old)),
            plain(nomad_client("a")),
        ),
        (
            "client to server",
            Some(plain(nomad_client("a"))),
            plain(nomad_server(3)),
        ),
        (
            "client to consul server",
            Some(plain(nomad_client("a"))),
            plain(consul_server(3)),
        ),
        (
            "consul server to client",
            Some(plain(consul_server(3))),
            plain(nomad_client("a")),
        ),
        ("new secrets", Some(secret(1)), secret(2)),
        ("encryption switched on", Some(plain(all_roles())), secret(1)),
    ];
    let mut deaths = 0;
    for (story, before, wanted) in &stories {
        for meanwhile in [Meanwhile::Nothing, Meanwhile::UnitsCrash, Meanwhile::Reboot] {
            for back in [false, true] {
                // Going back needs something to go back to.
                let Some(last) = (if back {
                    before.clone()
                } else {
                    Some(wanted.clone())
                }) else {
                    continue;
                };
                for steps in 0.. {
                    let machine = Machine::new();
                    if let Some(before) = before {
                        assert!(die_after(&machine, before, usize::MAX));
                    }
                    let whole = die_after(&machine, wanted, steps);
                    match meanwhile {
                        Meanwhile::Nothing => {}
                        Meanwhile::UnitsCrash => machine.crash_units(),
                        Meanwhile::Reboot => machine.reboot(),
                    }
                    assert!(die_after(&machine, &last, usize::MAX));
                    let desired = last.on(&machine);
                    let story = format!("({story}, died after {steps} changes, {meanwhile:?}, back: {back})");
                    assert_converged(&machine, &desired, &story);
                    let observed = observe(&desired, &machine.files, Some(&machine)).unwrap();
                    assert!(diff(&desired, &observed).0.is_empty(), "{story}");
                    deaths += 1;
                    if whole {
                        break;
                    }
                }
            }
        }
    }
    assert!(deaths > 300, "only {deaths} deaths were tried");
}

#[test]
fn a_second_run_changes_nothing_and_restarts_nothing() {
    let machine = Machine::new();
    let spec = nomad_client("a");
    let first = apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    assert!(!first.changes.0.is_empty());
    let (state, log) = (machine.state(), machine.log.borrow().len());
    let second = apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    assert!(second.changes.0.is_empty(), "{:?}", second.changes);
    assert_eq!(machine.state(), state);
    assert_eq!(machine.log.borrow().len(), log);
}

#[test]
fn after_a_reboot_nothing_is_restarted_that_need_not_be() {
    let machine = Machine::new();
    let spec = nomad_client("a");
    apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    for _ in 0..2 {
        machine.reboot();
        machine.log.borrow_mut().clear();
        let again = apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
        assert!(again.changes.0.is_empty(), "{:?}", again.changes);
    }
    // What changed is still noticed, and a run that died is still made good.
    let other = Wanted::new(nomad_client("b"), versions((1, 11, 0)));
    die_after(&machine, &other, 2);
    machine.reboot();
    apply(&machine, &other.spec, &Binaries::TODAY, Mode::Execute).unwrap();
    assert_converged(&machine, &other.on(&machine), "after a death and a boot");
}

#[test]
fn docker_that_runs_is_left_alone() {
    let machine = Machine::new();
    let spec = nomad_client("a");
    apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    machine.reboot();
    machine.log.borrow_mut().clear();
    apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    assert!(
        !machine.log.borrow().iter().any(|line| line.contains("docker")),
        "{:?}",
        machine.log
    );
}

#[test]
fn an_edited_file_is_put_right_and_its_unit_restarted() {
    let machine = Machine::new();
    let spec = consul_server(3);
    apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    // The unit may have read the edit by now: nobody knows.
    machine
        .files
        .write_atomic(CONSUL_CONFIGURATION, b"{}", 0o640)
        .unwrap();
    machine.crash_units();
    apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
    let desired = Wanted::new(spec, versions((1, 11, 0))).on(&machine);
    assert_converged(&machine, &desired, "after an edit");
}

#[test]
fn a_new_binary_restarts_its_unit_only() {
    let machine = Machine::new();
    apply(&machine, &nomad_server(3), &Binaries::TODAY, Mode::Execute).unwrap();
    machine.log.borrow_mut().clear();
    let newer = Binaries {
        nomad: "1.11.1",
        ..Binaries::TODAY
    };
    apply(&machine, &nomad_server(3), &newer, Mode::Execute).unwrap();
    // The watcher reads the record, which names the versions.
    assert_eq!(
        *machine.log.borrow(),
        ["restart cos-agent-watch", "restart nomad"]
    );
}

#[test]
fn a_pool_on_a_nomad_that_has_none_is_refused_with_both_versions() {
    let old = Binaries {
        nomad: "1.5.6",
        ..Binaries::TODAY
    };
    let error = apply(&Machine::new(), &nomad_client("a"), &old, Mode::Execute).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nomad.node_pool needs Nomad 1.6.0, installed is 1.5.6"
    );
    assert_eq!(error.exit_code(), 2);
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,20}"
}

/// Texts with everything in them that quoting must survive.
fn text() -> impl Strategy<Value = String> {
    r#"[a-zA-Z0-9 ="\\:/_.@äé'#{}$%&\[\]-]{1,30}"#
        .prop_filter("a template", |text| !text.contains("${") && !text.contains("%{"))
}

fn retry_join() -> impl Strategy<Value = Json> {
    let addresses = prop::collection::vec(any::<[u8; 4]>().prop_map(std::net::Ipv4Addr::from), 1..4);
    prop_oneof![
        (text(), text()).prop_map(|(key, value)| json!({"tag_key": key, "tag_value": value})),
        addresses.prop_map(|addresses| json!(addresses)),
    ]
}

/// A document as Terraform's `jsonencode` would write it, absent keys as `null`.
fn document() -> impl Strategy<Value = Json> {
    let role = prop::sample::select(Role::ALL.to_vec());
    let expect = prop::sample::select(vec![1_u32, 3, 5]);
    let meta = prop::collection::btree_map("[a-z][a-z.-]{0,8}", text(), 0..4);
    let names = (
        prop::option::of(name()),
        prop::option::of(name()),
        prop::option::of(name()),
    );
    let recursors = prop::collection::vec(any::<[u8; 4]>().prop_map(std::net::IpAddr::from), 0..3);
    (role, expect, retry_join(), meta, names, recursors, any::<bool>()).prop_map(
        |(role, expect, retry_join, meta, (datacenter, region, pool), recursors, privileged)| {
            let mut document = json!({
                "version": 1, "role": role, "datacenter": datacenter,
                "consul": {"datacenter": datacenter, "retry_join": retry_join, "recursors": recursors},
                "ecr": {"registries": [{"region": "us-east-1"}]},
            });
            match role {
                Role::ConsulClient => {}
                Role::ConsulServer => document["consul"]["bootstrap_expect"] = json!(expect),
                Role::NomadServer => {
                    document["nomad"] = json!({"bootstrap_expect": expect, "region": region});
                }
                Role::NomadClient => {
                    document["nomad"] = json!({"region": region, "node_pool": pool, "meta": meta});
                    document["docker"] = json!({"privileged": privileged});
                }
            }
            document
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn json_says_what_was_meant_and_rendering_repeats_itself(document in document()) {
        let wanted = Wanted::new(spec(&document.to_string()), versions((1, 11, 0)));
        let machine = Machine::new();
        let desired = wanted.on(&machine);
        prop_assert_eq!(&desired, &wanted.on(&machine));
        let consul = desired.files[CONSUL_CONFIGURATION].as_ref().unwrap();
        let consul: Json = serde_json::from_slice(&consul.content).unwrap();
        prop_assert_eq!(&consul["bootstrap_expect"], &document["consul"]["bootstrap_expect"]);
        if let Some(Some(hcl)) = desired.files.get(render::NOMAD_CONFIGURATION) {
            let read: Json = hcl::from_slice(&hcl.content).unwrap();
            for (key, value) in document["nomad"]["meta"].as_object().into_iter().flatten() {
                prop_assert_eq!(&read["client"]["meta"][key.as_str()], value);
            }
        }
    }

    #[test]
    fn after_an_apply_nothing_differs(document in document()) {
        let machine = Machine::new();
        let wanted = Wanted::new(spec(&document.to_string()), versions((1, 11, 0)));
        let desired = wanted.on(&machine);
        prop_assert!(die_after(&machine, &wanted, usize::MAX));
        let observed = observe(&desired, &machine.files, Some(&machine)).unwrap();
        prop_assert!(diff(&desired, &observed).0.is_empty());
    }

    /// Files are written several at a time: a run that dies leaves any of them written and any not.
    #[test]
    fn with_any_files_written_and_any_not_the_next_run_converges(mask in any::<u32>(), back in any::<bool>()) {
        let machine = Machine::new();
        let wanted = |pool| Wanted::new(nomad_client(pool), versions((1, 11, 0)));
        let (before, after) = (wanted("a"), wanted("b"));
        if back {
            prop_assert!(die_after(&machine, &before, usize::MAX));
        }
        let desired = after.on(&machine);
        let changes = diff(&desired, &observe(&desired, &machine.files, Some(&machine)).unwrap());
        let ports = Ports { files: &machine.files, manager: &machine, consul: &machine };
        let executor = Executor::new(ports, Duration::from_secs(1));
        let is_file = |change: &&Change| matches!(change, Change::Write { .. } | Change::Remove { .. });
        // What comes before the files, and then some of them.
        let first = changes.0.iter().position(|change| is_file(&change)).unwrap();
        changes.0[..first].iter().for_each(|change| executor.execute(change).unwrap());
        for (index, change) in changes.0.iter().filter(is_file).enumerate() {
            if mask & (1 << index) != 0 {
                executor.execute(change).unwrap();
            }
        }
        machine.crash_units();
        let last = if back { &before } else { &after };
        prop_assert!(die_after(&machine, last, usize::MAX));
        assert_converged(&machine, &last.on(&machine), "some files written");
    }
}
