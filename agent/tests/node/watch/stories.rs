//! What the watcher does when it is told something: each story with its deeds, in order and with their seconds.

use std::time::Duration;

use cos_agent::node::config::OnRebalance;
use cos_agent::node::watch::{Posture, Request, Shutdown, Timestamp, WatchSpec};

use super::world::{
    Api, Inner, REBALANCE, SCHEDULED, SPOT, START, TARGET, World, go_down, job, second, stop_service,
    system_job,
};

pub(super) fn spot(action: &str, at: u64) -> String {
    format!(r#"{{"action": "{action}", "time": "{}"}}"#, second(at))
}

pub(super) fn event(code: &str, day: u32, state: &str) -> String {
    format!(
        r#"[{{"NotBefore": "{day} Jan 2026 01:00:00 GMT", "Code": "{code}", "EventId": "instance-event-1",
        "NotAfter": "{day} Jan 2026 03:00:00 GMT", "State": "{state}"}}]"#
    )
}

pub(super) fn aim(inner: &mut Inner, target: &str) {
    inner.documents.insert(TARGET, target.to_owned());
}

pub(super) fn log(world: &World) -> Vec<String> {
    world.read(|inner| inner.log.clone())
}

pub(super) fn said(world: &World, part: &str) -> bool {
    world.read(|inner| inner.said.iter().any(|line| line.contains(part)))
}

pub(super) fn timestamp(seconds: u64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1000)
}

pub(super) fn request(posture: Posture, since: u64, deadline: u64) -> Request {
    Request {
        posture,
        since: timestamp(since),
        deadline: timestamp(deadline),
        ignore_system_jobs: false,
        reason: "disk swap".to_owned(),
    }
}

#[test]
fn a_spot_notice_drains_within_its_time_and_leaves() {
    let world = World::new();
    world.change(|inner| inner.jobs = vec![job(20), job(40), system_job()]);
    world.at(60, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 180));
    });
    world.watch(&WatchSpec::client(), 200);
    // 105 s are left less the 15 s that the rest takes; the system job ends 3 s after the others.
    assert_eq!(
        log(&world),
        ["  60 drain 105", " 104 stop nomad", " 104 consul leaves"]
    );
    assert!(said(
        &world,
        "notice: spot interruption: terminate at 2026-01-01T00:03:00Z"
    ));
    assert!(said(&world, "the node is gone"));
}

#[test]
fn a_spot_notice_that_leaves_too_little_time_stops_what_is_left() {
    let world = World::new();
    world.change(|inner| inner.jobs = vec![job(900)]);
    world.at(60, |inner| {
        inner.documents.insert(SPOT, spot("terminate", 180));
    });
    world.watch(&WatchSpec::client(), 200);
    assert_eq!(
        log(&world),
        ["  60 drain 105", " 170 stop nomad", " 170 consul leaves"]
    );
    // Nomad stops what is left at the deadline, five seconds before.
    assert_eq!(world.read(|inner| inner.jobs[0].ended), Some(170_000));
}

#[test]
fn a_hibernation_is_over_too_soon_for_a_drain() {
    let world = World::new();
    world.at(60, |inner| {
        inner.documents.insert(SPOT, spot("hibernate", 60));
    });
    world.at(600, |inner| {
        inner.documents.remove(SPOT);
    });
    world.watch(&WatchSpec::client(), 700);
    assert_eq!(log(&world), ["  60 take out", " 600 bring back"]);
}

#[test]
fn a_recommendation_does_what_the_user_said() {
    for (what, deeds) in [
        (OnRebalance::Ignore, vec![]),
        (OnRebalance::Ineligible, vec!["take out", "bring back"]),
        (OnRebalance::Drain, vec!["drain 900", "bring back"]),
    ] {
        let world = World::new();
        world.at(100, |inner| {
            inner
                .documents
                .insert(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, second(100)));
        });
        world.at(300, |inner| {
            inner.documents.remove(REBALANCE);
        });
        let spec = WatchSpec {
            rebalance: what,
            ..WatchSpec::client()
        };
        world.watch(&spec, 400);
        assert_eq!(world.deeds(), deeds, "{what:?}");
        assert!(world.read(|inner| inner.eligible));
    }
}

