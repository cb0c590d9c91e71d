//! The whole chain on real machines: bake, boot test, cluster, job; a block of the payload that changes on its way; a
//! bake that is killed; a base without a packet filter. Needs root, and what `./dev test` names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that takes minutes says where it is")]

mod support;

use std::path::Path;
use std::process::{Output, Stdio};

use cos_tests::sandbox::session;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use support::Parts;

/// As a user would ask, with Amazon's own library for Python.
const ASK_FOR_THE_TIMER: &str = r#"
import boto3, time
running = [{"Name": "instance-state-name", "Values": ["running"]}]
found = boto3.client("ec2").describe_instances(Filters=running)["Reservations"]
builder = found[0]["Instances"][0]["InstanceId"]
ssm = boto3.client("ssm")
ask = "cloud-init status --wait >/dev/null; systemctl is-active cos-dead-man.timer"
sent = ssm.send_command(
    InstanceIds=[builder], DocumentName="AWS-RunShellScript", Parameters={"commands": [ask]}
)["Command"]["CommandId"]
for _ in range(240):
    time.sleep(1)
    answer = ssm.get_command_invocation(CommandId=sent, InstanceId=builder)
    if answer["Status"] not in ("Pending", "InProgress", "Delayed"):
        break
print(answer["Status"], answer["StandardOutputContent"])
"#;

/// A sandbox with real machines that ends with the test, also when the test fails.
struct Sandbox {
    name: &'static str,
    parts: Parts,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Sandbox {
    async fn up(parts: Parts, name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(parts.bin.join("cos-sandbox"));
        command
            .args(["up", "--detach", "--name", name])
            .args(parts.up(&folder.path().join("state")));
        let output = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .await
            .unwrap();
        assert!(output.status.success(), "the sandbox did not start");
        let exports = String::from_utf8(output.stdout).unwrap();
        let environment = exports.lines().filter_map(session::export).collect();
        Self {
            name,
            parts,
            folder,
            environment,
        }
    }

    fn control(&self, command: &str) -> std::process::Command {
        control(&self.parts, command, self.name, &self.folder.path().join("state"))
    }

    fn cos_bake(&self, arguments: &[&str]) -> Command {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        self.parts.cos_bake(arguments, self.folder.path(), environment)
    }

    /// Runs `cos-bake`, with its talk on this test's own; `seen` gets each line and the process.
    async fn watched(&self, arguments: &[&str], mut seen: impl FnMut(&str, Pid)) -> (Output, String) {
        let mut child = self.cos_bake(arguments).spawn().unwrap();
        let process = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut talk = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            eprintln!("    {line}");
            talk.push_str(&line);
            talk.push('\n');
            seen(&line, process);
        }
        (child.wait_with_output().await.unwrap(), talk)
    }

    /// What the builder says of the timer that ends it when its bake is dead, once its first boot is over.
    async fn dead_man_timer(&self) -> String {
        let asked = Command::new(&self.parts.python)
            .args(["-c", ASK_FOR_THE_TIMER])
            .envs(self.environment.clone())
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&asked.stdout).into_owned() + &String::from_utf8_lossy(&asked.stderr)
    }

    /// What the sandbox's own listing holds.
    fn listing(&self) -> Value {
        let output = self.control("list").arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Nothing is left, once machines that shut down have had their time.
    async fn assert_nothing_left(&self) {
        for _ in 0..240 {
            if self.listing()["leftovers"] == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        panic!("{:#}", self.listing());
    }
}

fn control(parts: &Parts, command: &str, name: &str, state: &Path) -> std::process::Command {
    let mut control = std::process::Command::new(parts.bin.join("cos-sandbox"));
    control.args([command, "--name", name, "--state"]).arg(state);
    control
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let ended = self.control("down").status();
        assert!(
            std::thread::panicking() || ended.is_ok_and(|status| status.success()),
            "the sandbox did not end"
        );
    }
}

