//! What happens to a node that must go, on a real cluster: three servers (Consul and Nomad), three clients, a service
//! whose users never pause. Every way to go is told as AWS or an operator tells it. Needs root, and what `./dev test`
//! names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that takes minutes says where it is")]

mod support;
mod drain {
    pub(crate) mod cluster;
    pub(crate) mod http;
    pub(crate) mod scene;
    pub(crate) mod traffic;
}

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use serde_json::json;

use drain::cluster::{CLIENTS, Capacity, Cluster, LAUNCH, SERVERS, TERMINATE, until};
use drain::scene::Scene;
use support::Parts;

const CONSUL: u16 = 8500;
const NOMAD: u16 = 4646;

/// Longest time for two or four instances of the service to move.
const MOVE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_go_without_a_lost_request_and_servers_without_a_lost_quorum() {
    let Some(parts) = Parts::find("nodes_go_without_a_lost_request") else {
        return;
    };
    let began = Instant::now();
    let scene = Scene::up(parts).await;
    // Whatever happens, the sandbox is ended: machines would outlive this process.
    let told = AssertUnwindSafe(scenarios(&scene, began)).catch_unwind().await;
    scene.down().await;
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
}

async fn scenarios(scene: &Scene, began: Instant) {
    step(began, "an image");
    let image = scene.image().await;
    step(began, "a cluster: every node completes its launch hook by itself");
    let cluster = Cluster::start(scene, &image).await;
    for group in [SERVERS, CLIENTS] {
        for (instance, _) in scene.members(group).await {
            let said = scene.said(&instance).await;
            assert_eq!(said.last(), Some(&(LAUNCH.into(), "CONTINUE".into())), "{said:?}");
        }
    }
    let stories = stories(&cluster, began);
    let told = AssertUnwindSafe(stories).catch_unwind().await;
    if let Err(panic) = told {
        for group in [SERVERS, CLIENTS] {
            for (instance, state) in scene.members(group).await {
                eprintln!(
                    "--- {instance} of {group}, {state}\n{}",
                    cluster.journal(&instance).await
                );
            }
        }
        std::panic::resume_unwind(panic);
    }
    step(began, "the end");
}

/// All stories on one cluster, or the one that `COS_TESTS_DRAIN` names.
async fn stories(cluster: &Cluster<'_>, began: Instant) {
    let only = std::env::var("COS_TESTS_DRAIN").ok();
    let wanted = |name: &str, what: &str| {
        let wanted = only.as_deref().is_none_or(|only| only == name);
        if wanted {
            step(began, &format!("{name}: {what}"));
        }
        wanted
    };
    if wanted("event", "a reboot of the host in ten minutes") {
        scheduled_event(cluster).await;
    }
    if wanted("operator", "drain and eligible by hand") {
        operator(cluster).await;
    }
    if wanted("spot", "an interruption in two minutes") {
        spot(cluster).await;
    }
    if wanted("power-off", "the machine shuts down, and starts again") {
        power_off(cluster).await;
    }
    if wanted("termination", "the group ends a client") {
        termination(cluster).await;
    }
    // A recommendation takes half a minute to be heard: servers leave meanwhile.
    let rebalance = async {
        if wanted("rebalance", "no new work, jobs go on") {
            rebalance(cluster).await;
        }
    };
    let servers = async {
        if wanted("servers", "the group ends one, then another") {
            servers(cluster).await;
        }
    };
    tokio::join!(rebalance, servers);
}

fn step(began: Instant, what: &str) {
    eprintln!("==> {:>5.1} s  {what}", began.elapsed().as_secs_f64());
}

/// A recommendation makes the node ineligible, and no more; taken back, the node is as before.
async fn rebalance(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    let before = cluster.nomad(&node).await.unwrap();
    cluster.scene.notice(&node, &["rebalance"]).await;
    let heard = cluster
        .until_nomad(&node, "ineligible", Duration::from_secs(45), |seen| {
            !seen.eligible
        })
        .await;
    let seen = cluster.nomad(&node).await.unwrap();
    assert_eq!((seen.drains, seen.running), (false, before.running), "{seen:?}");
    cluster.scene.notice(&node, &["withdraw", "rebalance"]).await;
    let back = cluster
        .until_nomad(&node, "eligible again", Duration::from_secs(45), |seen| {
            seen.eligible
        })
        .await;
    let how = format!(
        "ineligible after {:.0} s with {} instances that go on, eligible {:.0} s after it was taken back",
        heard.as_secs_f64(),
        seen.running,
        back.as_secs_f64()
    );
    cluster.told(mark, &how);
}