#[test]
fn a_scheduled_event_drains_some_minutes_before_and_lets_go_when_it_is_cancelled() {
    let world = World::new();
    world.change(|inner| {
        inner.jobs = vec![job(30)];
        // At 01:00, an hour after the beginning.
        inner
            .documents
            .insert(SCHEDULED, event("instance-retirement", 1, "active"));
    });
    world.at(3000, |inner| {
        inner
            .documents
            .insert(SCHEDULED, event("instance-retirement", 1, "canceled"));
    });
    world.watch(&WatchSpec::client(), 4000);
    assert_eq!(log(&world), ["2700 drain 885", "3000 bring back"]);
    assert!(said(&world, "over: scheduled event instance-event-1"));
}

#[test]
fn a_node_that_its_operator_took_out_stays_out() {
    let world = World::new();
    world.change(|inner| inner.eligible = false);
    world.at(100, |inner| {
        inner
            .documents
            .insert(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, second(100)));
    });
    world.at(300, |inner| {
        inner.documents.remove(REBALANCE);
    });
    world.watch(&WatchSpec::client(), 400);
    assert!(!world.read(|inner| inner.eligible));
}

#[test]
fn where_the_api_refuses_the_node_drains_itself() {
    for api in [Api::Denies, Api::Fails] {
        let world = World::new();
        world.change(|inner| {
            inner.api = api;
            inner.jobs = vec![job(30)];
        });
        world.at(100, |inner| {
            inner.documents.insert(SPOT, spot("terminate", 220));
        });
        world.watch(&WatchSpec::client(), 300);
        assert_eq!(world.deeds(), ["signal nomad", "consul leaves"], "{api:?}");
        assert!(world.read(|inner| inner.jobs[0].ended.is_some_and(|end| end < 205_000)));
        // Told not to, it waits for the deadline.
        let world = World::new();
        world.change(|inner| {
            inner.api = api;
            inner.jobs = vec![job(30)];
        });
        world.at(100, |inner| {
            inner.documents.insert(SPOT, spot("terminate", 220));
        });
        let spec = WatchSpec {
            drain_by_signal: false,
            ..WatchSpec::client()
        };
        world.watch(&spec, 300);
        assert_eq!(log(&world), [" 215 stop nomad", " 215 consul leaves"], "{api:?}");
    }
}

#[test]
fn with_the_nodes_own_identity_it_drains_and_comes_back() {
    let world = World::new();
    world.change(|inner| {
        inner.api = Api::Own;
        inner.jobs = vec![job(30), system_job()];
    });
    world.at(100, |inner| aim(inner, "Standby"));
    world.at(300, |inner| aim(inner, "InService"));
    world.watch(&WatchSpec::client(), 400);
    assert_eq!(world.deeds(), ["drain 900", "end drain", "bring back"]);
    assert!(world.read(|inner| inner.eligible));
    // What it may not do is told, and not tried again.
    let world = World::new();
    world.change(|inner| inner.api = Api::Own);
    world.at(100, |inner| {
        inner
            .documents
            .insert(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, second(100)));
    });
    world.watch(&WatchSpec::client(), 400);
    assert!(world.read(|inner| inner.eligible));
    assert!(said(
        &world,
        "could not make the node ineligible: 403; not tried again"
    ));
    assert!(said(&world, "the node is ineligible: it still takes jobs: 403"));
}

#[test]
fn a_shutdown_is_told_from_a_restart_and_a_reboot() {
    for (what, deeds) in [
        (Some(Shutdown::PowerOff), vec![" 100 drain 90"]),
        (Some(Shutdown::Reboot), vec![]),
        (None, vec![]),
    ] {
        let world = World::new();
        world.change(|inner| inner.jobs = vec![job(30)]);
        world.at(100, move |inner| match what {
            Some(how) => go_down(inner, how),
            None => stop_service(inner),
        });
        world.watch(&WatchSpec::client(), 1000);
        assert_eq!(log(&world), deeds, "{what:?}");
        let expected = if deeds.is_empty() { 100_000 } else { 130_000 };
        let ended = world.read(|inner| inner.time);
        assert!((expected..expected + 3000).contains(&ended), "{what:?}: {ended}");
    }
}

#[test]
fn a_shutdown_does_not_wait_longer_than_it_may() {
    let world = World::new();
    world.change(|inner| inner.jobs = vec![job(5000)]);
    world.at(100, |inner| go_down(inner, Shutdown::PowerOff));
    world.watch(&WatchSpec::client(), 1000);
    assert!(world.read(|inner| inner.time) <= 220_000);
}

