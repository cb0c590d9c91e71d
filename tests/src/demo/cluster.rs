//! Owns the demo's main job: bake an image, start a cluster from it, run a service, ask it, take all down.
//! Touches AWS's API through cos-bake's ports and the command `cos-bake`; the environment says which AWS.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cos_bake::cloud::aws::AwsCloud;
use cos_bake::cloud::{Cloud, ImageId, InstanceId, LaunchSpec, Resource};
use cos_bake::remote::ssm::SsmRemote;
use cos_bake::remote::{Remote, Script};
use futures::future::try_join_all;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::Steps;
use super::child::{self, cancelled_by_signals};
use super::steps::talk;

/// Tag by which the nodes find their Consul servers; the user-data templates name it.
pub(crate) const CLUSTER_TAG: (&str, &str) = ("cos:consul", "main");

/// Longest time from a node's launch to its taking commands.
const ONLINE_DEADLINE: Duration = Duration::from_mins(4);

/// Longest time for a node to prove itself once it takes commands.
const HEALTH_DEADLINE: Duration = Duration::from_mins(4);

/// Longest time from the job's submission to its answer.
const ANSWER_DEADLINE: Duration = Duration::from_mins(3);

/// The roles of the demo's nodes with their user-data, as a user would write them.
pub(crate) const NODES: [(&str, &str); 3] = [
    (
        "consul-server",
        include_str!("../../../templates/user-data/consul-server.yaml"),
    ),
    (
        "nomad-server",
        include_str!("../../../templates/user-data/nomad-server.yaml"),
    ),
    (
        "nomad-client",
        include_str!("../../../templates/user-data/nomad-client.yaml"),
    ),
];

const JOB: &str = include_str!("../../../templates/jobs/hello.nomad.hcl");

/// A node that was launched.
pub(crate) struct Node {
    pub(crate) role: &'static str,
    pub(crate) instance: InstanceId,
}

/// Bakes and runs everything; whatever happens, what it made is taken down, unless it went well and is to be kept.
pub async fn main_job(cos_bake: &Path, base: &str, keep: bool) -> Result<()> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
    ensure!(
        endpoint.starts_with("http://127.0.0.1:"),
        "AWS_ENDPOINT_URL is `{endpoint}`, which is no sandbox: the demo never runs against a real account"
    );
    let cloud = AwsCloud::connect(None)
        .await
        .context("could not connect to the sandbox")?;
    let remote = SsmRemote::new(&cloud);
    let mut steps = Steps::default();
    let mut made = Vec::new();
    let cancel = cancelled_by_signals()?;
    let done = match steps
        .step(
            &format!("cos-bake ami --base {base}"),
            bake(cos_bake, base, &cancel),
        )
        .await
    {
        Ok(manifest) => {
            let cluster = Box::pin(cluster(&cloud, &remote, &manifest, &mut steps, &mut made));
            cancel
                .run_until_cancelled(cluster)
                .await
                .unwrap_or_else(|| Err(anyhow::anyhow!("interrupted")))
        }
        Err(error) => Err(error),
    };
    if keep && done.is_ok() {
        reach(&made).await;
    } else {
        let taken = steps.step("teardown", take_down(&cloud, cos_bake, &made)).await;
        done?;
        taken?;
    }
    steps.print();
    Ok(())
}

async fn cluster(
    cloud: &AwsCloud,
    remote: &SsmRemote,
    manifest: &Value,
    steps: &mut Steps,
    made: &mut Vec<Resource>,
) -> Result<()> {
    let image = ImageId::from(manifest["image"].as_str().context("the manifest has no image")?);
    made.push(Resource::Image(image.clone()));
    for phase in manifest["phases"].as_array().into_iter().flatten() {
        let seconds = phase["seconds"].as_f64().unwrap_or_default();
        steps.row(
            format!("  {}", phase["stage"].as_str().unwrap_or_default()),
            format!("{seconds:.1} s"),
        );
    }

    let nodes = steps
        .step("launch", Box::pin(launch(cloud, &image, made)))
        .await?;
    steps
        .step("cluster", Box::pin(join_cluster(remote, &nodes)))
        .await?;
    let [consul_server, nomad_server, nomad_client] = &nodes[..] else {
        bail!("three nodes were launched")
    };
    let members = steps
        .step("members", members(remote, consul_server, nomad_server))
        .await?;
    for member in members {
        steps.row("  member", member);
    }
    steps
        .step("job", run_job(remote, nomad_server, nomad_client))
        .await?;
    let answer = steps.step("answer", ask(remote, consul_server)).await?;
    steps.row("  http", answer);
    Ok(())
}

