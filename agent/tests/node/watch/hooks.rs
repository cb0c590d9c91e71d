//! Stories of lifecycle hooks and of servers: what is waited for, how long, and what the hook is told.

use cos_agent::node::watch::{ActionResult, Transition, WatchSpec, hold_back};

use super::stories::{aim, log, said, spot};
use super::world::{SPOT, World, hook, job, servers};

#[test]
fn termination_is_held_by_heartbeats_until_the_jobs_are_away() {
    let world = World::new();
    world.change(|inner| {
        inner.jobs = vec![job(400)];
        inner.hooks = vec![hook("down", Transition::Terminating, 120)];
    });
    world.at(100, |inner| {
        aim(inner, "Terminated");
        inner.wait_at("Terminating:Wait", Transition::Terminating);
    });
    world.watch(&WatchSpec::client(), 700);
    assert_eq!(
        log(&world),
        [
            " 100 drain 900",
            " 100 heartbeat down",
            " 160 heartbeat down",
            " 220 heartbeat down",
            " 280 heartbeat down",
            " 340 heartbeat down",
            " 400 heartbeat down",
            " 460 heartbeat down",
            " 500 stop nomad",
            " 500 consul leaves",
            " 500 complete down Continue",
        ]
    );
    assert!(!world.read(|inner| inner.expired));
}

#[test]
fn a_hook_that_comes_late_is_waited_for_and_one_of_somebody_else_is_left_alone() {
    let world = World::new();
    world.change(|inner| inner.hooks = vec![hook("down", Transition::Terminating, 120)]);
    world.at(100, |inner| {
        aim(inner, "Terminated");
        "Terminating".clone_into(&mut inner.state);
    });
    world.at(107, |inner| {
        inner.wait_at("Terminating:Wait", Transition::Terminating);
    });
    world.watch(&WatchSpec::client(), 200);
    assert_eq!(world.deeds().last().unwrap(), "complete down Continue");

    let world = World::new();
    world.change(|inner| {
        inner.hooks = vec![
            hook("down", Transition::Terminating, 120),
            hook("lambda", Transition::Terminating, 120),
        ];
    });
    world.at(100, |inner| {
        aim(inner, "Terminated");
        inner.wait_at("Terminating:Wait", Transition::Terminating);
    });
    world.watch(&WatchSpec::client(), 200);
    assert_eq!(world.deeds(), ["drain 900", "stop nomad", "consul leaves"]);
    assert!(said(&world, "several hooks"));
}

#[test]
fn a_shorter_notice_shortens_a_drain_that_is_under_way() {
    let world = World::new();
    world.change(|inner| inner.jobs = vec![job(5000)]);
    world.at(100, |inner| aim(inner, "Terminated"));
    world.at(200, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 320));
    });
    // One that leaves more time changes nothing.
    world.at(210, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 900));
    });
    world.watch(&WatchSpec::client(), 400);
    assert_eq!(
        world.deeds(),
        ["drain 900", "drain 105", "stop nomad", "consul leaves"]
    );
}

#[test]
fn standby_drains_and_the_way_back_goes_through_the_gate_and_the_hook() {
    let world = World::new();
    world.change(|inner| {
        inner.jobs = vec![job(10)];
        inner.hooks = vec![hook("up", Transition::Launching, 60)];
        aim(inner, "InService");
    });
    world.at(100, |inner| aim(inner, "Standby"));
    world.at(300, |inner| {
        aim(inner, "InService");
        inner.wait_at("Pending:Wait", Transition::Launching);
        inner.ready_at = Some(350);
    });
    world.watch(&WatchSpec::client(), 500);
    assert_eq!(
        log(&world),
        [
            " 100 drain 900",
            " 300 heartbeat up",
            " 300 end drain",
            " 330 heartbeat up",
            " 351 bring back",
            " 351 complete up Continue",
        ]
    );
}

#[test]
fn a_new_node_takes_jobs_only_when_it_is_ready() {
    let world = World::new();
    hold_back(&world.files).unwrap();
    world.change(|inner| {
        inner.nomad_runs = false;
        inner.ready_at = Some(70);
        inner.hooks = vec![hook("up", Transition::Launching, 60)];
        inner.wait_at("Pending:Wait", Transition::Launching);
    });
    world.at(20, |inner| inner.nomad_runs = true);
    world.watch(&WatchSpec::client(), 200);
    let deeds = world.deeds();
    assert_eq!(
        deeds,
        [
            "heartbeat up",
            "take out",
            "heartbeat up",
            "heartbeat up",
            "bring back",
            "complete up Continue"
        ]
    );
    assert!(!world.journal().is_arriving().unwrap());
    assert!(said(&world, "complete the hook: CONTINUE") && said(&world, "the node is ready"));
}