/// A host that is rebooted in ten minutes is within the lead of a quarter of an hour: jobs move at once.
async fn scheduled_event(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    cluster.scene.notice(&node, &["event", "--in", "10m"]).await;
    // Events are announced days ahead and asked for every five minutes; a start asks at once.
    ask_now(cluster, &node).await;
    let drained = cluster
        .until_nomad(&node, "drained", MOVE, |seen| {
            !seen.eligible && !seen.drains && seen.running == 0
        })
        .await;
    assert_eq!(
        cluster.nomad(&node).await.unwrap().status,
        "ready",
        "it stays a member"
    );
    cluster.until_whole().await;
    cluster.scene.notice(&node, &["withdraw", "event"]).await;
    ask_now(cluster, &node).await;
    let back = cluster
        .until_nomad(&node, "eligible again", MOVE, |seen| seen.eligible)
        .await;
    let how = format!(
        "drained after {:.0} s, eligible {:.0} s after the event was over",
        drained.as_secs_f64(),
        back.as_secs_f64()
    );
    cluster.told(mark, &how);
}

async fn ask_now(cluster: &Cluster<'_>, node: &str) {
    let (status, said) = cluster.scene.run(node, "systemctl restart cos-agent-watch").await;
    assert_eq!(status, 0, "{said}");
}

/// The commands come back when it is done.
async fn operator(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    let began = Instant::now();
    let drain = "cos-agent drain --deadline 1m --reason 'a new disk'";
    let (status, said) = cluster.scene.run(&node, drain).await;
    assert_eq!(status, 0, "{said}");
    let drained = began.elapsed();
    let seen = cluster.nomad(&node).await.unwrap();
    assert_eq!(
        (seen.eligible, seen.drains, seen.running),
        (false, false, 0),
        "{seen:?}"
    );
    let began = Instant::now();
    let (status, said) = cluster.scene.run(&node, "cos-agent eligible").await;
    assert_eq!(status, 0, "{said}");
    let back = began.elapsed();
    assert!(cluster.nomad(&node).await.unwrap().eligible);
    cluster.until_whole().await;
    let how = format!(
        "drained after {:.0} s, eligible after {:.0} s",
        drained.as_secs_f64(),
        back.as_secs_f64()
    );
    cluster.told(mark, &how);
}

/// All within the notice's two minutes: jobs away, Nomad and Consul left.
async fn spot(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    let began = Instant::now();
    cluster.scene.notice(&node, &["spot", "--in", "2m"]).await;
    let drained = cluster
        .until_nomad(&node, "drained", MOVE, |seen| !seen.eligible && seen.running == 0)
        .await;
    let gone = until_gone(cluster, &node, began).await;
    assert!(gone < Duration::from_secs(105), "{gone:?}");
    cluster.until_whole().await;
    let how = format!(
        "drained after {:.0} s, left after {:.0} s",
        drained.as_secs_f64(),
        gone.as_secs_f64()
    );
    cluster.told(mark, &how);
    // The interruption itself. The group replaces the instance, as it always does.
    let instances = json!({"InstanceIds": [node]});
    cluster.scene.aws("ec2", "terminate_instances", &instances).await;
    cluster.until_in_service(CLIENTS).await;
}

/// Waits until Consul's catalogue is without the node, which is the last that it leaves.
async fn until_gone(cluster: &Cluster<'_>, node: &str, began: Instant) -> Duration {
    until("left Consul", Duration::from_secs(110), async || {
        (cluster.in_consul(node).await == Some(false)).then_some(())
    })
    .await;
    // Neither runs where it has left. A node that its hook has let go may be off by now.
    until(
        "Nomad and Consul have ended",
        Duration::from_secs(20),
        async || {
            let (_, said) = cluster.scene.run(node, "systemctl is-active nomad consul").await;
            (!said.lines().any(|line| line == "active")).then_some(())
        },
    )
    .await;
    began.elapsed()
}

