//! What each call makes of AWS's answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use cos_agent::aws::{Held, Kind, LifecycleResult, Membership, Secret, Transition};

use crate::fake::{self, PLANTED, client};
use crate::server::{Response, Server};

const DEADLINE: Duration = Duration::from_secs(10);

const HELD: Held<'static> = Held {
    group: "servers",
    hook: "ready",
    instance: "i-0123456789abcdef0",
};

#[test]
fn parameters_come_by_the_names_that_were_asked_for() {
    let server = Server::start(|request| {
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        let names = body["Names"].as_array().unwrap();
        assert!(names.len() <= 10, "{names:?}");
        assert_eq!(body["WithDecryption"], true);
        let known = names
            .iter()
            .filter_map(|name| name.as_str())
            .filter(|name| !name.contains("absent"));
        // The service tells the bare name, with version or label apart.
        let parameters: Vec<_> = known
            .map(|asked| {
                let path = asked.rsplit("parameter").next().unwrap();
                let (name, selector) = path
                    .split_once(':')
                    .map_or((path, None), |(name, rest)| (name, Some(format!(":{rest}"))));
                let mut parameter = serde_json::json!({
                    "Name": name, "Type": if name.contains("plain") { "String" } else { "SecureString" },
                    "Value": format!("value of {asked}"), "Version": 7,
                    "ARN": format!("arn:aws:ssm:eu-central-1:123456789012:parameter{name}"),
                });
                if let Some(selector) = selector {
                    parameter["Selector"] = selector.into();
                }
                parameter
            })
            .collect();
        let invalid: Vec<_> = names
            .iter()
            .filter(|name| name.as_str().unwrap().contains("absent"))
            .collect();
        Response::new(
            200,
            serde_json::json!({"Parameters": parameters, "InvalidParameters": invalid}).to_string(),
        )
    });
    let client = client(&server, DEADLINE);
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shared/key";
    let mut names: Vec<String> = (0..20).map(|number| format!("/cos/key{number}")).collect();
    names.extend(["/cos/plain", "/cos/labelled:current", "/cos/old:3", arn].map(str::to_owned));
    let twice = names.iter().chain(&names).map(String::as_str);
    let found = client.get_parameters(twice).unwrap();
    assert_eq!(server.asked().len(), 3, "24 names are three calls");
    assert_eq!(found.len(), names.len());
    for name in &names {
        assert_eq!(found[name].value.expose(), format!("value of {name}"));
        assert_eq!(found[name].version, 7);
        assert_eq!(found[name].secure, name != "/cos/plain");
    }

    let wanted = ["/cos/key1", "/absent/two", "/absent/one:5"];
    let error = client.get_parameters(wanted).unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Missing { names, region } if names == &["/absent/one:5", "/absent/two"]
            && region == "eu-central-1"),
        "{error:?}"
    );
    assert!(client.get_parameters([]).unwrap().is_empty());
}

