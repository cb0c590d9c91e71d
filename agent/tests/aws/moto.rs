//! Every call that moto knows, an emulator of AWS that reads requests by botocore's models. It has no ECR Public, does
//! not complete or prolong lifecycle actions, and never throttles or denies; those are the other tests' business.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cos_agent::aws::{Client, Environment, Kind, Settings, Transition};
use cos_agent::error::chain;

/// Starts moto, fills it, tells what it made as one line of JSON, and serves until its input ends.
const SERVE: &str = r#"
import json, sys, threading
import boto3
from moto.server import ThreadedMotoServer

port = int(sys.argv[1])
server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
server.start()
def client(service):
    return boto3.client(service, region_name="eu-central-1", endpoint_url=f"http://127.0.0.1:{port}",
                        aws_access_key_id="key", aws_secret_access_key="secret")
ssm, ec2, scaling = client("ssm"), client("ec2"), client("autoscaling")
for number in range(12):
    ssm.put_parameter(Name=f"/cos/key{number}", Value=f"value {number}", Type="SecureString")
ssm.put_parameter(Name="/cos/key0", Value="changed", Type="SecureString", Overwrite=True)
ssm.put_parameter(Name="/cos/plain", Value="plain", Type="String")
image = ec2.describe_images()["Images"][0]["ImageId"]
subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
scaling.create_launch_configuration(LaunchConfigurationName="servers", ImageId=image, InstanceType="t3.micro")
scaling.create_auto_scaling_group(AutoScalingGroupName="servers & more", LaunchConfigurationName="servers", MinSize=1,
    MaxSize=5, DesiredCapacity=3, VPCZoneIdentifier=subnet,
    Tags=[{"Key": "cos:role", "Value": "consul-server", "PropagateAtLaunch": True}])
scaling.put_lifecycle_hook(LifecycleHookName="ready", AutoScalingGroupName="servers & more",
    LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING", HeartbeatTimeout=600, DefaultResult="ABANDON")
group = scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]
print(json.dumps({"instances": [one["InstanceId"] for one in group["Instances"]]}), flush=True)
sys.stdin.read()
"#;

struct Moto {
    child: Child,
    url: String,
    made: serde_json::Value,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip(test: &str) {
    eprintln!("SKIPPED {test}: no Python with moto (COS_TESTS_PYTHON); ./dev test sets it");
}

fn moto(test: &str) -> Option<Moto> {
    let Some(python) = std::env::var_os("COS_TESTS_PYTHON") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have a Python with moto: set COS_TESTS_PYTHON"
        );
        skip(test);
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut child = Command::new(python)
        .args(["-c", SERVE, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Moto's own server greets first.
    let line = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.starts_with('{'))
        .unwrap_or_default();
    if line.is_empty() {
        let output = child.wait_with_output().unwrap();
        panic!("moto does not start: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Its access log would fill the pipe.
    let mut log = child.stderr.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    Some(Moto {
        child,
        url: format!("http://127.0.0.1:{port}"),
        made: serde_json::from_str(&line).unwrap(),
    })
}

#[test]
fn moto_understands_each_call_that_it_has() {
    let Some(moto) = moto("moto_understands_each_call_that_it_has") else {
        return;
    };
    let environment: Environment = [
        ("AWS_ENDPOINT_URL", moto.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]
    .into_iter()
    .collect();
    let client = Client::new(Settings {
        deadline: Duration::from_secs(20),
        ..Settings::new("eu-central-1", environment)
    });

    let names: Vec<String> = (0..12)
        .map(|number| format!("/cos/key{number}"))
        .chain(["/cos/plain".to_owned(), "/cos/key0:1".to_owned()])
        .collect();
    let found = client.get_parameters(names.iter().map(String::as_str)).unwrap();
    assert_eq!(found["/cos/key11"].value.expose(), "value 11");
    assert_eq!(
        (found["/cos/key0"].value.expose(), found["/cos/key0"].version),
        ("changed", 2)
    );
    assert_eq!(found["/cos/key0:1"].value.expose(), "value 0");
    assert!(found["/cos/key0"].secure && !found["/cos/plain"].secure);
    let error = client.get_parameters(["/cos/plain", "/cos/absent"]).unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Missing { names, .. } if names == &["/cos/absent"]),
        "{}",
        chain(&error)
    );

    let token = client.get_authorization_token().unwrap();
    assert_eq!(token.user, "AWS");
    assert!(token.registry.unwrap().contains(".dkr.ecr.eu-central-1."));

    let instance = moto.made["instances"][0].as_str().unwrap();
    let member = client.describe_auto_scaling_instance(instance).unwrap().unwrap();
    assert_eq!(
        (member.group.as_str(), member.lifecycle_state.as_str()),
        ("servers & more", "InService")
    );
    let group = client
        .describe_auto_scaling_group("servers & more")
        .unwrap()
        .unwrap();
    assert_eq!((group.desired, group.instances.len()), (3, 3));
    assert_eq!(client.describe_auto_scaling_group("others").unwrap(), None);
    let hooks = client.describe_lifecycle_hooks("servers & more").unwrap();
    assert_eq!(
        (hooks[0].name.as_str(), hooks[0].transition),
        ("ready", Transition::Launching)
    );
    assert_eq!(hooks[0].heartbeat_timeout, Duration::from_mins(10));

    let tags = client.describe_tags(instance).unwrap();
    assert_eq!(tags["cos:role"], "consul-server");
    assert_eq!(tags["aws:autoscaling:groupName"], "servers & more");
    let volumes = client.describe_volumes(instance).unwrap();
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0].attachment.as_deref(), Some("attached"));
    client.may_describe_instances().unwrap();
    let servers = client
        .describe_instances_by_tag("cos:role", "consul-server")
        .unwrap();
    assert_eq!(servers.len(), 3);
    assert!(
        client
            .describe_instances_by_tag("cos:role", "none")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn the_helper_logs_in_at_moto() {
    let Some(moto) = moto("the_helper_logs_in_at_moto") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cos-agent"))
        .args(["ecr-login", "get", "--cache"])
        .arg(folder.path().join("ecr"))
        .env_clear()
        .env("AWS_ENDPOINT_URL", &moto.url)
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let host = b"123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    child.stdin.take().unwrap().write_all(host).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["Username"], "AWS");
    assert!(!answer["Secret"].as_str().unwrap().is_empty());
}
