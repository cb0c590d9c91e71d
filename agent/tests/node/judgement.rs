//! When the products judge what is written for them, and what happens if they refuse it.

use cos_agent::node::Mode;
use cos_agent::node::report::{Decision, Timeline};

use crate::converge::{Wanted, apply, apply_recorded, assert_converged, nomad_client, versions};
use crate::machine::{Binaries, Machine};

#[test]
fn a_dry_run_changes_nothing() {
    let machine = Machine::new();
    let before = machine.state();
    let told = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::DryRun).unwrap();
    assert!(!told.executed && !told.changes.0.is_empty());
    assert_eq!(machine.state(), before);
    let done = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap();
    assert_eq!(done.changes, told.changes);
}

#[test]
fn what_the_products_refuse_changes_nothing() {
    let machine = Machine::new();
    apply(&machine, &nomad_client("good"), &Binaries::TODAY, Mode::Execute).unwrap();
    let before = machine.state();
    let strict = Binaries {
        refuses: Some("bad-pool"),
        ..Binaries::TODAY
    };
    let error = apply(&machine, &nomad_client("bad-pool"), &strict, Mode::Execute).unwrap_err();
    assert!(error.to_string().contains("Nomad refuses"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert_eq!(machine.state(), before);
}

/// An operator's file that Consul does not take.
fn typo(machine: &Machine) -> Binaries {
    machine
        .files
        .write_atomic("/opt/consul/config/zz.json", b"{\"typo\": 1}", 0o640)
        .unwrap();
    Binaries {
        refuses: Some("typo"),
        ..Binaries::TODAY
    }
}

#[test]
fn an_operators_file_is_judged_together_with_ours() {
    let machine = Machine::new();
    apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap();
    let strict = typo(&machine);
    let before = machine.state();
    let error = apply(&machine, &nomad_client("b"), &strict, Mode::Execute).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("Consul refuses the configuration of this node; nothing was changed"),
        "{error}"
    );
    assert_eq!(machine.state(), before);
}

#[test]
fn what_does_not_run_yet_judges_by_its_start_and_is_stopped_if_it_refuses() {
    for how in ["fails", "is started again and again"] {
        let machine = Machine::new();
        let strict = typo(&machine);
        match how {
            "fails" => machine.broken.borrow_mut().push("consul"),
            _ => machine.restless.borrow_mut().push("consul"),
        }
        let timeline = Timeline::new();
        let error =
            apply_recorded(&machine, &nomad_client("a"), &strict, Mode::Execute, &timeline).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Consul refuses the configuration of this node; it was stopped again and does not start at boot"
        );
        assert_eq!(error.exit_code(), 2);
        let consul = machine.units.borrow()["consul"].clone();
        assert!(!consul.enabled && consul.runs_with.is_none(), "{how}: {consul:?}");
        assert!(!machine.log.borrow().contains(&"start nomad".to_owned()));
        let phases = timeline.phases();
        assert!(
            phases.iter().any(|phase| phase.name == "consul" && phase.failed),
            "{phases:?}"
        );
        // The typo is taken out, and the node comes up.
        machine.files.remove("/opt/consul/config/zz.json").unwrap();
        machine.broken.borrow_mut().clear();
        machine.restless.borrow_mut().clear();
        apply(&machine, &nomad_client("a"), &strict, Mode::Execute).unwrap();
        let desired = Wanted::new(nomad_client("a"), versions((1, 11, 0))).on(&machine);
        assert_converged(&machine, &desired, how);
    }
}

#[test]
fn a_unit_that_fails_with_a_good_configuration_is_waited_for() {
    let machine = Machine::new();
    machine.restless.borrow_mut().push("nomad");
    let error = apply(&machine, &nomad_client("a"), &Binaries::TODAY, Mode::Execute).unwrap_err();
    assert!(
        error.to_string().starts_with("nomad does not do its work"),
        "{error}"
    );
    assert!(machine.units.borrow()["nomad"].runs_with.is_some());
}

/// What was decided about when Consul and Nomad judge, in one word each.
fn judgements(timeline: &Timeline) -> Vec<String> {
    let about = |decision: &Decision| decision.subject.ends_with("judges its configuration");
    let decisions = timeline.decisions();
    decisions
        .iter()
        .filter(|decision| about(decision))
        .map(|decision| decision.choice.clone())
        .collect()
}

#[test]
fn nothing_that_runs_is_restarted_before_its_product_judged() {
    let machine = Machine::new();
    let run = |pool: &str| {
        let timeline = Timeline::new();
        apply_recorded(
            &machine,
            &nomad_client(pool),
            &Binaries::TODAY,
            Mode::Execute,
            &timeline,
        )
        .unwrap();
        judgements(&timeline)
    };
    for product in ["consul", "nomad"] {
        let binary = format!("/opt/{product}/bin/{product}");
        machine.files.write_atomic(binary, b"binary", 0o755).unwrap();
    }
    assert_eq!(run("a"), ["by its start", "by its start"]);
    // Consul accepted its configuration by starting with it; Nomad's is another now.
    assert_eq!(run("b"), ["not again", "before any change"]);
    // What a unit was started with is forgotten: it must be restarted, and what it took is taken again.
    machine.files.remove("/run").unwrap();
    assert_eq!(run("b"), ["not again", "not again"]);
    assert_eq!(run("c"), ["not again", "before any change"]);
}
