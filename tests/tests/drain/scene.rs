//! Owns the sandbox of the scenarios: its start and end, the image in it, calls to its AWS, commands on its nodes.
//! Touches all that the sandbox touches, and one disk in the cache.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cos_tests::api::executor::{Executor, MachineChoice};
use cos_tests::api::timeline::Timeline;
use cos_tests::machines::{Fleet, Machines as _};
use cos_tests::sandbox::real::{self, Places};
use cos_tests::sandbox::session::{self, Process, Session};
use cos_tests::sandbox::{Settings, real::Sandbox};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::support::Parts;

const NAME: &str = "drain";
const REGION: &str = "us-east-1";

/// One call of AWS, as a user's own tools would make it.
const CALL: &str = r"
import boto3, json, sys
service, operation, arguments = sys.argv[1:]
reply = getattr(boto3.client(service), operation)(**json.loads(arguments))
print(json.dumps(reply, default=str))
";

/// A sandbox with real machines in this process.
pub(crate) struct Scene {
    pub(crate) parts: Parts,
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Scene {
    pub(crate) async fn up(parts: Parts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let own = state.join(NAME);
        std::fs::create_dir_all(&own).unwrap();
        let settings = Settings {
            name: NAME.into(),
            folder: own.clone(),
            region: REGION.into(),
            timeline: Timeline::INSTANT,
            machines: MachineChoice::Auto,
            record: None,
            faults: Vec::new(),
            mirror: Some(parts.mirror.clone()),
            python: parts.python.clone(),
            bases: Vec::new(),
        };
        let places = Places {
            cache: parts.cache.clone(),
            state,
        };
        let say = |line: &str| eprintln!("    {line}");
        let bases = ["al2".to_owned()];
        let sandbox = real::up(settings, 0, &places, &bases, say, std::future::pending())
            .await
            .unwrap();
        // As the command's own, so that `cos-sandbox notice` finds it.
        Process::keep(&own).unwrap();
        let session = Session::of_this_process(sandbox.running.address, REGION, Some(&parts.mirror));
        session.keep(&own).unwrap();
        let exports = session.exports();
        Self {
            environment: exports.iter().filter_map(|line| session::export(line)).collect(),
            parts,
            sandbox,
            folder,
        }
    }

    pub(crate) async fn down(self) {
        self.sandbox.down().await.unwrap();
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        self.executor().machines()
    }

    fn executor(&self) -> &Executor<Fleet> {
        &self.sandbox.running.executor
    }

    pub(crate) fn address(&self, instance: &str) -> Option<Ipv4Addr> {
        self.executor().address(instance)
    }

    /// Asks AWS; a refusal ends the test.
    pub(crate) async fn aws(&self, service: &str, operation: &str, arguments: &Value) -> Value {
        let output = Command::new(&self.parts.python)
            .args(["-c", CALL, service, operation, &arguments.to_string()])
            .envs(self.environment.clone())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{operation} {arguments}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `cos-sandbox notice`, as a user would give it.
    pub(crate) async fn notice(&self, instance: &str, words: &[&str]) {
        let status = Command::new(self.parts.bin.join("cos-sandbox"))
            .args(["notice", "--name", NAME, "--state"])
            .arg(self.folder.path().join("state"))
            .arg(instance)
            .args(words)
            .stdout(Stdio::null())
            .status()
            .await
            .unwrap();
        assert!(status.success(), "notice {words:?}");
    }

    /// A listing of the sandbox's own API.
    async fn listing(&self, what: &str) -> Value {
        let url = format!("http://{}/_sandbox/{what}", self.sandbox.running.address);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Instances of a group with their lifecycle states.
    pub(crate) async fn members(&self, group: &str) -> Vec<(String, String)> {
        let all = self.listing("state").await;
        let instances = all["held"]["instances"].as_array().into_iter().flatten();
        instances
            .filter(|it| it["group"] == group)
            .map(|it| (word(it, "id"), word(it, "lifecycle")))
            .collect()
    }

    /// What was said at lifecycle hooks about an instance: hook and word, in order.
    pub(crate) async fn said(&self, instance: &str) -> Vec<(String, String)> {
        let all = self.listing("lifecycle").await;
        let lines = all.as_array().into_iter().flatten();
        lines
            .filter(|line| line["instance"] == instance)
            .map(|line| (word(line, "hook"), word(line, "said")))
            .collect()
    }

    /// Runs a script on a node: its status, and all that it said.
    pub(crate) async fn run(&self, instance: &str, script: &str) -> (i32, String) {
        let limit = Duration::from_mins(3);
        match self.fleet().exec(instance, script, limit).await {
            Ok(output) => {
                let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
                said.push_str(&String::from_utf8_lossy(&output.stderr));
                (output.status, said)
            }
            Err(error) => (-1, format!("{error:#}")),
        }
    }

    /// An image of the programs under test: baked, or the disk of an earlier bake of the same programs.
    pub(crate) async fn image(&self) -> String {
        let disk = self.kept_disk();
        if disk.exists() {
            eprintln!("    the image is that of an earlier bake of the same programs");
            return self.import(&disk).await;
        }
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        let mut bake = self.parts.cos_bake(
            &["ami", "--base", "al2", "--json"],
            self.folder.path(),
            environment,
        );
        let output = bake.stderr(Stdio::inherit()).output().await.unwrap();
        assert!(output.status.success(), "the bake failed");
        let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
        let image = manifest["image"].as_str().unwrap().to_owned();
        let described = self
            .aws("ec2", "describe_images", &json!({"ImageIds": [image]}))
            .await;
        let snapshot = described["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].as_str();
        for old in std::fs::read_dir(disk.parent().unwrap()).unwrap().flatten() {
            if old.file_name().to_string_lossy().starts_with("drain-") {
                std::fs::remove_file(old.path()).unwrap();
            }
        }
        copy(&self.executor().store().path(snapshot.unwrap()), &disk).await;
        image
    }

    /// Where the disk of a bake of these programs is kept: named by all that goes into it.
    fn kept_disk(&self) -> PathBuf {
        let mut digest = Sha256::new();
        for program in ["cos-agent", "cos-bake"] {
            digest.update(std::fs::read(self.parts.bin.join(program)).unwrap());
        }
        digest.update(self.parts.mirror.as_os_str().as_encoded_bytes());
        let mut cached: Vec<_> = std::fs::read_dir(&self.parts.cache)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        cached.sort();
        for base in cached
            .iter()
            .filter(|name| name.to_string_lossy().starts_with("base-al2-"))
        {
            digest.update(base.as_encoded_bytes());
        }
        let name = digest
            .finalize()
            .iter()
            .take(8)
            .fold(String::new(), |mut name, byte| {
                let _ = write!(name, "{byte:02x}");
                name
            });
        let folder = self.parts.cache.join("tests");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(format!("drain-{name}.raw"))
    }

    /// Registers an image of a disk. Its bytes go into the store as a whole, not block by block.
    async fn import(&self, disk: &Path) -> String {
        let gib = std::fs::metadata(disk).unwrap().len().div_ceil(1 << 30);
        let started = self
            .aws("ebs", "start_snapshot", &json!({"VolumeSize": gib}))
            .await;
        let snapshot = started["SnapshotId"].as_str().unwrap();
        copy(disk, &self.executor().store().path(snapshot)).await;
        let sealed = json!({"SnapshotId": snapshot, "ChangedBlocksCount": 0});
        self.aws("ebs", "complete_snapshot", &sealed).await;
        let described = json!({"SnapshotIds": [snapshot]});
        while self.aws("ec2", "describe_snapshots", &described).await["Snapshots"][0]["State"] != "completed"
        {
        }
        let image = json!({
            "Name": "drain",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
            "ImdsSupport": "v2.0",
        });
        let registered = self.aws("ec2", "register_image", &image).await;
        registered["ImageId"].as_str().unwrap().to_owned()
    }
}

fn word(line: &Value, key: &str) -> String {
    line[key].as_str().unwrap_or_default().to_owned()
}

async fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to);
    assert!(
        command.status().await.unwrap().success(),
        "{} was not copied",
        from.display()
    );
}
