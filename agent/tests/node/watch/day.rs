//! A day of a node, in a moment: how often everything is asked, and how often the node wakes up.

use cos_agent::node::watch::{Transition, WatchSpec};

use super::stories::{aim, event, spot};
use super::world::{REBALANCE, SCHEDULED, SPOT, TARGET, World, hook, job, second};

const DAY: u64 = 86_400;

fn asked(world: &World, path: &str) -> u32 {
    world.read(|inner| inner.asked.get(path).copied().unwrap_or(0))
}

#[test]
fn a_quiet_day_costs_what_it_may() {
    let world = World::new();
    world.change(|inner| aim(inner, "InService"));
    world.watch(&WatchSpec::client(), DAY);
    let bounds = [(SPOT, 5), (TARGET, 10), (REBALANCE, 30), (SCHEDULED, 300)];
    for (path, every) in bounds {
        let (count, most) = (asked(&world, path), u32::try_from(DAY / every).unwrap() + 1);
        assert!(
            (most * 99 / 100..=most).contains(&count),
            "{path}: {count}, at most {most}"
        );
    }
    let all: u32 = world.read(|inner| inner.asked.values().sum());
    eprintln!("a quiet day: {all} requests, {} effects", world.effects());
    assert_eq!(world.effects(), 0);
    assert_eq!(asked(&world, "DescribeAutoScalingInstances"), 0);
    // Nothing is written on a day on which nothing happens but the first word of the target.
    let said = world.read(|inner| inner.said.len());
    assert!(said <= 4, "{:?}", world.read(|inner| inner.said.clone()));
}

#[test]
fn a_day_in_no_group_asks_auto_scaling_four_times() {
    let world = World::new();
    world.change(|inner| inner.in_group = false);
    world.watch(&WatchSpec::client(), DAY);
    let asked = asked(&world, "DescribeAutoScalingInstances");
    assert!((4..=5).contains(&asked), "{asked}");
}

#[test]
fn a_busy_day_stays_within_the_same_bounds() {
    let world = World::new();
    world.change(|inner| {
        aim(inner, "InService");
        inner.jobs = vec![job(40), job(80)];
        inner.hooks = vec![
            hook("up", Transition::Launching, 300),
            hook("down", Transition::Terminating, 300),
        ];
        inner
            .documents
            .insert(SCHEDULED, event("system-reboot", 1, "active"));
    });
    world.at(4000, |inner| {
        inner.documents.insert(SCHEDULED, "[]".to_owned());
    });
    for hour in 2..20 {
        world.at(hour * 3600, |inner| {
            aim(inner, "Standby");
            inner.jobs = vec![job(40), job(80)];
        });
        world.at(hour * 3600 + 900, |inner| {
            aim(inner, "InService");
            inner.wait_at("Pending:Wait", Transition::Launching);
        });
        world.at(hour * 3600 + 1800, |inner| inner.metadata_fails = true);
        world.at(hour * 3600 + 2100, |inner| inner.metadata_fails = false);
        world.at(hour * 3600 + 2400, move |inner| {
            inner.documents.insert(
                REBALANCE,
                format!(r#"{{"noticeTime": "{}"}}"#, second(hour * 3600)),
            );
        });
        world.at(hour * 3600 + 2700, |inner| {
            inner.documents.remove(REBALANCE);
        });
    }
    world.at(23 * 3600, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 23 * 3600 + 120));
    });
    world.watch(&WatchSpec::client(), DAY);
    for (path, every) in [(SPOT, 5), (TARGET, 10), (REBALANCE, 30), (SCHEDULED, 300)] {
        let most = u32::try_from(DAY / every).unwrap() + 1;
        assert!(asked(&world, path) <= most, "{path}: {}", asked(&world, path));
    }
    let (completed, expired) = world.read(|inner| (inner.completed.len(), inner.expired));
    assert_eq!((completed, expired), (18, false));
    assert!(world.read(|inner| !inner.nomad_runs && !inner.consul_runs));
    eprintln!(
        "a busy day: {} requests, {} effects, {} lines",
        world.read(|inner| inner.asked.values().sum::<u32>()),
        world.effects(),
        world.read(|inner| inner.said.len())
    );
}