#[test]
fn a_node_that_was_drained_for_a_reboot_comes_back_with_it() {
    let world = World::new();
    world.change(|inner| {
        inner.jobs = vec![job(30)];
        inner
            .documents
            .insert(SCHEDULED, event("system-reboot", 1, "active"));
    });
    world.at(3700, |inner| go_down(inner, Shutdown::Reboot));
    world.watch(&WatchSpec::client(), 5000);
    assert_eq!(world.deeds(), ["drain 885"]);
    assert!(!world.read(|inner| inner.eligible));
    world
        .files
        .write_atomic("/proc/sys/kernel/random/boot_id", b"boot-2\n", 0o444)
        .unwrap();
    world.files.remove("/run").unwrap();
    world.change(|inner| {
        inner.shutdown = None;
        inner.documents.insert(SCHEDULED, "[]".to_owned());
    });
    world.watch(&WatchSpec::client(), 6000);
    assert_eq!(world.deeds(), ["drain 885", "bring back"]);
}

#[test]
fn an_operator_drains_and_takes_back() {
    let world = World::new();
    let deadline = 400;
    world
        .journal()
        .ask(&request(Posture::Drained, 0, deadline))
        .unwrap();
    world.change(|inner| inner.jobs = vec![job(30)]);
    let files = world.files.clone();
    world.at(200, move |_| {
        let journal = cos_agent::node::watch::Journal::new(&files);
        journal.ask(&request(Posture::Serving, 200, 200)).unwrap();
    });
    world.watch(&WatchSpec::client(), 300);
    assert_eq!(log(&world), ["   0 drain 400", " 200 bring back"]);
    assert_eq!(world.journal().request().unwrap(), None);
    assert!(said(&world, "notice: operator: drained, disk swap"));
}

#[test]
fn consuls_maintenance_mode_is_an_option() {
    let world = World::new();
    let spec = WatchSpec {
        consul_maintenance: true,
        ..WatchSpec::client()
    };
    world.at(100, |inner| aim(inner, "Standby"));
    world.at(200, |inner| aim(inner, "InService"));
    world.watch(&spec, 300);
    let deeds = world.deeds();
    assert_eq!(deeds[0], "maintenance true");
    assert!(deeds.contains(&"maintenance false".to_owned()));
}

#[test]
fn a_nomad_that_does_not_run_has_no_jobs_until_it_does() {
    let world = World::new();
    world.change(|inner| inner.nomad_runs = false);
    world.at(100, |inner| aim(inner, "Standby"));
    world.at(200, |inner| inner.nomad_runs = true);
    world.watch(&WatchSpec::client(), 300);
    assert_eq!(world.deeds(), ["drain 800"]);
}

#[test]
fn a_metadata_service_that_fails_changes_nothing_and_is_told_once() {
    let world = World::new();
    world.change(|inner| inner.jobs = vec![job(30)]);
    world.at(100, |inner| aim(inner, "Standby"));
    world.at(200, |inner| inner.metadata_fails = true);
    world.at(1000, |inner| inner.metadata_fails = false);
    world.watch(&WatchSpec::client(), 1100);
    assert_eq!(world.deeds(), ["drain 900"]);
    let told = world.read(|inner| {
        inner
            .said
            .iter()
            .filter(|line| line.contains("cannot be read"))
            .count()
    });
    assert_eq!(told, 1);
    assert!(said(&world, "can be read again"));
}

#[test]
fn garbage_in_a_document_is_told_and_hides_nothing_else() {
    let world = World::new();
    world.change(|inner| {
        inner.documents.insert(SCHEDULED, "<html>".to_owned());
        inner.documents.insert(SPOT, "{".to_owned());
    });
    world.at(100, |inner| aim(inner, "Standby"));
    world.watch(&WatchSpec::client(), 200);
    assert_eq!(world.deeds(), ["drain 900"]);
    assert!(said(&world, "spot/instance-action cannot be read"));
}

#[test]
fn where_the_target_is_not_told_the_api_is_asked_now_and_then() {
    let world = World::new();
    world.change(|inner| "Terminating:Wait".clone_into(&mut inner.state));
    let spec = WatchSpec {
        drain: Duration::from_secs(30),
        ..WatchSpec::client()
    };
    world.watch(&spec, 2000);
    assert_eq!(world.deeds(), ["drain 30", "stop nomad", "consul leaves"]);
    let asked = world.read(|inner| inner.asked["DescribeAutoScalingInstances"]);
    assert!(asked <= 5, "{asked}");
}
