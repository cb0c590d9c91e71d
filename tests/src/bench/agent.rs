//! Owns the agent's bench: first boots from a baked image beside today's script on the same image, line by line.
//! Touches AWS's API through cos-bake's ports and the command `cos-bake`; the environment says which AWS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cos_bake::cloud::aws::AwsCloud;
use cos_bake::cloud::{Cloud as _, ImageId, Resource};
use cos_bake::remote::ssm::SsmRemote;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::line::{Limit, Line};
use super::node::{self, Boot};
use super::record;
use crate::demo::{self, CLUSTER_TAG, NODES, Node, Steps};

/// What the agent's bench is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program cos-bake.
    pub cos_bake: PathBuf,
    /// The agent that it puts into images.
    pub agent: PathBuf,
    /// Base to bake on.
    pub base: String,
    /// First boots of each kind.
    pub boots: usize,
    /// How long the watcher is looked at.
    pub watch: Duration,
    /// Folder with the Python package `awscli` and what it needs.
    pub aws: PathBuf,
    /// The sandbox's record of calls.
    pub record: PathBuf,
    /// Folder of the sandbox's machines.
    pub machines: PathBuf,
}

/// What was measured, value by value.
#[derive(Default)]
struct Measured {
    clients: Vec<Boot>,
    servers: Vec<f64>,
    today: Vec<f64>,
    today_aws: Vec<f64>,
    client_calls: Vec<f64>,
    server_calls: Vec<f64>,
    metadata: Vec<f64>,
    peaks: Vec<f64>,
    watch_peak: Vec<f64>,
    watch_growth: Vec<f64>,
    watch_busy: Vec<f64>,
    logins: Vec<f64>,
}

/// Bakes, boots, measures, and takes everything down again.
pub async fn agent(settings: &Settings) -> Result<Vec<Line>> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
    ensure!(
        endpoint.starts_with("http://127.0.0.1:"),
        "AWS_ENDPOINT_URL is `{endpoint}`, which is no sandbox: a bench never runs against a real account"
    );
    let cancel = demo::cancelled_by_signals()?;
    let mut bench = Bench {
        settings,
        cloud: AwsCloud::connect(None)
            .await
            .context("could not connect to the sandbox")?,
        steps: Steps::default(),
        made: Vec::new(),
        measured: Measured::default(),
    };
    let done = Box::pin(bench.all(&cancel)).await;
    let taken = bench
        .steps
        .step(
            "teardown",
            demo::take_down(&bench.cloud, &settings.cos_bake, &bench.made),
        )
        .await;
    done?;
    taken?;
    bench.measured.lines(&settings.agent)
}

struct Bench<'a> {
    settings: &'a Settings,
    cloud: AwsCloud,
    steps: Steps,
    made: Vec<Resource>,
    measured: Measured,
}

