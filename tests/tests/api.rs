//! Starts the EC2 half of the sandbox with real moto and machines that are folders of this process, and lets boto3
//! judge it (`tests/moto/test_api.py`). Needs the Python of an environment with `tests/moto/requirements.txt`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that does not run says so")]

mod api {
    pub(crate) mod fake;
}

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cos_tests::api::executor::MachineChoice;
use cos_tests::api::timeline::Timeline;
use cos_tests::sandbox::{self, Running, Settings};
use tokio::process::Command;

/// The interpreter that has moto; none, loudly, outside CI.
fn python(test: &str) -> Option<PathBuf> {
    let Some(named) = std::env::var_os("COS_TESTS_PYTHON").map(PathBuf::from) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no Python with moto: set COS_TESTS_PYTHON"
        );
        eprintln!("SKIPPED {test}: no Python with moto (COS_TESTS_PYTHON); ./dev test sets it");
        return None;
    };
    assert!(
        named.is_file(),
        "COS_TESTS_PYTHON names {}, which is no file",
        named.display()
    );
    Some(named)
}

/// A sandbox in a folder, with machines that are folders of this process; calls are recorded in `record.jsonl`.
async fn start(python: &Path, folder: &Path, timeline: Timeline) -> Running<api::fake::Fake> {
    let base = folder.join("al2.raw");
    std::fs::write(&base, b"the base disk").unwrap();
    let settings = Settings {
        name: "test".into(),
        folder: folder.to_owned(),
        region: "us-east-1".into(),
        timeline,
        machines: MachineChoice::Auto,
        record: Some(folder.join("record.jsonl")),
        faults: Vec::new(),
        mirror: None,
        python: python.to_owned(),
        bases: vec![("al2".into(), base)],
    };
    let listener = sandbox::listen(0).await.unwrap();
    let machines = Arc::new(api::fake::Fake::default());
    sandbox::start(&settings, listener, machines, Box::new(api::fake::NoHost))
        .await
        .unwrap()
}

/// Python with boto3 that talks to a sandbox.
fn boto3(python: &Path, running: &Running<api::fake::Fake>) -> Command {
    let mut command = Command::new(python);
    command
        .env("AWS_ENDPOINT_URL", format!("http://{}", running.address))
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_sees_a_real_ec2() {
    let Some(python) = python("boto3_sees_a_real_ec2") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let running = start(&python, folder.path(), Timeline::INSTANT).await;
    let status = boto3(&python, &running)
        .args(["-B", "-m", "unittest", "-v", "test_api"])
        .args(
            std::env::var("COS_TEST_API")
                .ok()
                .map(|only| format!("-k={only}")),
        )
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("moto"))
        .env("COS_TEST_FOLDER", folder.path())
        .status()
        .await
        .unwrap();
    let log = std::fs::read_to_string(folder.path().join("moto.log")).unwrap_or_default();
    running.stop().await;
    assert!(
        status.success(),
        "boto3 disagrees; moto's log ends with:\n{}",
        tail(&log)
    );
    assert!(!log.contains("Traceback"), "moto failed inside:\n{}", tail(&log));
}

/// Prints the seconds that a launch was pending.
const LAUNCH: &str = r#"
import boto3, time
ec2, ssm = boto3.client("ec2"), boto3.client("ssm")
name = "/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2"
image = ssm.get_parameter(Name=name)["Parameter"]["Value"]
began = time.monotonic()
instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
state = "pending"
while state == "pending" and time.monotonic() < began + 60:
    time.sleep(0.2)
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    state = found["State"]["Name"]
print(state, time.monotonic() - began)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn on_the_timeline_of_aws_a_launch_takes_its_time() {
    let Some(python) = python("on_the_timeline_of_aws") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let running = start(&python, folder.path(), Timeline::AWS).await;
    let output = boto3(&python, &running)
        .args(["-c", LAUNCH])
        .output()
        .await
        .unwrap();
    running.stop().await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let seconds: f64 = said
        .strip_prefix("running ")
        .and_then(|seconds| seconds.trim().parse().ok())
        .unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let least = Timeline::AWS.pending.as_secs_f64();
    assert!(seconds >= least, "running after {seconds} s, not {least}");
}

fn tail(log: &str) -> &str {
    let start = log.len().saturating_sub(6000);
    log.get(start..).unwrap_or(log)
}
