//! What is put right without an operator costs no unit a restart, and what is left is told.

use std::time::Duration;

use cos_agent::node::apply::{Change, Executor, Ports, diff, observe};
use cos_agent::node::reconcile::{Pending, spare};
use cos_agent::node::render::{
    CONSUL_CONFIGURATION, CONSUL_KEY, DOCKER_CLIENT_CONFIGURATION, NOMAD_KEY, NOMAD_TOKENS,
};

use crate::converge::{Wanted, assert_converged, die_after};
use crate::machine::{self, Machine, Store};
use crate::secrets::{everything_secret, secrets};

fn wanted(secrets: Store) -> Wanted {
    Wanted {
        spec: everything_secret(),
        versions: machine::versions((1, 21, 5), (1, 11, 0)),
        secrets,
    }
}

/// A machine that was applied with the first secrets.
fn applied() -> Machine {
    let machine = Machine::new();
    assert!(die_after(&machine, &wanted(secrets(1)), usize::MAX));
    machine.log.borrow_mut().clear();
    machine
}

/// Carries out what costs nothing; tells which files were written, and what was left.
fn reconcile(machine: &Machine, wanted: &Wanted) -> (Vec<String>, Vec<Pending>) {
    let mut desired = wanted.on(machine);
    let observed = observe(&desired, &machine.files, Some(machine)).unwrap();
    let pending = spare(&mut desired, &observed);
    let changes = diff(&desired, &observed);
    let ports = Ports {
        files: &machine.files,
        manager: machine,
        consul: machine,
    };
    let executor = Executor::new(ports, Duration::from_secs(1));
    let mut written = Vec::new();
    for change in &changes.0 {
        executor.execute(change).unwrap();
        if let Change::Write { path, .. } = change {
            written.push(path.clone());
        }
    }
    let again = diff(
        &desired,
        &observe(&desired, &machine.files, Some(machine)).unwrap(),
    );
    assert!(again.0.is_empty(), "{again:?}");
    (written, pending)
}

fn rotated(names: &[&'static str]) -> Store {
    let (mut store, new) = (secrets(1), secrets(2));
    for name in names {
        store.parameters.insert(name, new.parameters[name].clone());
    }
    store
}

#[test]
fn new_keys_reach_both_products_without_a_restart() {
    let machine = applied();
    let wanted = wanted(rotated(&["/cos/consul/key", "/cos/nomad/key"]));
    let (written, pending) = reconcile(&machine, &wanted);
    assert_eq!(written, [CONSUL_KEY, NOMAD_KEY]);
    assert!(pending.is_empty(), "{pending:?}");
    assert_eq!(*machine.log.borrow(), ["reload consul", "reload nomad"]);
    assert_converged(&machine, &wanted.on(&machine), "after new keys");
}

#[test]
fn what_needs_a_restart_is_told_and_the_rest_is_done() {
    // Nomad reads its token for Consul at its start, so its new key waits too; Consul's does not.
    let machine = applied();
    let wanted = wanted(rotated(&[
        "/cos/consul/key",
        "/cos/nomad/key",
        "/cos/nomad/consul",
    ]));
    let before = machine.files.read(NOMAD_KEY).unwrap();
    let (written, pending) = reconcile(&machine, &wanted);
    assert_eq!(written, [CONSUL_KEY]);
    assert_eq!(*machine.log.borrow(), ["reload consul"]);
    assert_eq!(machine.files.read(NOMAD_KEY).unwrap(), before);
    let [left] = &pending[..] else {
        panic!("{pending:?}");
    };
    assert_eq!(left.unit, "nomad");
    let told = left.changes.join("; ");
    assert!(
        told.contains(&format!("write {NOMAD_KEY}")) && told.contains("restart nomad"),
        "{told}"
    );
    // An apply does what is left.
    assert!(die_after(&machine, &wanted, usize::MAX));
    assert_eq!(*machine.log.borrow(), ["reload consul", "restart nomad"]);
    assert_converged(&machine, &wanted.on(&machine), "after an apply");
}

#[test]
fn a_token_that_is_read_at_the_start_is_left_to_an_operator() {
    let machine = applied();
    let wanted = wanted(rotated(&["/cos/nomad/consul"]));
    let before = machine.files.read(NOMAD_TOKENS).unwrap();
    let (written, pending) = reconcile(&machine, &wanted);
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(pending.len(), 1);
    assert_eq!(machine.files.read(NOMAD_TOKENS).unwrap(), before);
    assert!(machine.log.borrow().is_empty());
}

#[test]
fn a_configuration_that_somebody_edited_is_told_and_what_nobody_reads_at_its_start_is_put_right() {
    let machine = applied();
    let wanted = wanted(secrets(1));
    machine
        .files
        .write_atomic(DOCKER_CLIENT_CONFIGURATION, b"{}", 0o644)
        .unwrap();
    machine
        .files
        .write_atomic(CONSUL_CONFIGURATION, b"{}", 0o640)
        .unwrap();
    let (written, pending) = reconcile(&machine, &wanted);
    assert_eq!(written, [DOCKER_CLIENT_CONFIGURATION]);
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].unit, "consul");
    assert_eq!(machine.files.read(CONSUL_CONFIGURATION).unwrap().unwrap(), b"{}");
    assert!(machine.log.borrow().is_empty());
}

#[test]
fn a_unit_that_somebody_stopped_stays_so_and_is_told() {
    let machine = applied();
    machine.units.borrow_mut().get_mut("consul").unwrap().runs_with = None;
    let (written, pending) = reconcile(&machine, &wanted(secrets(1)));
    assert!(written.is_empty(), "{written:?}");
    let units: Vec<&str> = pending.iter().map(|pending| pending.unit.as_str()).collect();
    assert_eq!(units, ["consul"]);
    assert!(machine.log.borrow().is_empty());
}