#[test]
fn registry_logins_are_taken_apart() {
    let server = Server::start(fake::aws);
    let client = client(&server, DEADLINE);
    let token = client.get_authorization_token().unwrap();
    assert_eq!((token.user.as_str(), token.password.expose()), ("AWS", PLANTED));
    let left = token.expires.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_hours(11), "{left:?}");
    assert_eq!(
        token.registry.as_deref(),
        Some("https://123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    );
    let public = client.get_public_authorization_token().unwrap();
    assert_eq!(public.password, Secret::new(PLANTED.to_owned()));
    assert_eq!(public.registry, None);
}

#[test]
fn an_instance_knows_its_group_and_the_groups_hooks() {
    let server = Server::start(fake::aws);
    let client = client(&server, DEADLINE);
    let member = client
        .describe_auto_scaling_instance("i-0123456789abcdef0")
        .unwrap();
    assert_eq!(
        member,
        Some(Membership {
            instance: "i-0123456789abcdef0".to_owned(),
            group: "nomad & clients".to_owned(),
            lifecycle_state: "Pending:Wait".to_owned(),
            health: "HEALTHY".to_owned(),
            zone: "eu-central-1a".to_owned(),
        })
    );
    let group = client.describe_auto_scaling_group("servers").unwrap().unwrap();
    assert_eq!((group.desired, group.smallest, group.largest), (3, 3, 5));
    let ids: Vec<_> = group
        .instances
        .iter()
        .map(|member| (member.instance.as_str(), member.lifecycle_state.as_str()))
        .collect();
    assert_eq!(ids, [("i-1", "InService"), ("i-2", "Pending")]);
    let hooks = client.describe_lifecycle_hooks("servers").unwrap();
    let told: Vec<_> = hooks
        .iter()
        .map(|hook| {
            (
                hook.name.as_str(),
                hook.transition,
                hook.heartbeat_timeout.as_secs(),
                hook.default_result,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("ready", Transition::Launching, 600, LifecycleResult::Abandon),
            ("drain", Transition::Terminating, 3600, LifecycleResult::Continue),
        ]
    );
    assert_eq!(hooks[1].global_timeout, Duration::from_hours(48));
}

#[test]
fn what_is_in_no_group_has_none() {
    let server = Server::start(|request| {
        let operation = fake::operation(request);
        let list = match operation.as_str() {
            "DescribeAutoScalingInstances" => "AutoScalingInstances",
            _ => "AutoScalingGroups",
        };
        Response::new(
            200,
            format!(
                "<{operation}Response><{operation}Result><{list}/></{operation}Result></{operation}Response>"
            ),
        )
    });
    let client = client(&server, DEADLINE);
    assert_eq!(client.describe_auto_scaling_instance("i-1").unwrap(), None);
    assert_eq!(client.describe_auto_scaling_group("servers").unwrap(), None);
}

#[test]
fn tags_and_volumes_come_page_after_page() {
    let server = Server::start(|request| {
        let mut answer = fake::query(&fake::operation(request));
        if request.body.contains("NextToken") {
            assert!(request.body.contains("NextToken=page+two"), "{}", request.body);
        } else {
            answer.body = answer
                .body
                .replace("</tagSet>", "</tagSet><nextToken>page two</nextToken>")
                .replace("Name", "First");
        }
        answer
    });
    let client = client(&server, DEADLINE);
    let tags = client.describe_tags("i-1").unwrap();
    let expected = [("First", "a <node>"), ("Name", "a <node>"), ("cos:empty", "")];
    let expected: BTreeMap<String, String> = expected
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(tags, expected);

    let instances = client.describe_instances_by_tag("cos:consul", "one").unwrap();
    assert_eq!(
        instances,
        ["192.0.2.1", "192.0.2.3"].map(|address| address.parse::<Ipv4Addr>().unwrap())
    );

    let volumes = client.describe_volumes("i-1").unwrap();
    let told: Vec<_> = volumes
        .iter()
        .map(|volume| (volume.id.as_str(), volume.snapshot.as_deref(), volume.gib))
        .collect();
    assert_eq!(told, [("vol-1", Some("snap-1"), 8), ("vol-2", None, 100)]);
    assert_eq!(volumes[1].device.as_deref(), Some("/dev/sdf"));
    assert_eq!(volumes[1].attachment.as_deref(), Some("attaching"));
}

#[test]
fn a_hook_is_completed_and_kept_alive() {
    let server = Server::start(fake::aws);
    let client = client(&server, DEADLINE);
    client.record_lifecycle_action_heartbeat(HELD).unwrap();
    client
        .complete_lifecycle_action(HELD, LifecycleResult::Abandon)
        .unwrap();
    assert!(server.asked()[1].body.contains("LifecycleActionResult=ABANDON"));
}

const NO_ACTION: &str = "No active Lifecycle Action found with instance ID i-0123456789abcdef0";

#[test]
fn a_lost_answer_to_a_completion_is_no_failure() {
    let mut tries = 0;
    let server = Server::start(move |request| {
        tries += 1;
        if tries == 1 {
            // It was done, and nobody was told.
            return fake::aws(request).cut(10);
        }
        fake::xml_error("ValidationError", NO_ACTION)
    });
    client(&server, DEADLINE)
        .complete_lifecycle_action(HELD, LifecycleResult::Continue)
        .unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_hook_that_holds_nothing_is_told() {
    let server = Server::start(|_| fake::xml_error("ValidationError", NO_ACTION));
    let client = client(&server, DEADLINE);
    let completed = client.complete_lifecycle_action(HELD, LifecycleResult::Continue);
    let heartbeat = client.record_lifecycle_action_heartbeat(HELD);
    for error in [completed.unwrap_err(), heartbeat.unwrap_err()] {
        assert!(error.is_nothing_held(), "{error:?}");
        assert_eq!(error.tries, 1);
    }
    assert_eq!(server.asked().len(), 2);
}