#[tokio::test]
async fn the_demo_runs_to_its_end() {
    let Some(parts) = Parts::find("the_demo_runs_to_its_end") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(parts.bin.join("cos-demo"))
        .args(parts.up(&folder.path().join("state")))
        .args(["--name", "demo"])
        .env("COS_CACHE", parts.cache.join("cos-bake"))
        .env("COS_LEDGER", folder.path().join("ledger"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    eprintln!("{table}");
    assert!(output.status.success());
    for row in [
        "hello from public-services",
        "0 by the sandbox's own listing",
        "stand-in",
        "boot-test",
    ] {
        assert!(table.contains(row), "`{row}` is not in the table");
    }
}

#[tokio::test]
async fn an_interrupt_while_the_sandbox_starts_leaves_nothing() {
    const NAME: &str = "interrupted";
    let Some(parts) = Parts::find("an_interrupt_while_the_sandbox_starts") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for milliseconds in [100, 500, 1000, 2000, 4000] {
        for program in ["cos-demo", "cos-sandbox"] {
            let mut command = Command::new(parts.bin.join(program));
            if program == "cos-sandbox" {
                command.args(["up", "--detach"]);
            }
            let mut child = command
                .args(parts.up(&state))
                .args(["--name", NAME])
                .env("COS_CACHE", parts.cache.join("cos-bake"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
            // A sandbox that was quicker is there to stay; the next round ends it.
            let process = Pid::from_raw(child.id().unwrap_or_default().try_into().unwrap());
            if child.try_wait().unwrap().is_none() {
                kill(process, Signal::SIGTERM).unwrap();
                let status = child.wait().await.unwrap();
                assert!(!status.success(), "{program} after {milliseconds} ms");
            } else {
                assert!(control(&parts, "down", NAME, &state).status().unwrap().success());
            }
            let listed = control(&parts, "list", NAME, &state).output().unwrap();
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(
                listed.contains("does not run") && listed.contains("leftovers: 0"),
                "{program} after {milliseconds} ms: {listed}"
            );
            let namespaces = Command::new("ip").args(["netns", "list"]).output().await.unwrap();
            let namespaces = String::from_utf8_lossy(&namespaces.stdout).into_owned();
            assert!(
                !namespaces.contains(NAME),
                "{program} after {milliseconds} ms: {namespaces}"
            );
        }
    }
}

#[tokio::test]
async fn bakes_that_go_wrong_on_real_machines_leave_nothing_and_al2023_gets_its_packet_filter() {
    let Some(parts) = Parts::find("bakes_that_go_wrong") else {
        return;
    };
    let sandbox = Sandbox::up(parts, "chain").await;

    eprintln!("==> one block of the payload changes between upload and builder");
    let disks = sandbox.folder.path().join("state/chain/disks");
    let ami = ["ami", "--base", "al2", "--json"];
    let (output, talk) = sandbox
        .watched(&ami, |line, _| {
            if line.contains("payload    done") {
                flip_payload(&disks);
            }
        })
        .await;
    assert_eq!(output.status.code(), Some(4), "{talk}");
    let digests = talk
        .split(|c: char| !c.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .count();
    assert!(digests >= 2, "both digests are named:\n{talk}");
    sandbox.assert_nothing_left().await;

    eprintln!("==> killed while the agent installs, then swept");
    let (output, talk) = sandbox
        .watched(&ami, |line, process| {
            if line.contains("provision  started") {
                kill(process, Signal::SIGKILL).unwrap();
            }
        })
        .await;
    assert_eq!(output.status.code(), None, "{talk}");
    let timer = sandbox.dead_man_timer().await;
    // Not by its end: `inactive` has the same.
    assert!(
        timer.lines().any(|line| line == "Success active"),
        "the builder would live on: {timer}"
    );
    let swept = sandbox.cos_bake(&["sweep"]).output().await.unwrap();
    let told = String::from_utf8_lossy(&swept.stdout);
    assert!(swept.status.success() && told.contains("instance i-"), "{told}");
    sandbox.assert_nothing_left().await;

    eprintln!("==> a base without a packet filter gets one from its own repositories");
    let (output, talk) = sandbox
        .watched(&["ami", "--base", "al2023", "--json"], |_, _| {})
        .await;
    assert!(output.status.success(), "{talk}");
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = manifest["packages"].as_array().unwrap();
    assert!(
        packages
            .iter()
            .any(|package| package.as_str().unwrap().contains("iptables")),
        "{manifest:#}"
    );
}

/// Flips a bit in the middle of the payload's disk: the only snapshot that no base has, found by its magic.
fn flip_payload(disks: &Path) {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
    for entry in std::fs::read_dir(disks).unwrap() {
        let path = entry.unwrap().path();
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut magic = [0; 13];
        let payload = file.read_exact(&mut magic).is_ok() && &magic == b"COS-PAYLOAD-1";
        if payload {
            let mut byte = [0];
            file.seek(SeekFrom::Start(60_000_000)).unwrap();
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::Start(60_000_000)).unwrap();
            file.write_all(&[byte[0] ^ 1]).unwrap();
            return;
        }
    }
    panic!("no disk in {} is a payload", disks.display());
}
