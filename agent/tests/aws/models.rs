//! What the agent sends and understands, against botocore's models of the services (`models.json`, which `models.py`
//! writes).

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use cos_agent::aws::{Client, Held, LifecycleResult};
use serde_json::Value;

use crate::fake;
use crate::server::{Request, Response, Server};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/models.json");

fn models() -> Value {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

/// Makes every call once; gives requests and answers.
fn every_call() -> Vec<(Request, Response)> {
    let server = Server::start(fake::aws);
    let client: Client = fake::client(&server, Duration::from_secs(10));
    let held = Held {
        group: "nomad & clients/ä",
        hook: "ready",
        instance: "i-0123456789abcdef0",
    };
    client.get_parameters(["/cos/key"]).unwrap();
    client.get_authorization_token().unwrap();
    client.get_public_authorization_token().unwrap();
    client.describe_auto_scaling_instance(held.instance).unwrap();
    client.describe_auto_scaling_group(held.group).unwrap();
    client.describe_lifecycle_hooks(held.group).unwrap();
    client.record_lifecycle_action_heartbeat(held).unwrap();
    client
        .complete_lifecycle_action(held, LifecycleResult::Continue)
        .unwrap();
    client.describe_tags("i-0123456789abcdef0").unwrap();
    client.describe_volumes("i-0123456789abcdef0").unwrap();
    client.describe_instances_by_tag("cos:consul", "one").unwrap();
    let throughput = "/ssm/parameter-store/high-throughput-enabled";
    assert_eq!(client.get_service_setting(throughput).unwrap(), "false");
    let asked = server.asked();
    asked
        .into_iter()
        .map(|request| {
            let answer = fake::aws(&request);
            (request, answer)
        })
        .collect()
}

/// The service that a request was signed for.
fn signed_for(request: &Request) -> String {
    let scope = request
        .header("authorization")
        .split_once("Credential=")
        .unwrap()
        .1;
    scope.split('/').nth(3).unwrap().to_owned()
}

#[test]
fn every_request_is_of_the_services_own_form() {
    let models = models();
    let operations = models["operations"].as_object().unwrap();
    let mut seen = Vec::new();
    for (request, answer) in every_call() {
        let operation = fake::operation(&request);
        let name = format!("{}:{operation}", signed_for(&request));
        let model = &operations[&name];
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/"));
        let authorization = request.header("authorization");
        let scope = format!(
            "/{}/{}/aws4_request, ",
            fake::REGION,
            model["signingName"].as_str().unwrap()
        );
        assert!(
            authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
                && authorization.contains(&scope),
            "{authorization}"
        );
        assert!(
            authorization.contains("SignedHeaders=content-type;host;x-amz-date"),
            "{authorization}"
        );
        if model["protocol"] == "json" {
            assert_eq!(
                request.header("content-type"),
                format!(
                    "application/x-amz-json-{}",
                    model["jsonVersion"].as_str().unwrap()
                )
            );
            assert_eq!(request.header("x-amz-target"), model["target"].as_str().unwrap());
            let sent: Value = serde_json::from_str(&request.body).unwrap();
            check_json(&name, &sent, &model["input"]);
            let told: Value = serde_json::from_str(&answer.body).unwrap();
            check_json(&name, &told, &model["output"]);
        } else {
            assert_eq!(
                request.header("content-type"),
                "application/x-www-form-urlencoded; charset=utf-8"
            );
            check_form(&name, &request.body, model);
            let document = roxmltree::Document::parse(&answer.body).unwrap();
            let root = document.root_element();
            let result = root
                .children()
                .find(|node| node.tag_name().name() == format!("{operation}Result"));
            if let Some(output) = model.get("output") {
                check_xml(&name, result.unwrap_or(root), output);
            }
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(seen, operations.keys().cloned().collect::<Vec<_>>());
}

/// Each key is one that the model has, required ones are there, types and lengths are right.
fn check_json(at: &str, value: &Value, shape: &Value) {
    match shape["type"].as_str().unwrap() {
        "structure" => {
            let members = shape["members"].as_object().unwrap();
            let value = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            for (key, value) in value {
                let member = members.get(key).unwrap_or_else(|| panic!("{at} has no {key}"));
                check_json(&format!("{at}.{key}"), value, member);
            }
            for required in shape["required"].as_array().into_iter().flatten() {
                assert!(
                    value.contains_key(required.as_str().unwrap()),
                    "{at} lacks {required}"
                );
            }
        }
        "list" => {
            let value = value.as_array().unwrap_or_else(|| panic!("{at}: {value}"));
            check_length(at, value.len(), shape);
            for value in value {
                check_json(at, value, &shape["member"]);
            }
        }
        "string" => check_text(
            at,
            value.as_str().unwrap_or_else(|| panic!("{at}: {value}")),
            shape,
        ),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        "integer" | "long" | "timestamp" => assert!(value.is_number(), "{at}: {value}"),
        other => panic!("{at}: {other}"),
    }
}

fn check_length(at: &str, length: usize, shape: &Value) {
    let length = u64::try_from(length).unwrap();
    assert!(length >= shape["min"].as_u64().unwrap_or(0), "{at} is too short");
    assert!(
        length <= shape["max"].as_u64().unwrap_or(u64::MAX),
        "{at} is too long"
    );
}

fn check_text(at: &str, text: &str, shape: &Value) {
    check_length(at, text.chars().count(), shape);
    if let Some(values) = shape["enum"].as_array() {
        assert!(values.iter().any(|value| value == text), "{at}: {text}");
    }
}

/// Names of parameters are paths through the shape: members by name, lists by number.
fn check_form(at: &str, body: &str, model: &Value) {
    let ec2 = model["protocol"] == "ec2";
    let mut pairs: BTreeMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!(at.rsplit(':').next(), pairs.remove("Action").as_deref());
    assert_eq!(pairs.remove("Version").as_deref(), model["apiVersion"].as_str());
    for (name, value) in &pairs {
        let mut shape = &model["input"];
        let mut words = name.split('.').peekable();
        while let Some(word) = words.next() {
            if shape["type"] == "list" {
                // EC2's lists are flat; Auto Scaling's have `member` before the number.
                let number = if ec2 {
                    word
                } else {
                    assert_eq!(word, "member", "{at}: {name}");
                    words.next().unwrap()
                };
                assert!(number.parse::<u32>().unwrap() > 0, "{at}: {name}");
                shape = &shape["member"];
            } else {
                let members = shape["members"].as_object().unwrap();
                let found = members
                    .iter()
                    .find(|(member, shape)| wire_name(member, shape, ec2) == word);
                shape = found.unwrap_or_else(|| panic!("{at} has no {name}")).1;
            }
        }
        match shape["type"].as_str() {
            Some("string") => check_text(name, value, shape),
            Some("boolean") => assert!(matches!(value.as_str(), "true" | "false"), "{at}: {name}"),
            other => panic!("{at}: {name} is a {other:?}"),
        }
    }
    for required in model["input"]["required"].as_array().into_iter().flatten() {
        let required = required.as_str().unwrap();
        assert!(
            pairs
                .keys()
                .any(|name| name == required || name.starts_with(&format!("{required}."))),
            "{at} lacks {required}"
        );
    }
}

/// EC2 writes location names with a capital, unless a query name is given.
fn wire_name(member: &str, shape: &Value, ec2: bool) -> String {
    if let Some(name) = shape["queryName"].as_str().filter(|_| ec2) {
        return name.to_owned();
    }
    let name = shape["locationName"].as_str().unwrap_or(member);
    match name.split_at_checked(1) {
        Some((first, rest)) if ec2 => first.to_ascii_uppercase() + rest,
        _ => name.to_owned(),
    }
}

/// The answers that the tests are made of are answers of the services: each element is in the model.
fn check_xml(at: &str, node: roxmltree::Node<'_, '_>, shape: &Value) {
    match shape["type"].as_str().unwrap() {
        "structure" => {
            let members = shape["members"].as_object().unwrap();
            for child in node.children().filter(roxmltree::Node::is_element) {
                let name = child.tag_name().name();
                if matches!(name, "requestId" | "ResponseMetadata") {
                    continue;
                }
                let found = members
                    .iter()
                    .find(|(member, shape)| shape["locationName"].as_str().unwrap_or(member) == name);
                let (_, member) = found.unwrap_or_else(|| panic!("{at} has no {name}"));
                check_xml(&format!("{at}.{name}"), child, member);
            }
        }
        "list" => {
            let expected = shape["member"]["locationName"].as_str().unwrap_or("member");
            for child in node.children().filter(roxmltree::Node::is_element) {
                assert_eq!(child.tag_name().name(), expected, "{at}");
                check_xml(at, child, &shape["member"]);
            }
        }
        kind => {
            let text = node.text().unwrap_or_default();
            match kind {
                "integer" => assert!(text.parse::<i64>().is_ok(), "{at}: {text}"),
                "boolean" => assert!(matches!(text, "true" | "false"), "{at}: {text}"),
                _ => {}
            }
        }
    }
}

#[test]
fn the_models_are_those_of_the_installed_botocore() {
    let Some(python) = std::env::var_os("COS_TESTS_PYTHON") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must compare the models: set COS_TESTS_PYTHON"
        );
        eprintln!(
            "SKIPPED the_models_are_those_of_the_installed_botocore: COS_TESTS_PYTHON is not set; ./dev test sets it"
        );
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/models.py");
    let written = Command::new(python).arg(script).output().unwrap();
    assert!(
        written.status.success(),
        "{}",
        String::from_utf8_lossy(&written.stderr)
    );
    let written: Value = serde_json::from_slice(&written.stdout).unwrap();
    assert!(
        written == models(),
        "botocore is {} and models.json of {}: run models.py and look at what changed",
        written["botocore"],
        models()["botocore"]
    );
}
