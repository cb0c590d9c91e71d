//! A node at work is compared with its configuration from time to time; one on its way in or out is left in peace.

use cos_agent::node::config::OnDrift;
use cos_agent::node::reconcile::{Pending, Reconciled};
use cos_agent::node::watch::{WatchSpec, hold_back};

use super::stories::{aim, spot};
use super::world::{SPOT, World, job};

const HOUR: u64 = 3600;

fn drift(world: &World, repaired: &[&str], pending: &[(&str, &str)]) {
    let pending = pending.iter().map(|(unit, change)| Pending {
        unit: (*unit).to_owned(),
        changes: vec![(*change).to_owned()],
    });
    let found = Reconciled {
        repaired: repaired.iter().map(ToString::to_string).collect(),
        pending: pending.collect(),
    };
    world.change(|inner| inner.drift = (Ok(found), 2));
}

fn compared(world: &World) -> Vec<(u64, bool)> {
    world.read(|inner| inner.compared.clone())
}

/// How often a line was said that holds this.
fn said(world: &World, part: &str) -> usize {
    world.read(|inner| inner.said.iter().filter(|line| line.contains(part)).count())
}

#[test]
fn four_times_an_hour_and_nothing_is_said_where_nothing_drifts() {
    let world = World::new();
    world.change(|inner| aim(inner, "InService"));
    world.watch(&WatchSpec::client(), 24 * HOUR);
    let times = compared(&world);
    assert!((95..=96).contains(&times.len()), "{}", times.len());
    assert!(times[0].0 < 900, "{times:?}");
    for pair in times.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!((900..=906).contains(&apart), "{pair:?}");
    }
    assert_eq!(said(&world, "put right"), 0);
}

#[test]
fn what_waits_is_said_once_and_what_was_put_right_each_time() {
    let world = World::new();
    drift(&world, &["reload consul"], &[("nomad", "restart nomad")]);
    world.at(2 * HOUR, |inner| {
        inner.drift = (Ok(Reconciled::default()), 2);
    });
    world.watch(&WatchSpec::client(), 3 * HOUR);
    assert_eq!(said(&world, "put right: reload consul"), 8);
    // It goes with what is said anyway; alone it would be said once.
    assert_eq!(said(&world, "nomad waits for cos-agent apply: restart nomad"), 8);
    assert_eq!(said(&world, "the node is what it should be again"), 1);
    let world = World::new();
    drift(&world, &[], &[("nomad", "restart nomad")]);
    world.watch(&WatchSpec::client(), 2 * HOUR);
    assert_eq!(said(&world, "nomad waits for cos-agent apply: restart nomad"), 1);
}

#[test]
fn a_user_may_have_it_told_only_or_not_at_all() {
    for (how, times, dry) in [
        (OnDrift::Repair, 4, false),
        (OnDrift::Report, 4, true),
        (OnDrift::Ignore, 0, false),
    ] {
        let world = World::new();
        drift(&world, &["reload consul"], &[]);
        let spec = WatchSpec {
            drift: how,
            ..WatchSpec::client()
        };
        world.watch(&spec, HOUR);
        let seen = compared(&world);
        assert_eq!(seen.len(), times, "{how}");
        assert!(seen.iter().all(|(_, told)| *told == dry));
        assert_eq!(said(&world, "could put right"), if dry { 4 } else { 0 });
    }
}

#[test]
fn nobody_changes_a_node_that_comes_or_goes() {
    let world = World::new();
    hold_back(&world.files).unwrap();
    world.change(|inner| {
        inner.ready_at = Some(1200);
        inner.jobs = vec![job(60)];
    });
    let spec = WatchSpec {
        ready_deadline: std::time::Duration::from_secs(2 * HOUR),
        ..WatchSpec::client()
    };
    world.at(2 * HOUR, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 2 * HOUR + 120));
    });
    world.watch(&spec, 4 * HOUR);
    let times: Vec<u64> = compared(&world).iter().map(|(second, _)| *second).collect();
    assert!(!times.is_empty());
    assert!(
        times.iter().all(|second| (1200..2 * HOUR + 5).contains(second)),
        "{times:?}"
    );
}

#[test]
fn one_that_fails_is_told_once_and_one_that_hangs_holds_nothing_up() {
    let world = World::new();
    world.change(|inner| {
        inner.drift = (Err("the metadata service: timeout".to_owned()), 120);
        inner.jobs = vec![job(30)];
    });
    // In the middle of a comparison that takes two minutes.
    let first = {
        let world = World::new();
        world.watch(&WatchSpec::client(), HOUR);
        compared(&world)[0].0
    };
    let notice = first + 900 + 10;
    world.at(notice, move |inner| {
        inner.documents.insert(SPOT, spot("terminate", notice + 120));
    });
    world.watch(&WatchSpec::client(), HOUR);
    assert_eq!(
        said(&world, "the metadata service: timeout"),
        1,
        "{:?}",
        world.read(|inner| inner.said.clone())
    );
    let drained = world.read(|inner| inner.jobs[0].ended.unwrap() / 1000);
    assert!(drained <= notice + 45, "{drained}, notice at {notice}");
}
