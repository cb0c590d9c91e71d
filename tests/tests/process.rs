//! The real `cos-bake`, as a process, against the EC2 half of the sandbox: bad input, flipped bytes, and signals at
//! every stage. Machines are stand-ins that answer the agent's commands at once, so that a bake takes seconds; the
//! suite `chain` has real ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api {
    pub(crate) mod fake;
}
mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use cos_tests::api::executor::MachineChoice;
use cos_tests::api::timeline::Timeline;
use cos_tests::sandbox::{self, Running, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use support::Parts;

/// A sandbox whose machines answer at once, and a folder to bake in.
struct Scene {
    parts: Parts,
    folder: tempfile::TempDir,
    mirror: PathBuf,
    running: Running<api::fake::Fake>,
}

impl Scene {
    async fn new(parts: Parts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("al2.raw");
        std::fs::write(&base, b"the base disk").unwrap();
        let mirror = folder.path().join("mirror");
        // Links cost nothing; a test that changes a file replaces the link.
        run("cp", &["-al", &text(&parts.mirror), &text(&mirror)]).await;
        let settings = Settings {
            name: "process".into(),
            folder: folder.path().join("sandbox"),
            region: "us-east-1".into(),
            timeline: Timeline::INSTANT,
            machines: MachineChoice::Auto,
            record: None,
            faults: Vec::new(),
            mirror: Some(mirror.clone()),
            python: parts.python.clone(),
            bases: vec![
                ("al2".into(), base.clone()),
                ("al1".into(), base.clone()),
                ("al2023".into(), base),
            ],
        };
        std::fs::create_dir_all(&settings.folder).unwrap();
        let machines = Arc::new(api::fake::Fake::answering(agent));
        let listener = sandbox::listen(0).await.unwrap();
        let host = Box::new(api::fake::NoHost);
        let running = sandbox::start(&settings, listener, machines, host).await.unwrap();
        Self {
            parts,
            folder,
            mirror,
            running,
        }
    }

    /// `cos-bake` with what a user's environment holds, and nothing of this machine's.
    fn cos_bake(&self, arguments: &[&str]) -> Command {
        let endpoint = format!("http://{}", self.running.address);
        let environment = [
            ("COS_MIRROR", format!("{endpoint}/_sandbox/mirror")),
            ("COS_TRUST_KEY", text(&self.mirror.join("test-key.asc"))),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("COS_INSTANCE_PROFILE", "cos-builder".to_owned()),
        ];
        self.parts.cos_bake(arguments, self.folder.path(), environment)
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        self.cos_bake(arguments).output().await.unwrap()
    }

    /// Bakes until a line of talk contains `mark`, sends the signal, and returns exit code and all talk.
    async fn signalled(&self, mark: &str, signal: Signal) -> (Option<i32>, String) {
        let mut child = self
            .cos_bake(&["ami", "--base", "al2", "--json"])
            .spawn()
            .unwrap();
        let process = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut talk, mut sent) = (String::new(), false);
        while let Some(line) = lines.next_line().await.unwrap() {
            talk.push_str(&line);
            talk.push('\n');
            if !sent && line.contains(mark) {
                kill(process, signal).unwrap();
                sent = true;
            }
        }
        assert!(sent, "no line has `{mark}`:\n{talk}");
        (child.wait().await.unwrap().code(), talk)
    }

    /// What the sandbox's own listing still holds.
    async fn leftovers(&self) -> Value {
        let url = format!("http://{}/_sandbox/state", self.running.address);
        let answer = reqwest::get(url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    async fn assert_nothing_left(&self, context: &str) {
        let state = self.leftovers().await;
        assert_eq!(state["leftovers"], 0, "{context}: {state:#}");
    }

    /// Flips one bit of a file of the mirror, in a copy of its own.
    fn flip(&self, file: &str, at: usize) {
        flip(&self.mirror.join(file), at);
    }
}

const INSTALLED: &str = r#"{"bundle_sha256":"","manifest_sha256":"","files":0,"bytes":0,"directories":0,"links":0,
    "users":[],"packages":[],"phases":[]}"#;

const SEALED: &str = r#"{"machine_id_sha256":"00","ssh_host_key_fingerprints":[],"instance_ids":[],"sealed_at":0,
    "removed":0,"kept":[],"seconds":0}"#;

