//! What is started, in which order, and what is told of units that do not come up.

use std::net::SocketAddr;
use std::time::Duration;

use cos_agent::node::config::NodeSpec;
use cos_agent::node::render::RECORD;
use cos_agent::node::report::Timeline;
use cos_agent::node::watch::Journal;
use cos_agent::node::{Environment, Mode, Neighbours, apply_spec};

use crate::converge::{
    Wanted, apply, assert_converged, consul_server, die_after, nomad_client, nomad_server, spec, versions,
};
use crate::machine::{self, Binaries, Machine, Store};

#[test]
fn docker_and_consul_are_begun_before_nomad() {
    let machine = Machine::new();
    apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap();
    let log = machine.log.borrow();
    let starts: Vec<&str> = log
        .iter()
        .filter_map(|line| line.strip_prefix("start "))
        .collect();
    assert_eq!(
        starts,
        ["cos-agent-watch", "consul", "containerd", "docker", "nomad"]
    );
}

#[test]
fn a_new_node_is_marked_before_its_record_says_that_it_is_one() {
    let machine = Machine::new();
    let journal = Journal::new(&machine.files);
    for steps in 0.. {
        let done = die_after(
            &machine,
            &Wanted::new(nomad_client("a"), versions((1, 11, 0))),
            steps,
        );
        if machine.files.mode(RECORD).unwrap().is_some() {
            assert!(journal.is_arriving().unwrap(), "after {steps} steps");
        }
        if done {
            break;
        }
    }
    // It has proven itself since, and need not again.
    journal.set_arriving(false).unwrap();
    apply(&machine, &nomad_client("b"), &Binaries::TODAY, Mode::Execute).unwrap();
    assert!(!journal.is_arriving().unwrap());
}

#[test]
fn only_a_node_that_somebody_watches_has_to_prove_itself() {
    let client = "version: 1\nrole: nomad-client\nconsul: {retry_join: [192.0.2.1]}\n";
    for (spec, watched) in [
        (spec(client), true),
        (nomad_server(3), true),
        (spec(&format!("{client}watch: {{enabled: false}}\n")), false),
    ] {
        let machine = Machine::new();
        apply(&machine, &spec, &Binaries::TODAY, Mode::Execute).unwrap();
        assert_eq!(Journal::new(&machine.files).is_arriving().unwrap(), watched);
        let start = "start cos-agent-watch".to_owned();
        assert_eq!(machine.log.borrow().contains(&start), watched);
    }
}

/// A network in which another server of both products answers.
struct Neighbour;

impl Neighbour {
    fn place() -> Vec<SocketAddr> {
        vec!["192.0.2.9:8300".parse().unwrap()]
    }
}

impl Neighbours for Neighbour {
    fn consul_servers(&self, _: &NodeSpec) -> Result<Vec<SocketAddr>, String> {
        Ok(Self::place())
    }

    fn nomad_servers(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(Self::place())
    }

    fn first_that_answers(&self, addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
        addresses.into_iter().next()
    }
}

#[test]
fn a_server_begins_no_second_cluster() {
    for (alone, three, unit) in [
        (consul_server(1), consul_server(3), "consul"),
        (nomad_server(1), nomad_server(3), "nomad"),
    ] {
        let machine = Machine::new();
        let apply = |spec: &NodeSpec| {
            let environment = Environment {
                neighbours: Some(&Neighbour),
                files: &machine.files,
                programs: &Binaries::TODAY,
                manager: Some(&machine),
                consul: &machine,
                secrets: &Store::default(),
                deadline: Duration::from_secs(1),
                timeline: &Timeline::new(),
                outlook: None,
            };
            apply_spec(spec, &environment, Mode::Execute, |_| {})
        };
        let error = apply(&alone).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{unit} would begin a second cluster: a server answers at 192.0.2.9, and {unit}.bootstrap_expect is 1"
            )
        );
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .hint()
                .unwrap()
                .contains(&format!("{unit}.bootstrap_expect"))
        );
        // Nor does the next boot start it.
        assert_eq!(machine.units.borrow()[unit], machine::Unit::default());
        assert!(!machine.log.borrow().contains(&format!("start {unit}")));
        apply(&three).unwrap();
        assert!(machine.log.borrow().contains(&format!("start {unit}")));
    }
}

#[test]
fn a_unit_that_fails_is_named_and_nomad_waits_for_it() {
    let machine = Machine::new();
    machine.broken.borrow_mut().push("docker");
    let error = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap_err();
    assert_eq!(error.to_string(), "docker failed: failed, result exit-code");
    assert_eq!(error.exit_code(), 6);
    assert!(error.hint().unwrap().contains("journalctl --unit docker"));
    assert!(!machine.log.borrow().contains(&"start nomad".to_owned()));
    // What was wrong is put right, and the next run goes on from there.
    machine.broken.borrow_mut().clear();
    apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap();
    let desired = Wanted::new(nomad_client("a"), versions((1, 11, 0))).on(&machine);
    assert_converged(&machine, &desired, "after a failure");
}

#[test]
fn a_unit_that_never_comes_up_is_waited_for_by_the_next_run_too() {
    let machine = Machine::new();
    machine.restless.borrow_mut().push("docker");
    for _ in 0..2 {
        let error = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap_err();
        assert_eq!(
            error.to_string(),
            "docker does not do its work (it is still starting: auto-restart, result exit-code), 1 s after its \
             start was asked for"
        );
        assert!(!machine.log.borrow().contains(&"start nomad".to_owned()));
    }
    machine.restless.borrow_mut().clear();
    machine.log.borrow_mut().clear();
    apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap();
    assert_eq!(*machine.log.borrow(), ["start nomad"]);
}

#[test]
fn a_consul_that_does_not_answer_ends_the_wait_at_its_deadline() {
    let machine = Machine::new();
    machine.deaf.set(true);
    let error = apply(&machine, &consul_server(3), &Binaries::TODAY, Mode::Execute).unwrap_err();
    assert_eq!(
        error.to_string(),
        "consul does not do its work (nobody listens), 1 s after its start was asked for"
    );
}

#[test]
fn a_missing_credential_helper_is_told() {
    let machine = Machine::new();
    let told = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::DryRun).unwrap();
    assert_eq!(
        told.notes,
        ["docker-credential-ecr-login is not installed: images cannot be pulled from ECR"]
    );
    machine
        .files
        .write_atomic("/usr/bin/docker-credential-ecr-login", b"", 0o755)
        .unwrap();
    let told = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::DryRun).unwrap();
    assert!(told.notes.is_empty());
}

#[test]
fn the_start_of_consul_and_docker_is_asked_before_definitions_are_read() {
    let changes = apply(
        &Machine::new(),
        &nomad_client("a"),
        &Binaries::TODAY,
        Mode::DryRun,
    )
    .unwrap()
    .changes;
    let told: Vec<String> = changes.0.iter().map(ToString::to_string).collect();
    let place = |words: &str| told.iter().position(|line| line == words).unwrap();
    let reload = place("reload the service manager's definitions");
    assert!(place("start consul") < reload && place("start docker") < reload);
    // Nomad has a definition of its own, and needs both.
    assert!(reload < place("wait for consul") && place("wait for docker") < place("start nomad"));
    assert!(told.iter().all(|line| !line.starts_with("write")
        || line < &told[place("start consul")]
        || place(line) < place("start consul")));
}