#[test]
fn a_node_that_cannot_become_ready_is_abandoned_with_the_reason() {
    for hopeless in [true, false] {
        let world = World::new();
        hold_back(&world.files).unwrap();
        world.change(|inner| {
            inner.hopeless = hopeless;
            inner.ready_at = None;
            inner.hooks = vec![hook("up", Transition::Launching, 600)];
            inner.wait_at("Pending:Wait", Transition::Launching);
        });
        world.watch(&WatchSpec::client(), 500);
        let completed = world.read(|inner| inner.completed.clone());
        assert_eq!(completed, [("up".to_owned(), ActionResult::Abandon)]);
        let why = if hopeless {
            "the disk is not there"
        } else {
            "not within 5m: consul-leader: none"
        };
        let abandoned = format!("complete the hook: ABANDON until 2026-01-01T16:39:30Z (not ready: {why})");
        assert!(
            said(&world, &abandoned),
            "{:?}",
            world.read(|inner| inner.said.clone())
        );
        assert!(!world.read(|inner| inner.eligible));
        let last = log(&world).last().unwrap().clone();
        assert!(last.ends_with("complete up Abandon"), "{last}");
    }
}

#[test]
fn a_warm_node_stays_out_until_it_is_called() {
    let world = World::new();
    world.change(|inner| {
        aim(inner, "Warmed:Running");
        inner.nomad_runs = false;
        inner.consul_runs = false;
        inner.hooks = vec![hook("up", Transition::Launching, 300)];
        inner.wait_at("Warmed:Pending:Wait", Transition::Launching);
    });
    world.at(500, |inner| {
        aim(inner, "InService");
        inner.wait_at("Pending:Wait", Transition::Launching);
    });
    world.watch(&WatchSpec::client(), 600);
    assert_eq!(
        world.deeds(),
        [
            "heartbeat up",
            "complete up Continue",
            "heartbeat up",
            "start consul",
            "start nomad",
            "take out",
            "bring back",
            "complete up Continue"
        ]
    );
}

#[test]
fn a_server_waits_for_its_replacement_and_then_leaves() {
    let world = World::new();
    let spec = WatchSpec {
        nomad_client: false,
        nomad_server: Some(3),
        consul_server: Some(3),
        ..WatchSpec::client()
    };
    world.change(|inner| {
        inner.raft = Some(servers(&[true, true, false]));
        inner.hooks = vec![hook("down", Transition::Terminating, 120)];
    });
    world.at(100, |inner| {
        aim(inner, "Terminated");
        inner.wait_at("Terminating:Wait", Transition::Terminating);
    });
    world.at(400, |inner| {
        inner.raft = Some(servers(&[true, true, false, true]));
    });
    world.watch(&spec, 600);
    let deeds = world.deeds();
    let rest: Vec<&String> = deeds
        .iter()
        .filter(|deed| !deed.starts_with("heartbeat"))
        .collect();
    assert_eq!(rest, ["signal nomad", "consul leaves", "complete down Continue"]);
    assert!(said(&world, "1 of 2 voters are healthy, 2 must be"));
    assert!(!world.read(|inner| inner.expired));
}

#[test]
fn a_server_that_would_take_the_quorum_along_stays_a_member_and_says_so() {
    let world = World::new();
    let spec = WatchSpec {
        nomad_client: false,
        consul_server: Some(3),
        ..WatchSpec::client()
    };
    world.change(|inner| {
        inner.raft = Some(servers(&[true, true, false]));
        inner.hooks = vec![hook("down", Transition::Terminating, 300)];
    });
    world.at(100, |inner| {
        aim(inner, "Terminated");
        inner.wait_at("Terminating:Wait", Transition::Terminating);
    });
    world.watch(&spec, 4000);
    assert_eq!(world.read(|inner| inner.completed.len()), 1);
    assert!(world.read(|inner| inner.consul_runs));
    assert!(said(
        &world,
        "it stays a member of Consul: without this server 1 of 2 voters are healthy"
    ));
    // Half an hour of patience, then the hook goes on.
    assert!(
        log(&world).last().unwrap().starts_with("1900 complete"),
        "{:?}",
        log(&world).last()
    );
}