/// The real command, as a user's pipeline would call it; the environment tells it endpoint and credentials. An interrupt
/// is handed on, and the bake cleans up by itself.
pub(crate) async fn bake(cos_bake: &Path, base: &str, cancel: &CancellationToken) -> Result<(Value, String)> {
    let folder = tempfile::tempdir().context("could not make a folder for cos.lock")?;
    let mut command = Command::new(cos_bake);
    command
        .args(["ami", "--base", base, "--json"])
        .current_dir(folder.path());
    let output = child::run("cos-bake", &mut command, Stdio::piped(), cancel).await?;
    ensure!(output.status.success(), "cos-bake ended with {}", output.status);
    let manifest: Value = serde_json::from_slice(&output.stdout).context("cos-bake printed no manifest")?;
    let outcome = format!("{}, {}", manifest["image"], manifest["base"]["description"]);
    Ok((manifest, outcome.replace('"', "")))
}

async fn launch(cloud: &AwsCloud, image: &ImageId, made: &mut Vec<Resource>) -> Result<(Vec<Node>, String)> {
    let mut nodes = Vec::new();
    for (role, user_data) in NODES {
        // One server of each kind is enough for a demo; a real cluster has three.
        let user_data = user_data.replace("bootstrap_expect: 3", "bootstrap_expect: 1");
        let mut tags = BTreeMap::from([("Name".to_owned(), format!("demo {role}"))]);
        if role == "consul-server" {
            tags.insert(CLUSTER_TAG.0.to_owned(), CLUSTER_TAG.1.to_owned());
        }
        nodes.push(launch_node(cloud, image, role, user_data, tags, made).await?);
    }
    Ok((
        nodes,
        "one consul-server, one nomad-server, one nomad-client".to_owned(),
    ))
}

/// Launches one instance from an image that was baked.
pub(crate) async fn launch_node(
    cloud: &AwsCloud,
    image: &ImageId,
    role: &'static str,
    user_data: String,
    tags: BTreeMap<String, String>,
    made: &mut Vec<Resource>,
) -> Result<Node> {
    let spec = LaunchSpec {
        image: image.clone(),
        instance_type: "m6i.large".to_owned(),
        subnet: None,
        profile: Some("cos-node".to_owned()),
        security_groups: Vec::new(),
        user_data,
        root_volume: None,
        volumes: Vec::new(),
        instance_tags: false,
        token_required: true,
        terminate_on_shutdown: true,
        tags,
        token: uuid::Uuid::new_v4().to_string(),
    };
    let instance = cloud
        .launch(&spec)
        .await
        .with_context(|| format!("could not launch the {role}"))?;
    talk(&format!("    {role} is {instance}"));
    made.push(Resource::Instance(instance.clone()));
    Ok(Node { role, instance })
}

/// Every node proves itself with its own agent.
async fn join_cluster(remote: &SsmRemote, nodes: &[Node]) -> Result<((), String)> {
    try_join_all(nodes.iter().map(async |node| {
        online(remote, node).await?;
        let script = "cloud-init status --wait >/dev/null 2>&1 || { tail -n 40 /var/log/cloud-init-output.log >&2; exit 1; }\n\
                      exec cos-agent health --deadline 180s";
        run(remote, node, "health", script, HEALTH_DEADLINE).await?;
        talk(&format!("    {} {} is healthy", node.role, node.instance));
        anyhow::Ok(())
    }))
    .await?;
    Ok(((), "every node is healthy".to_owned()))
}

