//! Owns the cluster of the scenarios: two Auto Scaling groups, and what Nomad, Consul and Auto Scaling say of it.
//! Touches the sandbox's AWS and the agents of its nodes.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::http;
use super::scene::Scene;
use super::traffic::{Mark, Traffic};

/// The groups. Servers are Consul's and Nomad's at once, so that three machines are enough for both quorums.
pub(crate) const SERVERS: &str = "servers";
pub(crate) const CLIENTS: &str = "clients";

/// Hooks of both groups, and how long they wait for a word. Short, so that heartbeats are seen.
pub(crate) const LAUNCH: &str = "ready";
pub(crate) const TERMINATE: &str = "gone";
const HOOK_SECONDS: u32 = 30;

const CLIENT: &str = include_str!("../../../templates/user-data/nomad-client.yaml");
const SERVER: &str = include_str!("../../../templates/user-data/consul-server.yaml");
const JOB: &str = include_str!("service.nomad.hcl");

/// The node as Nomad's servers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) eligible: bool,
    pub(crate) drains: bool,
    /// Allocations of the sample service that run.
    pub(crate) running: usize,
}

/// Whether another instance comes in the place of one that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capacity {
    Kept,
    Less,
}

/// The cluster, with users who ask its service without a pause.
pub(crate) struct Cluster<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) traffic: Traffic,
}

impl<'a> Cluster<'a> {
    /// Both groups, in service by the word of their own nodes, and the sample service, with users.
    pub(crate) async fn start(scene: &'a Scene, image: &str) -> Self {
        let server = SERVER.replace(
            "role: consul-server",
            "role: [consul-server, nomad-server]\n      datacenter: leader\n      nomad: {bootstrap_expect: 3}",
        );
        group(scene, SERVERS, image, &server).await;
        group(scene, CLIENTS, image, CLIENT).await;
        for name in [SERVERS, CLIENTS] {
            until("both groups are in service", Duration::from_mins(3), async || {
                let states = scene.members(name).await;
                let ready = states.iter().filter(|(_, state)| state == "InService").count();
                (ready == 3).then_some(())
            })
            .await;
        }
        let agents = Vec::new();
        let cluster = Self {
            scene,
            traffic: Traffic::begin(scene.fleet(), agents),
        };
        cluster.know_agents().await;
        let (server, _) = scene.members(SERVERS).await.remove(0);
        let submit = format!("cat > /tmp/web.hcl <<'JOB'\n{JOB}\nJOB\nnomad job run /tmp/web.hcl");
        let (status, said) = scene.run(&server, &submit).await;
        assert_eq!(status, 0, "{said}");
        let all = Duration::from_mins(1);
        until("four instances are healthy", all, async || {
            (cluster.healthy().await == 4).then_some(())
        })
        .await;
        cluster
    }

    /// Lets the users know of all nodes that are in service now.
    pub(crate) async fn know_agents(&self) {
        let mut agents = Vec::new();
        for name in [SERVERS, CLIENTS] {
            for (instance, state) in self.scene.members(name).await {
                if state == "InService" {
                    agents.extend(self.scene.address(&instance));
                }
            }
        }
        self.traffic.know(agents);
    }

    /// A document of the first server that gives one.
    pub(crate) async fn ask(&self, port: u16, path: &str) -> Option<Value> {
        for (instance, _) in self.scene.members(SERVERS).await {
            if let Some(address) = self.scene.address(&instance)
                && let Some(found) =
                    http::document(self.scene.fleet(), SocketAddrV4::new(address, port), path).await
            {
                return Some(found);
            }
        }
        None
    }

    async fn healthy(&self) -> usize {
        let found = self.ask(8500, "/v1/health/service/web?passing").await;
        found.and_then(|found| Some(found.as_array()?.len())).unwrap_or(0)
    }

    /// A node as Nomad sees it; none if it is not among the nodes.
    pub(crate) async fn nomad(&self, instance: &str) -> Option<Seen> {
        let nodes = self.ask(4646, "/v1/nodes").await?;
        let nodes = nodes.as_array()?;
        let node = nodes.iter().find(|node| node["Name"] == instance)?;
        let path = format!("/v1/node/{}/allocations", node["ID"].as_str()?);
        let allocations = self.ask(4646, &path).await?;
        let runs = |it: &&Value| it["JobID"] == "web" && it["ClientStatus"] == "running";
        Some(Seen {
            status: node["Status"].as_str()?.to_owned(),
            eligible: node["SchedulingEligibility"] == "eligible",
            drains: node["Drain"] == true,
            running: allocations.as_array()?.iter().filter(runs).count(),
        })
    }

