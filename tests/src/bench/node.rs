//! Owns what a bench asks of a node, by commands on it: the report of its boot, the agent's memory and time on a core,
//! a login for ECR, today's script. Touches machines through Run Command, and files of a container from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cos_bake::remote::ssm::SsmRemote;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::record::moment;
use crate::demo::{Node, run_on};

/// Longest time from a node's first command to the end of its boot.
const BOOT: Duration = Duration::from_mins(5);

/// Where the peak of the agent's memory is noted on a node.
const PEAK: &str = "/run/bench-peak";

/// A first boot, as the agent reports it.
#[derive(Debug)]
pub(super) struct Boot {
    /// When `apply` began.
    pub(super) began: Timestamp,
    /// Milliseconds until the metadata service had answered.
    pub(super) answered: f64,
    /// Milliseconds until all files were written and all units had been asked to start.
    pub(super) asked: f64,
    /// Milliseconds until the first units had been asked to start: Consul, Docker. Nomad is asked when both are up.
    pub(super) first: f64,
    /// Milliseconds of all of it.
    pub(super) all: f64,
    /// Peak memory of `apply` in MB.
    pub(super) peak: f64,
    /// What was done until then, each from and to which millisecond.
    pub(super) course: String,
}

#[derive(Deserialize)]
struct Report {
    #[serde(deserialize_with = "moment")]
    began: Timestamp,
    milliseconds: f64,
    outcome: BTreeMap<String, Option<String>>,
    phases: Vec<Phase>,
}

#[derive(Deserialize)]
struct Phase {
    name: String,
    start: f64,
    milliseconds: f64,
}

impl Phase {
    fn end(&self) -> f64 {
        self.start + self.milliseconds
    }
}

impl Boot {
    /// When it ended.
    pub(super) fn ended(&self) -> Timestamp {
        let length = SignedDuration::try_from_secs_f64(self.all / 1000.0).unwrap_or_default();
        self.began.saturating_add(length).unwrap_or(Timestamp::MAX)
    }

    fn read(report: &str, peak: &str) -> Result<Self> {
        let report: Report = serde_json::from_str(report).context("the agent's report is another")?;
        let result = report.outcome.get("result").cloned().flatten();
        ensure!(
            result.as_deref() == Some("done"),
            "apply ended with {:?}",
            report.outcome
        );
        let last = |begins: &str| {
            let named = report
                .phases
                .iter()
                .filter(|phase| phase.name.starts_with(begins));
            named
                .map(Phase::end)
                .max_by(f64::total_cmp)
                .with_context(|| format!("the report has no phase '{begins}'"))
        };
        let asked = last("ask to ")?.max(last("write files")?);
        let starts = report
            .phases
            .iter()
            .filter(|phase| phase.name.starts_with("ask to "));
        let first = starts.map(Phase::end).min_by(f64::total_cmp).unwrap_or(asked);
        let mut before: Vec<&Phase> = report
            .phases
            .iter()
            .filter(|phase| phase.end() <= asked)
            .collect();
        before.sort_by(|one, other| one.start.total_cmp(&other.start));
        let course = before
            .iter()
            .map(|phase| format!("{} {:.0}..{:.0}", phase.name, phase.start, phase.end()));
        let kilobytes = peak
            .split_whitespace()
            .nth(1)
            .context("the peak of memory was not noted")?;
        Ok(Self {
            began: report.began,
            answered: last("documents")?,
            asked,
            first,
            all: report.milliseconds,
            peak: kilobytes.parse::<f64>()? * 1024.0 / 1e6,
            course: course.collect::<Vec<_>>().join(", "),
        })
    }
}

/// User-data whose `apply` is watched for its memory: the kernel's own high-water mark, which is as it was at the end
/// because `apply` waits for its units long after it has done all else.
pub(super) fn watched(user_data: &str) -> Result<String> {
    let plain = "- [cos-agent, apply]";
    ensure!(
        user_data.contains(plain),
        "the template's runcmd is another than this bench knows"
    );
    let script = format!(
        "cos-agent apply & agent=$!; while grep VmHWM /proc/$agent/status > {PEAK}.new; do mv {PEAK}.new {PEAK}; \
         sleep 0.05; done; wait $agent"
    );
    Ok(user_data.replace(plain, &format!("- [sh, -c, '{script}']")))
}

/// Waits for a node's first boot and reads how it went.
pub(super) async fn first_boot(remote: &SsmRemote, node: &Node) -> Result<Boot> {
    let script = format!(
        "cloud-init status --wait >/dev/null 2>&1 || {{ tail -n 40 /var/log/cloud-init-output.log >&2; exit 1; }}\n\
         cat {PEAK} && cos-agent report --json"
    );
    let said = run_on(remote, node, "read the report", &script, BOOT).await?;
    let (peak, report) = said.split_once('\n').context("the node said nothing")?;
    Boot::read(report, peak)
}

