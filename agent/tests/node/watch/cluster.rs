//! Real agents of Nomad and Consul on loopback, drained and left by the watcher with its real clients. Which versions
//! depends on what the mirror holds. A machine here is a pair of processes; the service manager is their parent.
#![expect(
    clippy::print_stderr,
    reason = "a test of real agents tells what they did, and that it was skipped"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::node::drain::{Consul, ConsulAgent, DrainView, NodeView, Nomad, NomadAgent};
use cos_agent::node::watch::{Away, Membership, Posture, WatchSpec};
use serde_json::{Value as Json, json};

use super::nomads::{Denied, Nomads, Nothing, bring, machine};
use super::real_agents::{Agent, Binaries, Processes, Product, http, until};

/// A web service with one request that it must not lose: it takes itself out of the catalogue before it ends.
fn web(count: u32) -> Json {
    let server = "import http.server,os,socketserver;\
                  socketserver.ThreadingTCPServer.allow_reuse_address=True;\
                  socketserver.ThreadingTCPServer(('127.0.0.1',int(os.environ['NOMAD_PORT_http'])),\
                  http.server.SimpleHTTPRequestHandler).serve_forever()";
    json!({
        "ID": "web", "Type": "service", "Datacenters": ["dc1"],
        "Spreads": [{"Attribute": "${node.unique.id}", "Weight": 100}],
        "TaskGroups": [{
            "Name": "web", "Count": count,
            "Migrate": {"MaxParallel": 1, "HealthCheck": "task_states", "MinHealthyTime": 1_000_000_000_u64,
                "HealthyDeadline": 60_000_000_000_u64},
            "Networks": [{"DynamicPorts": [{"Label": "http"}]}],
            "Services": [{"Name": "web", "PortLabel": "http", "Provider": "nomad", "AddressMode": "host"}],
            "Tasks": [{
                "Name": "web", "Driver": "raw_exec", "Config": {"command": "python3", "args": ["-c", server]},
                "Resources": {"CPU": 50, "MemoryMB": 50}, "KillTimeout": 2_000_000_000_u64,
                "ShutdownDelay": 3_000_000_000_u64,
            }],
        }],
    })
}

fn system() -> Json {
    json!({
        "ID": "logs", "Type": "system", "Datacenters": ["dc1"],
        "TaskGroups": [{"Name": "logs", "Tasks": [{
            "Name": "logs", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["3600"]},
            "Resources": {"CPU": 20, "MemoryMB": 20}, "KillTimeout": 2_000_000_000_u64,
        }]}],
    })
}

