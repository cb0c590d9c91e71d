//! Answers of the metadata service, through the agent's own client, and the notices that `watch` reads from it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cos_agent::host::Files;
use cos_agent::node::config;
use cos_agent::node::sources::{Imds, Sources, gather};
use cos_agent::node::watch::{
    JOURNAL, Journal, State, read_rebalance, read_request, read_scheduled, read_spot, read_target,
};
use cos_agent::world::World;

use super::aws::Canned;
use crate::target::{JSON, TEXT, Target, YAML};

const URL: &str = "http://169.254.169.254";

const IDENTITY: &str = r#"{"accountId": "123456789012", "architecture": "x86_64",
    "availabilityZone": "eu-central-1a", "billingProducts": null, "instanceId": "i-0123456789abcdef0",
    "instanceType": "m6i.large", "privateIp": "192.0.2.10", "region": "eu-central-1", "version": "2017-09-30"}"#;

const ROLE: &str = r#"{"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
    "AccessKeyId": "ASIA1", "SecretAccessKey": "not a secret", "Token": "token", "Expiration": "2026-11-25T12:00:00Z"}"#;

const NO_ROLE: &str =
    r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role node."}"#;

const SCHEDULED: &str = r#"[{"NotBefore": "21 Jan 2027 09:00:43 GMT", "Code": "system-reboot",
    "Description": "scheduled reboot", "EventId": "instance-event-1", "NotAfter": "21 Jan 2027 09:17:23 GMT",
    "State": "active"}, {"NotBefore": "22 Jan 2027 09:00:43 GMT", "Code": "instance-stop", "EventId": "e", "State": "canceled"}]"#;

const TOKEN: (&str, &str) = ("/api/token", "token");

/// A boot, all the way from the metadata service to a configuration; the input is the value of a tag.
fn boot() -> Target {
    let world = Arc::new(Canned::with(&[
        TOKEN,
        ("/document", IDENTITY),
        (
            "/user-data",
            "version: 1\nrole: consul-server\nconsul: {retry_join: [192.0.2.1]}\n",
        ),
        ("/tags/instance", "Name\ncos:consul.bootstrap_expect\n"),
    ]));
    let samples = ["3", "5"];
    Target::new("metadata boot with a tag", samples, YAML, move |input| {
        world.say(200, input);
        let world: Arc<dyn World> = world.clone();
        let imds = Imds::in_world(URL, Duration::ZERO, world);
        let gathered = gather(&Sources {
            files: &Files::new("/nonexistent"),
            named: &[],
            imds: Some(&imds),
            parameters: None,
        });
        gathered.is_ok_and(|gathered| config::read(&gathered.documents).is_ok())
    })
    .weighing(4)
}

/// The watcher's memory, which a machine that lost its power may have left in any state.
fn journal() -> Target {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path());
    let state = State {
        version: 1,
        ..State::default()
    };
    Journal::new(&files).store(&state).unwrap();
    let path = files.locate(JOURNAL);
    let sample = fs::read(&path).unwrap();
    Target::new("journal of the watcher", [sample], JSON, move |input| {
        let _kept = &folder;
        fs::write(&path, input).unwrap();
        Journal::new(&files)
            .load()
            .is_ok_and(|(_, fault)| fault.is_none())
    })
    .weighing(5)
}

fn asked(
    name: &str,
    samples: &[&str],
    words: &'static [&'static str],
    ask: impl Fn(&mut Imds) -> bool + Send + 'static,
) -> Target {
    let world = Arc::new(Canned::with(&[TOKEN, ("/security-credentials/", "node")]));
    Target::new(
        format!("metadata {name}"),
        samples.iter().copied(),
        words,
        move |input| {
            world.say(200, input);
            let world: Arc<dyn World> = world.clone();
            ask(&mut Imds::in_world(
                "http://169.254.169.254",
                Duration::ZERO,
                world,
            ))
        },
    )
    .weighing(40)
}

pub(crate) fn targets() -> Vec<Target> {
    vec![
        boot(),
        journal(),
        asked("identity", &[IDENTITY], JSON, |imds| imds.facts().is_ok()),
        asked("role", &[ROLE, ROLE, NO_ROLE], JSON, |imds| {
            matches!(imds.role_credentials(), Ok(Some(_)))
        }),
        asked(
            "tags",
            &["cos:role\ncos:consul.datacenter\nName\n", "a"],
            TEXT,
            |imds| {
                imds.tag_keys()
                    .is_ok_and(|keys| keys.iter().any(|key| key == "cos:role"))
            },
        ),
        Target::new(
            "notice spot",
            [r#"{"action": "terminate", "time": "2027-09-18T08:22:00Z"}"#],
            JSON,
            |input| read_spot(input).is_ok(),
        )
        .weighing(40),
        Target::new(
            "notice rebalance",
            [r#"{"noticeTime": "2026-10-26T08:22:00Z"}"#],
            JSON,
            |input| read_rebalance(input).is_ok_and(|read| read.at.is_some()),
        )
        .weighing(40),
        Target::new("notice scheduled", [SCHEDULED], JSON, |input| {
            read_scheduled(input).is_ok()
        })
        .weighing(40),
        Target::new(
            "notice target",
            ["InService", "Warmed:Terminating:Wait\n", "Terminated"],
            TEXT,
            |input| read_target(input).is_ok(),
        )
        .weighing(40),
        Target::new(
            "request of an operator",
            [
                r#"{"posture": "gone", "since": "2026-11-25T08:22:00Z", "deadline": "2026-11-25T09:22:00Z",
                "ignore_system_jobs": true, "reason": "by hand"}"#,
            ],
            JSON,
            |input| read_request(input).is_ok(),
        )
        .weighing(40),
    ]
}