    /// Waits until a node is for Nomad as it is wanted, and tells how long that took.
    pub(crate) async fn until_nomad(
        &self,
        instance: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Duration {
        let began = Instant::now();
        until(what, limit, async || {
            self.nomad(instance).await.filter(&wanted).map(drop)
        })
        .await;
        began.elapsed()
    }

    /// Whether Consul's catalogue has the node; none while nobody tells.
    pub(crate) async fn in_consul(&self, instance: &str) -> Option<bool> {
        let nodes = self.ask(8500, "/v1/catalog/nodes").await?;
        Some(nodes.as_array()?.iter().any(|node| node["Node"] == instance))
    }

    /// Peers with a vote, of Consul or Nomad, by port.
    pub(crate) async fn peers(&self, port: u16) -> Option<usize> {
        self.ask(port, "/v1/status/peers")
            .await
            .and_then(|peers| Some(peers.as_array()?.len()))
    }

    /// The sample service is whole, on nodes that may keep it.
    pub(crate) async fn until_whole(&self) {
        until("the service is whole", Duration::from_mins(1), async || {
            (self.healthy().await == 4).then_some(())
        })
        .await;
    }

    /// All members of a group are in service, and as many as there should be.
    pub(crate) async fn until_in_service(&self, name: &str) {
        until(
            &format!("{name} are three again"),
            Duration::from_mins(2),
            async || {
                let states = self.scene.members(name).await;
                (states.len() == 3 && states.iter().all(|(_, state)| state == "InService")).then_some(())
            },
        )
        .await;
        self.know_agents().await;
    }

    /// Clients that have work now, those with most of it first.
    pub(crate) async fn busy_clients(&self) -> Vec<String> {
        let mut clients = Vec::new();
        for (instance, _) in self.scene.members(CLIENTS).await {
            if let Some(seen) = self.nomad(&instance).await {
                clients.push((seen.running, instance));
            }
        }
        clients.sort_unstable_by(|left, right| right.cmp(left));
        clients.into_iter().map(|(_, instance)| instance).collect()
    }

    /// Says how a scenario went, and that no request was lost in it.
    pub(crate) fn told(&self, mark: Mark, how: &str) {
        let (sent, lost) = self.traffic.since(mark);
        eprintln!("    {how}; {sent} requests, {} lost", lost.len());
        assert!(lost.is_empty(), "{lost:#?}");
    }

    /// Ends one member as a scale-in or an instance refresh would.
    pub(crate) async fn terminate_by_group(&self, instance: &str, capacity: Capacity) {
        let less = capacity == Capacity::Less;
        let request = json!({"InstanceId": instance, "ShouldDecrementDesiredCapacity": less});
        let operation = "terminate_instance_in_auto_scaling_group";
        self.scene.aws("autoscaling", operation, &request).await;
    }

    /// Changes how many members a group should have.
    pub(crate) async fn scale(&self, name: &str, capacity: u32) {
        let request = json!({"AutoScalingGroupName": name, "DesiredCapacity": capacity});
        self.scene
            .aws("autoscaling", "set_desired_capacity", &request)
            .await;
    }

    /// What the watcher of a node said.
    pub(crate) async fn journal(&self, instance: &str) -> String {
        let script = "journalctl --unit cos-agent-watch --output cat --no-pager";
        self.scene.run(instance, script).await.1
    }
}

/// A group of three with both hooks, as the Terraform modules make one.
async fn group(scene: &Scene, name: &str, image: &str, user_data: &str) {
    let data = json!({
        "ImageId": image,
        "InstanceType": "m6i.large",
        "IamInstanceProfile": {"Name": "cos-node"},
        "UserData": BASE64.encode(user_data),
        "MetadataOptions": {"HttpTokens": "required"},
    });
    let template = json!({"LaunchTemplateName": name, "LaunchTemplateData": data});
    scene.aws("ec2", "create_launch_template", &template).await;
    let hook = |hook: &str, transition: &str, default: &str| {
        json!({
            "LifecycleHookName": hook,
            "LifecycleTransition": format!("autoscaling:EC2_INSTANCE_{transition}"),
            "HeartbeatTimeout": HOOK_SECONDS,
            "DefaultResult": default,
        })
    };
    let tag = |key: &str, value: &str| json!({"Key": key, "Value": value, "PropagateAtLaunch": true});
    let mut tags = vec![tag("Name", name)];
    if name == SERVERS {
        tags.push(tag("cos:consul", "main"));
    }
    let group = json!({
        "AutoScalingGroupName": name,
        "LaunchTemplate": {"LaunchTemplateName": name, "Version": "$Latest"},
        "MinSize": 0,
        "MaxSize": 6,
        "DesiredCapacity": 3,
        "AvailabilityZones": ["us-east-1a"],
        "LifecycleHookSpecificationList":
            [hook(LAUNCH, "LAUNCHING", "ABANDON"), hook(TERMINATE, "TERMINATING", "CONTINUE")],
        "Tags": tags,
    });
    scene
        .aws("autoscaling", "create_auto_scaling_group", &group)
        .await;
}

/// Looks until there is something; gives up, loudly, after `limit`.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