/// What the agent on a builder would print.
fn agent(script: &str) -> Option<String> {
    if script.contains("cos-agent\" install") {
        return Some(INSTALLED.into());
    }
    if script.contains("cos-agent seal") {
        return Some(SEALED.into());
    }
    script.contains("cos-agent verify").then(|| "{}".into())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

async fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().await.unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lines of talk that begin each stage; the last ones are of what is made in between.
const MARKS: [&str; 9] = [
    "plan       started",
    "launch     started",
    "payload    started",
    "+ instance",
    "provision  started",
    "verify     started",
    "seal       started",
    "+ image",
    "boot test  started",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_of_each_base_ends_with_an_image_and_nothing_else() {
    let Some(parts) = Parts::find("a_bake_of_each_base") else {
        return;
    };
    let scene = Scene::new(parts).await;
    for base in ["al1", "al2", "al2023"] {
        let output = scene
            .output(&["ami", "--base", base, "--tag", "team=platform", "--json"])
            .await;
        assert!(output.status.success(), "{base}: {}", said(&output));
        let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(manifest["image"].as_str().unwrap().starts_with("ami-"));
        assert_eq!(manifest["tags"]["team"], "platform");
        assert_eq!(manifest["components"]["nomad"]["trust"], "signed");
        assert_eq!(manifest["components"]["docker"]["trust"], "first-use");
        let ends = said(&output).contains("past its end of life");
        assert_eq!(ends, base != "al2023", "{base}: {}", said(&output));
        assert!(said(&output).contains("stand-in"), "{base}");
        // One image with its one snapshot, and the payload is no part of it.
        let state = scene.leftovers().await;
        assert_eq!(state["held"]["images"].as_array().unwrap().len(), 1, "{state:#}");
        assert_eq!(manifest["snapshots"].as_array().unwrap().len(), 1, "{manifest:#}");
        assert_eq!(state["leftovers"], 2, "{state:#}");
        let client = Command::new(&scene.parts.python)
            .args(["-c", "import boto3,sys\ne=boto3.client('ec2')\ne.deregister_image(ImageId=sys.argv[1])\ne.delete_snapshot(SnapshotId=sys.argv[2])"])
            .args([manifest["image"].as_str().unwrap(), manifest["snapshots"][0].as_str().unwrap()])
            .env("AWS_ENDPOINT_URL", format!("http://{}", scene.running.address))
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .status();
        assert!(client.await.unwrap().success());
        scene.assert_nothing_left(base).await;
    }
    scene.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_starts_with_a_payload_that_was_kept() {
    let Some(parts) = Parts::find("a_builder_starts_with_a_payload") else {
        return;
    };
    let scene = Scene::new(parts).await;
    let first = scene.output(&["ami", "--base", "al2", "--keep-payload"]).await;
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains("+ volume"), "{}", said(&first));
    let second = scene.output(&["ami", "--base", "al2", "--name", "second"]).await;
    assert!(second.status.success(), "{}", said(&second));
    assert!(said(&second).contains("is used again"), "{}", said(&second));
    assert!(!said(&second).contains("+ volume"), "{}", said(&second));
    // Two images with a snapshot each, and the payload, which no sweep takes.
    assert!(scene.output(&["sweep"]).await.status.success());
    let state = scene.leftovers().await;
    assert_eq!(state["leftovers"], 5, "{state:#}");
    scene.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_at_every_stage_cleans_up() {
    let Some(parts) = Parts::find("an_interrupt_at_every_stage") else {
        return;
    };
    let scene = Scene::new(parts).await;
    for (number, mark) in MARKS.into_iter().enumerate() {
        let signal = if number % 2 == 0 {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        };
        let (code, talk) = scene.signalled(mark, signal).await;
        assert_eq!(code, Some(130), "{signal} at `{mark}`:\n{talk}");
        scene.assert_nothing_left(&format!("{signal} at `{mark}`")).await;
    }
    scene.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_at_every_stage_sweep_removes_everything_and_says_what() {
    let Some(parts) = Parts::find("after_a_kill_at_every_stage") else {
        return;
    };
    let scene = Scene::new(parts).await;
    for mark in MARKS {
        let (code, talk) = scene.signalled(mark, Signal::SIGKILL).await;
        assert_eq!(code, None, "{talk}");
        let left = scene.leftovers().await["leftovers"].as_u64().unwrap();
        let swept = scene.output(&["sweep"]).await;
        assert!(swept.status.success(), "killed at `{mark}`: {}", said(&swept));
        let told = String::from_utf8_lossy(&swept.stdout);
        assert!(
            left == 0 || told.contains("no longer runs"),
            "killed at `{mark}`: {told}"
        );
        if mark.contains("+ instance") {
            assert!(told.contains("instance i-"), "killed at `{mark}`: {told}");
        }
        scene.assert_nothing_left(&format!("killed at `{mark}`")).await;
    }
    let nothing = scene.output(&["sweep"]).await;
    assert!(String::from_utf8_lossy(&nothing.stdout).contains("nothing to sweep"));
    scene.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_before_the_builder_is_exit_4_and_nothing_is_left() {
    let Some(parts) = Parts::find("one_flipped_byte") else {
        return;
    };
    let scene = Scene::new(parts).await;
    let good = scene.output(&["lock", "--json"]).await;
    assert!(good.status.success(), "{}", said(&good));
    let lock = std::fs::read(scene.folder.path().join("cos.lock")).unwrap();
    let archives: Value = serde_json::from_slice(&good.stdout).unwrap();
    let version = |component: &str| {
        let archives = archives.as_array().unwrap();
        let found = archives
            .iter()
            .find(|archive| archive["component"] == component)
            .unwrap();
        found["version"].as_str().unwrap().to_owned()
    };
    let nomad = format!("hashicorp/nomad/{0}/nomad_{0}", version("nomad"));
    let docker = format!(
        "docker/linux/static/stable/x86_64/docker-{}.tgz",
        version("docker")
    );

    // An archive: the lock has its digest, and the cache is empty.
    for file in [format!("{nomad}_linux_amd64.zip"), docker] {
        scene.flip(&file, 100_000);
        let empty = tempfile::tempdir().unwrap();
        let mut bake = scene.cos_bake(&["ami", "--base", "al2"]);
        let output = bake.env("COS_CACHE", empty.path()).output().await.unwrap();
        refused(&output, file.rsplit('/').next().unwrap());
        scene.assert_nothing_left(&file).await;
        scene.flip(&file, 100_000);
    }
    // The digest list and its signature: nothing is locked.
    std::fs::remove_file(scene.folder.path().join("cos.lock")).unwrap();
    for (file, at) in [
        (format!("{nomad}_SHA256SUMS"), 3),
        (format!("{nomad}_SHA256SUMS.sig"), 40),
    ] {
        scene.flip(&file, at);
        let output = scene.output(&["ami", "--base", "al2"]).await;
        assert_eq!(output.status.code(), Some(4), "{file}: {}", said(&output));
        assert!(said(&output).contains("SHA256SUMS"), "{file}: {}", said(&output));
        scene.assert_nothing_left(&file).await;
        scene.flip(&file, at);
    }
    // The lock itself, at places all over it.
    for at in (0..lock.len()).step_by(lock.len() / 7) {
        let path = scene.folder.path().join("cos.lock");
        std::fs::write(&path, &lock).unwrap();
        flip(&path, at);
        let output = scene.output(&["ami", "--base", "al2"]).await;
        refused(&output, "cos.lock");
        scene.assert_nothing_left(&format!("cos.lock at {at}")).await;
    }
    scene.running.stop().await;
}

/// What a test changes in a user's environment.
type Change = fn(&mut Command);

/// Exit 4, the file named, and two digests.
fn refused(output: &Output, file: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(4), "{file}: {said}");
    assert!(said.contains(file), "{file}: {said}");
    let digests = said
        .split(|character: char| !character.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .collect::<std::collections::BTreeSet<_>>();
    assert!(digests.len() >= 2, "{file}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_ends_before_anything_is_launched() {
    let Some(parts) = Parts::find("bad_input") else {
        return;
    };
    let scene = Scene::new(parts).await;
    let output = scene.output(&["plan", "--base", "al2", "--json"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["base"], "al2");
    assert!(
        !scene.folder.path().join("cos.lock").exists(),
        "plan changes nothing"
    );
    scene.assert_nothing_left("plan").await;

    let cases: [(&[&str], i32, &str); 6] = [
        (&["ami", "--base", "al3"], 2, "al3"),
        (&["ami"], 2, "--base"),
        (&["ami", "--base", "al2", "--name", "a{b"], 2, "`{`"),
        (&["ami", "--base", "al2", "--tag", "novalue"], 2, "novalue"),
        (
            &["ami", "--base", "al1", "--arch", "arm64"],
            3,
            "never made for arm64",
        ),
        (
            &["ami", "--base", "al2", "--subnet", "subnet-none"],
            3,
            "subnet-none",
        ),
    ];
    for (arguments, code, words) in cases {
        let output = scene.output(arguments).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
        scene.assert_nothing_left(&format!("{arguments:?}")).await;
    }

    let ami = ["ami", "--base", "al2"];
    let without_credentials = |command: &mut Command| {
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
    };
    let unreachable = |command: &mut Command| {
        command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    };
    let unwritable = |command: &mut Command| {
        command.env("COS_LEDGER", "/proc/nowhere");
    };
    let changes: [(Change, i32, &str); 3] = [
        (without_credentials, 2, "credentials"),
        (unreachable, 5, "AWS_ENDPOINT_URL"),
        (unwritable, 2, "/proc/nowhere"),
    ];
    for (change, code, words) in changes {
        let mut command = scene.cos_bake(&ami);
        change(&mut command);
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
        assert!(said(&output).contains("hint:"), "{words}: {}", said(&output));
        scene.assert_nothing_left(words).await;
    }
    let client = reqwest::Client::new();
    let control = format!("http://{}/_sandbox/faults", scene.running.address);
    client
        .post(&control)
        .body("ssm:GetParameter:error=ExpiredTokenException")
        .send()
        .await
        .unwrap();
    let output = scene.output(&ami).await;
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(
        said(&output).contains("renew the credentials"),
        "{}",
        said(&output)
    );
    scene.assert_nothing_left("expired credentials").await;
    scene.running.stop().await;
}