/// `systemd` stops Nomad only when the watcher has moved its jobs; a start brings the node back.
async fn power_off(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    let instances = json!({"InstanceIds": [node]});
    let began = Instant::now();
    cluster.scene.aws("ec2", "stop_instances", &instances).await;
    let drained = cluster
        .until_nomad(&node, "drained", MOVE, |seen| !seen.eligible && seen.running == 0)
        .await;
    until("off", Duration::from_secs(90), async || {
        let seen = cluster.scene.aws("ec2", "describe_instances", &instances).await;
        (seen["Reservations"][0]["Instances"][0]["State"]["Name"] == "stopped").then_some(())
    })
    .await;
    let off = began.elapsed();
    cluster.until_whole().await;
    let began = Instant::now();
    cluster.scene.aws("ec2", "start_instances", &instances).await;
    cluster
        .until_nomad(&node, "back in service", Duration::from_secs(90), |seen| {
            seen.eligible && seen.status == "ready"
        })
        .await;
    let how = format!(
        "drained after {:.0} s, off after {:.0} s, back {:.0} s after its start",
        drained.as_secs_f64(),
        off.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    cluster.told(mark, &how);
}

/// The hook waits for the node's word, and the node's word comes when it has left.
async fn termination(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let node = cluster.busy_clients().await.remove(0);
    let began = Instant::now();
    cluster.terminate_by_group(&node, Capacity::Kept).await;
    let drained = cluster
        .until_nomad(&node, "drained", MOVE, |seen| !seen.eligible && seen.running == 0)
        .await;
    let gone = until_gone(cluster, &node, began).await;
    until_completed(cluster, &node).await;
    let said = departure(cluster, &node).await;
    assert!(
        said.iter().filter(|word| *word == "heartbeat").count() >= 1,
        "{said:?}"
    );
    cluster.until_whole().await;
    let how = format!(
        "drained after {:.0} s, left after {:.0} s; the hook heard {said:?}",
        drained.as_secs_f64(),
        gone.as_secs_f64()
    );
    cluster.told(mark, &how);
    cluster.until_in_service(CLIENTS).await;
}

async fn departure(cluster: &Cluster<'_>, node: &str) -> Vec<String> {
    let said = cluster.scene.said(node).await;
    said.into_iter()
        .filter(|(hook, _)| hook == TERMINATE)
        .map(|(_, word)| word)
        .collect()
}

async fn until_completed(cluster: &Cluster<'_>, node: &str) {
    until("the hook is completed", Duration::from_mins(2), async || {
        let said = departure(cluster, node).await;
        assert!(!said.iter().any(|word| word.starts_with("timeout")), "{said:?}");
        (said.last().map(String::as_str) == Some("CONTINUE")).then_some(())
    })
    .await;
}

/// The first of three goes; the second is refused until others have a vote.
async fn servers(cluster: &Cluster<'_>) {
    let mark = cluster.traffic.mark();
    let leader = cluster.ask(CONSUL, "/v1/status/leader").await.unwrap();
    let leads = |instance: &str| {
        let address = cluster.scene.address(instance).unwrap();
        leader.as_str().unwrap().starts_with(&format!("{address}:"))
    };
    let members = cluster.scene.members(SERVERS).await;
    let (first, second) = {
        let (first, others): (Vec<_>, Vec<_>) =
            members.into_iter().map(|(id, _)| id).partition(|id| leads(id));
        (first[0].clone(), others[0].clone())
    };
    let began = Instant::now();
    // The harder case: the leader itself.
    cluster.terminate_by_group(&first, Capacity::Less).await;
    until_completed(cluster, &first).await;
    let left = began.elapsed();
    cluster.terminate_by_group(&second, Capacity::Less).await;
    let refused = until("the second is refused", Duration::from_secs(40), async || {
        let said = cluster.journal(&second).await;
        let refusal = said.lines().find(|line| line.contains("voters are healthy"));
        refusal.map(str::to_owned)
    })
    .await;
    eprintln!("    {refused}");
    for port in [CONSUL, NOMAD] {
        until("two peers and a leader", Duration::from_secs(20), async || {
            let leader = cluster.ask(port, "/v1/status/leader").await?;
            let led = leader.as_str().is_some_and(|leader| !leader.is_empty());
            (led && cluster.peers(port).await? == 2).then_some(())
        })
        .await;
    }
    // A whole heartbeat later it still waits, and its hook with it.
    let heard = departure(cluster, &second).await.len();
    until("another heartbeat", Duration::from_secs(30), async || {
        (departure(cluster, &second).await.len() > heard).then_some(())
    })
    .await;
    assert_eq!(cluster.peers(CONSUL).await, Some(2), "the second has left");
    assert_eq!(
        departure(cluster, &second).await.last().map(String::as_str),
        Some("heartbeat")
    );
    cluster.scale(SERVERS, 3).await;
    until_completed(cluster, &second).await;
    cluster.until_in_service(SERVERS).await;
    until("three peers again", Duration::from_mins(1), async || {
        let (consul, nomad) = (cluster.peers(CONSUL).await?, cluster.peers(NOMAD).await?);
        (consul == 3 && nomad == 3).then_some(())
    })
    .await;
    let how = format!(
        "the leader left after {:.0} s, both are replaced after {:.0} s",
        left.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    cluster.told(mark, &how);
}