/// Asks every instance of the service that the catalogue names, again and again; counts answers and losses. As behind
/// a load balancer, an instance counts from its first answer on: a new one is named before its port is open.
fn ask_all(cluster: &Nomads, stop: &AtomicBool, answered: &AtomicUsize, lost: &AtomicUsize) {
    let mut known = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let services = cluster.get("/v1/service/web");
        for service in services.as_array().into_iter().flatten() {
            let url = format!(
                "http://{}:{}/",
                service["Address"].as_str().unwrap(),
                service["Port"]
            );
            match http("GET", &url, None, None) {
                Some((200, _)) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                    known.insert(url);
                }
                other if known.contains(&url) => {
                    eprintln!("lost: {url}: {other:?}");
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_real_client_is_drained_with_its_own_identity_and_loses_no_request() {
    let test = "a_real_client_is_drained_with_its_own_identity_and_loses_no_request";
    let Some(binaries) = Binaries::find(test) else {
        return;
    };
    let cluster = Nomads::start(&binaries, &["i-1", "i-2"], true);
    cluster.run_job(&web(4));
    cluster.run_job(&system());
    let files = machine(binaries.folder.path(), "i-1");
    let (nomad, node) = cluster.client(0, &files);
    until("the jobs", &cluster.agents(), || {
        cluster.running("web", Some(&node)) == 2
            && cluster.running("web", None) == 4
            && cluster.running("logs", None) == 2
    });
    // A service is in the catalogue a moment before its port is open: wait until all answer.
    let answers = |service: &Json| {
        let url = format!(
            "http://{}:{}/",
            service["Address"].as_str().unwrap(),
            service["Port"]
        );
        matches!(http("GET", &url, None, None), Some((200, _)))
    };
    until("the services", &cluster.agents(), || {
        cluster
            .get("/v1/service/web")
            .as_array()
            .is_some_and(|all| all.len() == 4 && all.iter().all(answers))
    });
    let processes = Processes {
        nomad: Some(&cluster.clients[0]),
        consul: None,
    };
    let spec = WatchSpec::client();
    let (stop, answered, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| ask_all(&cluster, &stop, &answered, &lost));
        let drained = bring(
            "i-1",
            &spec,
            &files,
            (&nomad, &Nothing, &processes),
            Posture::Drained,
            90,
        );
        assert_eq!(drained.away, Some(Away::Complete));
        eprintln!("drained after {:?}", start.elapsed());
        assert_eq!(cluster.running("web", Some(&node)), 0);
        assert_eq!(
            nomad.node().unwrap(),
            NodeView {
                eligible: false,
                drain: DrainView::Complete
            }
        );
        // And back, with the same identity.
        bring(
            "i-1",
            &spec,
            &files,
            (&nomad, &Nothing, &processes),
            Posture::Serving,
            30,
        );
        assert!(nomad.node().unwrap().eligible);
        until("the system job's return", &cluster.agents(), || {
            cluster.running("logs", Some(&node)) == 1
        });
        // Out again, for good.
        let gone = bring(
            "i-1",
            &spec,
            &files,
            (&nomad, &Nothing, &processes),
            Posture::Gone,
            90,
        );
        assert_eq!((gone.nomad, gone.consul), (Membership::Left, Membership::Left));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!cluster.clients[0].runs());
    until("four instances elsewhere", &cluster.agents(), || {
        cluster.running("web", None) == 4
    });
    let (answered, lost) = (answered.into_inner(), lost.into_inner());
    eprintln!(
        "{answered} requests answered, {lost} lost, in {:?}",
        start.elapsed()
    );
    assert_eq!(lost, 0);
    assert!(answered > 200, "{answered}");
}

#[test]
fn a_real_client_drains_itself_on_the_signal() {
    let Some(binaries) = Binaries::find("a_real_client_drains_itself_on_the_signal") else {
        return;
    };
    // Without access control: Nomad 1.11.0 denies its own agents under it (GH-27115).
    let cluster = Nomads::start(&binaries, &["i-1", "i-2"], false);
    cluster.run_job(&web(2));
    let files = machine(binaries.folder.path(), "i-1");
    let (_, node) = cluster.client(0, &files);
    until("the jobs", &cluster.agents(), || {
        cluster.running("web", Some(&node)) == 1
    });
    let processes = Processes {
        nomad: Some(&cluster.clients[0]),
        consul: None,
    };
    let spec = WatchSpec::client();
    let gone = bring(
        "i-1",
        &spec,
        &files,
        (&Denied, &Nothing, &processes),
        Posture::Gone,
        90,
    );
    assert_eq!(gone.away, Some(Away::BySignal));
    until("both instances elsewhere", &cluster.agents(), || {
        cluster.running("web", None) == 2 && cluster.running("web", Some(&node)) == 0
    });
}

/// Ids of the voters that a server knows.
fn voters(agent: &Agent) -> BTreeSet<String> {
    let servers = agent
        .ask("GET", "/v1/operator/raft/configuration", None, None)
        .unwrap_or(Json::Null);
    let voters = servers["Servers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|server| server["Voter"] == true);
    voters
        .map(|server| server["Node"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn server(product: Product, others: &[Agent]) -> Json {
    let join: Vec<&str> = others.iter().map(|agent| agent.join.as_str()).collect();
    let autopilot = json!({"server_stabilization_time": "1s", "cleanup_dead_servers": false});
    match product {
        Product::Consul => {
            json!({"server": true, "bootstrap_expect": 3, "retry_join": join, "autopilot": autopilot})
        }
        Product::Nomad => json!({
            "server": {"enabled": true, "bootstrap_expect": 3, "server_join": {"retry_join": join, "retry_interval": "1s"}},
            "autopilot": autopilot,
        }),
    }
}

/// Three real servers, one of which dies; another one that must go waits until a fourth has its vote.
fn a_server_waits_for_quorum(product: Product, test: &str) {
    let Some(binaries) = Binaries::find(test) else {
        return;
    };
    let mut servers: Vec<Agent> = Vec::new();
    for name in ["i-1", "i-2", "i-3"] {
        let agent = binaries.start(product, name, &[server(product, &servers)]);
        servers.push(agent);
    }
    let all = |servers: &[Agent], count| servers.iter().all(|agent| voters(agent).len() == count);
    until("three voters", &servers.iter().collect::<Vec<_>>(), || {
        all(&servers, 3)
    });
    let dead = servers.pop().unwrap();
    dead.signal(nix::sys::signal::Signal::SIGKILL);
    until("its death", &[&dead], || !dead.runs());
    let going = servers.remove(0);
    let files = machine(binaries.folder.path(), "i-1");
    let nomad = NomadAgent::new(&going.url, &files, "i-1", None, Path::new("/nomad"));
    let consul = ConsulAgent::new(&going.url, &files, "i-1", None);
    let mut spec = WatchSpec {
        nomad_client: false,
        server_patience: Duration::from_mins(2),
        ..WatchSpec::client()
    };
    let processes = match product {
        Product::Nomad => {
            spec.nomad_server = Some(3);
            Processes {
                nomad: Some(&going),
                consul: None,
            }
        }
        Product::Consul => {
            spec.consul_server = Some(3);
            Processes {
                nomad: None,
                consul: Some(&going),
            }
        }
    };
    // With the dead one still in the configuration, it must not go; and it does not.
    let raft = || {
        if product == Product::Nomad {
            nomad.raft()
        } else {
            consul.raft()
        }
    };
    until("autopilot's word on the dead one", &[&going], || {
        raft().is_ok_and(|raft| raft.peers.iter().filter(|peer| peer.healthy).count() == 2)
    });
    let start = Instant::now();
    let (left, replacement) = thread::scope(|scope| {
        let replacement = scope.spawn(|| {
            thread::sleep(Duration::from_secs(8));
            assert!(going.runs(), "it went before it might");
            binaries.start(product, "i-4", &[server(product, &servers)])
        });
        let left = bring(
            "i-1",
            &spec,
            &files,
            (&nomad, &consul, &processes),
            Posture::Gone,
            120,
        );
        (left, replacement.join().unwrap())
    });
    eprintln!("{product}: left after {:?}", start.elapsed());
    let membership = if product == Product::Nomad {
        left.nomad
    } else {
        left.consul
    };
    assert_eq!(membership, Membership::Left);
    assert!(start.elapsed() > Duration::from_secs(8));
    until("its end", &[&going], || !going.runs());
    // Those that remain have a leader, and the server that left is none of them.
    let remaining = [&servers[0], &replacement];
    until("a leader", &remaining, || {
        let leader = servers[0].ask("GET", "/v1/status/leader", None, None);
        leader.is_some_and(|leader| leader != "" && leader != Json::Null) && voters(&servers[0]).len() == 3
    });
    let voters = voters(&servers[0]);
    assert!(!voters.iter().any(|name| name.starts_with("i-1")), "{voters:?}");
}

#[test]
fn a_real_consul_server_waits_for_quorum_and_leaves() {
    a_server_waits_for_quorum(
        Product::Consul,
        "a_real_consul_server_waits_for_quorum_and_leaves",
    );
}

#[test]
fn a_real_nomad_server_waits_for_quorum_and_leaves() {
    a_server_waits_for_quorum(Product::Nomad, "a_real_nomad_server_waits_for_quorum_and_leaves");
}