impl Bench<'_> {
    async fn all(&mut self, cancel: &CancellationToken) -> Result<()> {
        let Settings { cos_bake, base, .. } = self.settings;
        let bake = demo::bake(cos_bake, base, cancel);
        let manifest: Value = self.steps.step("bake", bake).await?;
        let image = ImageId::from(manifest["image"].as_str().context("the manifest has no image")?);
        self.made.push(Resource::Image(image.clone()));
        let boots = Box::pin(self.boots(&image));
        cancel
            .run_until_cancelled(boots)
            .await
            .unwrap_or_else(|| Err(anyhow::anyhow!("interrupted")))
    }

    async fn boots(&mut self, image: &ImageId) -> Result<()> {
        for role in ["consul-server", "nomad-server"] {
            let (_node, boot) = self.boot(image, role).await?;
            let calls = self.calls(&boot)?;
            self.measured.server_calls.push(calls);
            self.measured.servers.push(boot.asked - boot.answered);
        }
        for number in 1..=self.settings.boots {
            let (node, boot) = self.boot(image, "nomad-client").await?;
            let calls = self.calls(&boot)?;
            self.measured.client_calls.push(calls);
            self.measured.clients.push(boot);
            if number == self.settings.boots {
                self.settled(&node).await?;
            }
            self.end(node).await?;

            self.by_todays_script(image).await?;
        }
        Ok(())
    }

    /// One first boot by the agent.
    async fn boot(&mut self, image: &ImageId, role: &'static str) -> Result<(Node, Boot)> {
        let user_data = NODES.iter().find(|(name, _)| *name == role);
        let (_, user_data) = user_data.context("there is no such role")?;
        let user_data = node::watched(user_data)?.replace("bootstrap_expect: 3", "bootstrap_expect: 1");
        let node = self.launch(image, role, user_data).await?;
        let remote = SsmRemote::new(&self.cloud);
        let boot = async {
            let boot = node::first_boot(&remote, &node).await?;
            let outcome = format!(
                "{:.1} ms until all starts were asked: {}",
                boot.asked, boot.course
            );
            anyhow::Ok((boot, outcome))
        };
        let boot = self.steps.step(&format!("first boot, {role}"), boot).await?;
        let requests = self.requests(&node, &boot)?;
        self.measured.metadata.push(requests);
        self.measured.peaks.push(boot.peak);
        Ok((node, boot))
    }

    async fn launch(&mut self, image: &ImageId, role: &'static str, user_data: String) -> Result<Node> {
        let mut tags = BTreeMap::from([("Name".to_owned(), format!("bench {role}"))]);
        if role == "consul-server" {
            tags.insert(CLUSTER_TAG.0.to_owned(), CLUSTER_TAG.1.to_owned());
        }
        let node = demo::launch_node(&self.cloud, image, role, user_data, tags, &mut self.made).await?;
        demo::online(&SsmRemote::new(&self.cloud), &node).await?;
        Ok(node)
    }

    /// One boot of the same image by today's script.
    async fn by_todays_script(&mut self, image: &ImageId) -> Result<()> {
        let node = self
            .launch(image, "nomad-client", "#cloud-config\n".to_owned())
            .await?;
        let root = self
            .settings
            .machines
            .join(node.instance.to_string())
            .join("root");
        let remote = SsmRemote::new(&self.cloud);
        let script = async {
            let (all, aws) = node::today(&remote, &node, &root, &self.settings.aws).await?;
            let outcome = format!("{all:.0} ms, of which {aws:.0} ms in the AWS CLI");
            anyhow::Ok(((all, aws), outcome))
        };
        let (all, aws) = self.steps.step("today's script", script).await?;
        self.measured.today.push(all);
        self.measured.today_aws.push(aws);
        self.end(node).await
    }

    /// What can be seen of a node that is up and has nothing to do.
    async fn settled(&mut self, node: &Node) -> Result<()> {
        let remote = SsmRemote::new(&self.cloud);
        let logins = async { anyhow::Ok((node::warm_logins(&remote, node).await?, "timed".to_owned())) };
        self.measured.logins = self.steps.step("logins for ECR", logins).await?;
        let length = self.settings.watch;
        let watch = async {
            node::rest_watcher(&remote, node).await?;
            let before = node::watcher(&remote, node).await?;
            let began = std::time::Instant::now();
            tokio::time::sleep(length).await;
            let after = node::watcher(&remote, node).await?;
            let seconds = began.elapsed().as_secs_f64();
            let share = (after.busy - before.busy) / seconds * 100.0;
            let outcome = format!("{share:.4} % of a core over {seconds:.0} s");
            anyhow::Ok(((before, after, share), outcome))
        };
        let (before, after, share) = self.steps.step("an idle watcher", watch).await?;
        self.measured.watch_peak.push(after.peak);
        self.measured
            .watch_growth
            .push((after.resident - before.resident).max(0.0));
        self.measured.watch_busy.push(share);
        Ok(())
    }

    async fn end(&mut self, node: Node) -> Result<()> {
        let resource = Resource::Instance(node.instance);
        self.cloud.delete(&resource).await?;
        self.made.retain(|made| *made != resource);
        Ok(())
    }

    /// Calls of EC2's API that the agent made until all starts were asked. Consul, which the agent starts, finds its
    /// servers by a call of its own.
    fn calls(&self, boot: &Boot) -> Result<f64> {
        let calls = record::between(&self.settings.record, boot.began, boot.ended())?;
        let count = calls
            .iter()
            .filter(|call| call.service == "ec2" && call.is_of_the_agent())
            .count();
        Ok(number(count))
    }

    /// Requests to the metadata service that the agent made during `apply`.
    fn requests(&self, node: &Node, boot: &Boot) -> Result<f64> {
        let instance = node.instance.to_string();
        let calls = record::between(&self.settings.record, boot.began, boot.ended())?;
        let count = calls
            .iter()
            .filter(|call| call.service == "imds" && call.is_of_the_agent() && call.is_from(&instance))
            .count();
        ensure!(
            count > 0,
            "the record names no request of {instance} to the metadata service"
        );
        Ok(number(count))
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Measured {
    fn lines(self, agent: &Path) -> Result<Vec<Line>> {
        let size = std::fs::metadata(agent).with_context(|| format!("{} is missing", agent.display()))?;
        let boots = || self.clients.iter();
        let asked: Vec<f64> = boots().map(|boot| boot.asked).collect();
        let after = boots().map(|boot| boot.asked - boot.answered);
        let first = boots().map(|boot| boot.first - boot.answered);
        let answered = boots().map(|boot| boot.answered);
        let today = Line::new(
            "today's script, all of that",
            "ms",
            Limit::None,
            self.today.clone(),
        )?;
        let faster = asked.iter().map(|it| today.median / it).collect();
        [
            Line::new(
                "client: IMDS answered to files written, all starts asked",
                "ms",
                Limit::AtMost(50.0),
                after.collect(),
            ),
            Line::new(
                "  of which to Consul's and Docker's start asked",
                "ms",
                Limit::None,
                first.collect(),
            ),
            Line::new(
                "  before: begin to IMDS answered",
                "ms",
                Limit::None,
                answered.collect(),
            ),
            Line::new(
                "servers: IMDS answered to files written, all starts asked",
                "ms",
                Limit::AtMost(50.0),
                self.servers,
            ),
            Ok(today),
            Line::new("  of which the AWS CLI", "ms", Limit::None, self.today_aws),
            Line::new(
                "client, begin to all starts asked, against today's script",
                "x faster",
                Limit::AtLeast(50.0),
                faster,
            ),
            Line::new(
                "the agent's file",
                "MB",
                Limit::AtMost(5.0),
                vec![number(usize::try_from(size.len())?) / 1e6],
            ),
            Line::new("peak memory, apply", "MB", Limit::AtMost(12.0), self.peaks),
            Line::new("peak memory, watch", "MB", Limit::AtMost(8.0), self.watch_peak),
            Line::new("  growth while idle", "MB", Limit::None, self.watch_growth),
            Line::new("watch, idle", "% of a core", Limit::AtMost(0.1), self.watch_busy),
            Line::new(
                "EC2 calls at boot, client",
                "calls",
                Limit::AtMost(0.0),
                self.client_calls,
            ),
            Line::new(
                "EC2 calls at boot, server",
                "calls",
                Limit::AtMost(1.0),
                self.server_calls,
            ),
            Line::new("IMDS requests", "requests", Limit::AtMost(12.0), self.metadata),
            Line::new("ECR login, warm", "ms", Limit::AtMost(5.0), self.logins),
        ]
        .into_iter()
        .collect()
    }
}
