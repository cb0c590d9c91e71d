//! Starts the EC2 half of the sandbox with real moto and machines that are folders of this process, and lets boto3
//! judge it (`tests/moto/test_api.py`). Needs the Python of an environment with `tests/moto/requirements.txt`.

mod api {
    pub(crate) mod fake;
}

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cos_tests::api::executor::MachineChoice;
use cos_tests::api::timeline::Timeline;
use cos_tests::sandbox::{self, Settings};

/// The interpreter that has moto.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("COS_TESTS_PYTHON").map(PathBuf::from)?;
    assert!(
        named.is_file(),
        "COS_TESTS_PYTHON names {}, which is no file",
        named.display()
    );
    Some(named)
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_sees_a_real_ec2() {
    let Some(python) = python() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no Python with moto: set COS_TESTS_PYTHON"
        );
        eprintln!(
            "SKIPPED boto3_sees_a_real_ec2: no Python with moto (COS_TESTS_PYTHON); ./dev test sets it"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("al2.raw");
    std::fs::write(&base, b"the base disk").unwrap();
    let record = folder.path().join("record.jsonl");
    let settings = Settings {
        name: "test".into(),
        folder: folder.path().to_owned(),
        region: "us-east-1".into(),
        timeline: Timeline::INSTANT,
        machines: MachineChoice::Auto,
        record: Some(record.clone()),
        faults: Vec::new(),
        mirror: None,
        python: python.clone(),
        bases: vec![("al2".into(), base)],
    };
    let listener = sandbox::listen(0).await.unwrap();
    let machines = Arc::new(api::fake::Fake::default());
    let running = sandbox::start(&settings, listener, machines, Box::new(api::fake::NoHost))
        .await
        .unwrap();

    let mut boto3 = tokio::process::Command::new(&python);
    boto3
        .args(["-B", "-m", "unittest", "-v", "test_api"])
        .args(
            std::env::var("COS_TEST_API")
                .ok()
                .map(|only| format!("-k={only}")),
        )
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("moto"))
        .env("AWS_ENDPOINT_URL", format!("http://{}", running.address))
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("COS_TEST_FOLDER", folder.path());
    let status = boto3.status().await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("moto.log")).unwrap_or_default();
    running.stop().await;
    assert!(
        status.success(),
        "boto3 disagrees; moto's log ends with:\n{}",
        tail(&log)
    );
    assert!(!log.contains("Traceback"), "moto failed inside:\n{}", tail(&log));
}

fn tail(log: &str) -> &str {
    let start = log.len().saturating_sub(6000);
    log.get(start..).unwrap_or(log)
}