/// Runs today's script on a node that nobody configured, with an AWS CLI that is laid into its files from outside.
/// Milliseconds of all of it, and of its calls of AWS.
pub(super) async fn today(remote: &SsmRemote, node: &Node, root: &Path, aws: &Path) -> Result<(f64, f64)> {
    let told = |path: &Path| path.display().to_string();
    let status = tokio::process::Command::new("cp")
        .args(["--recursive", &told(aws), &told(&root.join("opt/today"))])
        .status()
        .await?;
    ensure!(
        status.success(),
        "the AWS CLI could not be copied to {}",
        root.display()
    );
    std::fs::write(root.join("opt/today.sh"), include_str!("today.sh"))?;
    let script = "cloud-init status --wait >/dev/null 2>&1\n\
                  python3 -m compileall -q /opt/today >/dev/null 2>&1\n\
                  bash /opt/today.sh >/run/today.out && tail -n 1 /run/today.out";
    let said = run_on(remote, node, "today's script", script, BOOT).await?;
    let took: BTreeMap<String, f64> =
        serde_json::from_str(&said).with_context(|| format!("today's script said: {said}"))?;
    let of = |key: &str| took.get(key).map(|it| it / 1000.0).context("it measured nothing");
    Ok((of("all")?, of("aws")?))
}

/// What the watcher costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watcher {
    /// Peak of its memory in MB.
    pub(super) peak: f64,
    /// Its memory now in MB.
    pub(super) resident: f64,
    /// Seconds on a core since it began.
    pub(super) busy: f64,
}

/// Lets the watcher, which `apply` started, come to rest.
pub(super) async fn rest_watcher(remote: &SsmRemote, node: &Node) -> Result<()> {
    let script = "systemctl is-active cos-agent-watch.service && sleep 15";
    run_on(remote, node, "let the watcher rest", script, BOOT)
        .await
        .map(drop)
}

/// Looks at the running watcher.
pub(super) async fn watcher(remote: &SsmRemote, node: &Node) -> Result<Watcher> {
    let script = "set -e\n\
        pid=$(systemctl show --property MainPID --value cos-agent-watch.service)\n\
        sed -n 's/^VmHWM:\\|^VmRSS://p' /proc/$pid/status\n\
        cat /proc/$pid/task/*/schedstat";
    let said = run_on(remote, node, "look at the watcher", script, BOOT).await?;
    let first: Vec<f64> = said
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    let [peak, resident, threads @ ..] = &first[..] else {
        anyhow::bail!("the watcher does not run: {said}")
    };
    let megabytes = |kilobytes: f64| kilobytes * 1024.0 / 1e6;
    Ok(Watcher {
        peak: megabytes(*peak),
        resident: megabytes(*resident),
        busy: threads.iter().sum::<f64>() / 1e9,
    })
}

/// Milliseconds of a login from the helper's cache, from the start of the program to its end, some times.
pub(super) async fn warm_logins(remote: &SsmRemote, node: &Node) -> Result<Vec<f64>> {
    let script = r#"exec python3 - <<'PYTHON'
import json, subprocess, time
registry = b"123456789012.dkr.ecr.us-east-1.amazonaws.com"
def ask():
    began = time.perf_counter()
    answer = subprocess.run(["/usr/local/bin/docker-credential-ecr-login", "get"], input=registry, check=True,
                            stdout=subprocess.PIPE, close_fds=False)
    took = (time.perf_counter() - began) * 1000
    assert json.loads(answer.stdout)["Username"] == "AWS"
    return round(took, 3)
ask()
print(json.dumps([ask() for _ in range(30)]))
PYTHON"#;
    let said = run_on(remote, node, "logins for ECR", script, BOOT).await?;
    serde_json::from_str(&said).context("the logins were not timed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_up_to_the_last_start_that_was_asked() {
        let report = r#"{"began": "2026-01-01T00:00:00Z", "milliseconds": 1500, "outcome": {"result": "done"},
            "phases": [{"name": "documents", "start": 1, "milliseconds": 9},
                       {"name": "write files", "start": 20, "milliseconds": 5},
                       {"name": "ask to start consul", "start": 26, "milliseconds": 4},
                       {"name": "consul", "start": 26, "milliseconds": 900},
                       {"name": "ask to start nomad", "start": 930, "milliseconds": 5}]}"#;
        let boot = Boot::read(report, "VmHWM:\t  5000 kB").unwrap();
        assert_eq!(
            (boot.answered, boot.first, boot.asked, boot.all, boot.peak),
            (10.0, 30.0, 935.0, 1500.0, 5.12)
        );
        assert!(
            boot.course.starts_with("documents 1..10, write files 20..25, "),
            "{}",
            boot.course
        );
        assert_eq!(boot.ended().to_string(), "2026-01-01T00:00:01.5Z");
        let failed = report.replace("done", "failed");
        assert!(Boot::read(&failed, "VmHWM: 1 kB").is_err());
    }

    #[test]
    fn each_template_can_be_watched() {
        for (role, user_data) in crate::demo::NODES {
            assert!(watched(user_data).unwrap().contains("VmHWM"), "{role}");
        }
        assert!(watched("runcmd: []").is_err());
    }
}