pub(crate) async fn online(remote: &SsmRemote, node: &Node) -> Result<()> {
    let end = Instant::now() + ONLINE_DEADLINE;
    while !remote.online(&node.instance).await? {
        ensure!(
            Instant::now() < end,
            "{} {} takes no commands",
            node.role,
            node.instance
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn members(
    remote: &SsmRemote,
    consul_server: &Node,
    nomad_server: &Node,
) -> Result<(Vec<String>, String)> {
    let consul = run(
        remote,
        consul_server,
        "consul members",
        "consul members",
        HEALTH_DEADLINE,
    )
    .await?;
    let nomad = run(
        remote,
        nomad_server,
        "nomad nodes",
        "nomad node status",
        HEALTH_DEADLINE,
    )
    .await?;
    let servers = run(
        remote,
        nomad_server,
        "nomad members",
        "nomad server members",
        HEALTH_DEADLINE,
    )
    .await?;
    let rows = |listing: &str| listing.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (consul, nomad, servers) = (rows(&consul), rows(&nomad), rows(&servers));
    ensure!(
        consul.len() == NODES.len(),
        "Consul has {} members, not {}",
        consul.len(),
        NODES.len()
    );
    ensure!(servers.len() == 1, "Nomad has {} servers, not 1", servers.len());
    ensure!(
        nomad.len() == 1 && nomad[0].contains("ready"),
        "the Nomad client is not ready: {nomad:?}"
    );
    let outcome = format!("{} in Consul, {} client in Nomad", consul.len(), nomad.len());
    Ok((consul.into_iter().chain(servers).chain(nomad).collect(), outcome))
}

/// Submits the sample job. There is no registry in the sandbox, so the client makes the image of its own Python.
async fn run_job(remote: &SsmRemote, nomad_server: &Node, nomad_client: &Node) -> Result<((), String)> {
    let import = "set -eu\n\
        cd /\n\
        ls -d usr/bin/python3* usr/lib/python3* usr/lib/*-linux-gnu usr/lib64 lib lib64 2>/dev/null > /tmp/image.list\n\
        tar -c -T /tmp/image.list --exclude='*.pyc' --exclude=lib/modules | docker import - cos-hello:1";
    run(remote, nomad_client, "import the image", import, ANSWER_DEADLINE).await?;
    let submit = format!(
        "set -eu\ncat > /tmp/hello.nomad.hcl <<'JOB'\n{JOB}\nJOB\nnomad job run /tmp/hello.nomad.hcl"
    );
    run(remote, nomad_server, "run the job", &submit, ANSWER_DEADLINE).await?;
    Ok(((), "hello is deployed".to_owned()))
}

/// Another node finds the service through Consul and asks it.
async fn ask(remote: &SsmRemote, consul_server: &Node) -> Result<(String, String)> {
    let end = Instant::now() + ANSWER_DEADLINE;
    loop {
        let script = "curl -fsS 'http://127.0.0.1:8500/v1/health/service/hello?passing'";
        let listing = run(remote, consul_server, "find the service", script, HEALTH_DEADLINE).await?;
        let services: Value = serde_json::from_str(&listing).context("Consul answered no JSON")?;
        if let Some(service) = services.get(0).map(|found| &found["Service"]) {
            let address = service["Address"]
                .as_str()
                .context("the service has no address")?;
            let url = format!("http://{address}:{}/", service["Port"]);
            let script = format!("curl -fsS {url}");
            let answer = run(remote, consul_server, "ask the service", &script, HEALTH_DEADLINE).await?;
            ensure!(
                answer.starts_with("hello from public-services"),
                "the service at {url} answered something else: {answer}"
            );
            return Ok((answer.trim().to_owned(), format!("Consul knows hello at {url}")));
        }
        ensure!(Instant::now() < end, "Consul knows no healthy hello");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Runs a script on a node; any status but 0 is an error with its words.
pub(crate) async fn run(
    remote: &SsmRemote,
    node: &Node,
    name: &str,
    text: &str,
    deadline: Duration,
) -> Result<String> {
    let script = Script {
        name: name.to_owned(),
        text: text.to_owned(),
        deadline,
    };
    let output = remote.run(&node.instance, &script).await?;
    ensure!(
        output.status == Some(0),
        "`{name}` on the {} {} ended with {:?}: {}{}",
        node.role,
        node.instance,
        output.status,
        output.stderr,
        output.stdout
    );
    Ok(output.stdout)
}

pub(crate) async fn take_down(cloud: &AwsCloud, cos_bake: &Path, made: &[Resource]) -> Result<((), String)> {
    let mut failures = Vec::new();
    for resource in made.iter().rev() {
        if let Err(error) = cloud.delete(resource).await {
            failures.push(format!("{resource}: {error}"));
        }
    }
    let swept = Command::new(cos_bake)
        .arg("sweep")
        .stdout(Stdio::null())
        .status()
        .await?;
    if !swept.success() {
        failures.push(format!("cos-bake sweep ended with {swept}"));
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(((), format!("{} resources removed", made.len())))
}

/// Says how the cluster can be reached from this machine.
async fn reach(made: &[Resource]) {
    let control = std::env::var("COS_SANDBOX").unwrap_or_default();
    let client = reqwest::Client::new();
    let instances = made
        .iter()
        .filter(|resource| matches!(resource, Resource::Instance(_)));
    for ((role, _), resource) in NODES.iter().zip(instances) {
        let (what, port) = if *role == "consul-server" {
            ("Consul", 8500)
        } else {
            ("Nomad", 4646)
        };
        let wanted = serde_json::json!({"instance": resource.id(), "port": port}).to_string();
        let request = client
            .post(format!("{control}/forward"))
            .header("content-type", "application/json");
        let answer = match request.body(wanted).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let address = answer["address"].as_str().unwrap_or("not reachable").to_owned();
        talk(&format!(
            "{what} on the {role} ({}): http://{address}/ui",
            resource.id()
        ));
    }
}
