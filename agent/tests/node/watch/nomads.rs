//! Owns a Nomad cluster of real agents for one test, and the watcher over one of its machines.
//! Touches what the agents touch.
#![expect(clippy::print_stderr, reason = "a test of real agents tells what they did")]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cos_agent::host::Files;
use cos_agent::node::drain::{ApiError, Consul, NodeView, Nomad, NomadAgent, Raft, Services};
use cos_agent::node::watch::{
    Clock, Ended, Engine, Event, Gate, Journal, Machine, NoticeSource, Notify, Ports, Posture, Progress,
    Request, Shutdown, Stop, Tell, Timestamp, Until, Verdict, WatchSpec,
};
use serde_json::{Value as Json, json};

use super::real_agents::{Agent, Binaries, Product, text, until};

pub(super) struct Nothing;

impl NoticeSource for Nothing {
    fn read(&mut self, _path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

impl Gate for Nothing {
    fn prove(&self) -> Verdict {
        Verdict::Ready
    }
}

impl Machine for Nothing {
    fn shutdown(&self) -> Option<Shutdown> {
        None
    }
}

impl Consul for Nothing {
    fn leave(&self) -> Result<(), ApiError> {
        Err(ApiError::Absent("no Consul here".to_owned()))
    }

    fn maintenance(&self, _on: bool, _reason: &str) -> Result<(), ApiError> {
        Ok(())
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        Err(ApiError::Absent("no Consul here".to_owned()))
    }
}

/// A Nomad whose API denies everything, as one does whose tokens are gone.
pub(super) struct Denied;

impl Denied {
    fn refuse<T>() -> Result<T, ApiError> {
        Err(ApiError::Denied("Permission denied".to_owned()))
    }
}

impl Nomad for Denied {
    fn node(&self) -> Result<NodeView, ApiError> {
        Self::refuse()
    }

    fn allocations(&self, _ignore_system_jobs: bool) -> Result<Option<u32>, ApiError> {
        Self::refuse()
    }

    fn take_out(&self) -> Result<(), ApiError> {
        Self::refuse()
    }

    fn drain(&self, _deadline: Duration, _ignore_system_jobs: bool, _reason: &str) -> Result<(), ApiError> {
        Self::refuse()
    }

    fn end_drain(&self, _eligible: bool) -> Result<(), ApiError> {
        Self::refuse()
    }

    fn raft(&self) -> Result<Raft, ApiError> {
        Self::refuse()
    }

    fn leaves_on_signal(&self) -> Result<Option<bool>, ApiError> {
        Self::refuse()
    }
}

struct WallClock(Instant);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn ticks(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&mut self, pause: Duration) -> Option<Stop> {
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(pause);
        None
    }
}

struct Aloud(String);

impl Tell for Aloud {
    fn tell(&mut self, _now: Timestamp, event: &Event) {
        eprintln!("  {}: {event}", self.0);
    }
}

/// Has an operator ask for a posture, and watches until it is reached.
pub(super) fn bring(
    name: &str,
    spec: &WatchSpec,
    files: &Files,
    agents: (&dyn Nomad, &dyn Consul, &dyn Services),
    posture: Posture,
    seconds: u64,
) -> Progress {
    let journal = Journal::new(files);
    let since = Timestamp::now();
    let request = Request {
        posture,
        since,
        deadline: since.plus(Duration::from_secs(seconds)),
        ignore_system_jobs: false,
        reason: "a test".to_owned(),
    };
    journal.ask(&request).unwrap();
    let notify = Notify::default();
    let (mut clock, mut tell) = (WallClock(Instant::now()), Aloud(name.to_owned()));
    let ports = Ports {
        source: &mut Nothing,
        nomad: agents.0,
        consul: agents.1,
        services: agents.2,
        lifecycle: None,
        upkeep: None,
        gate: &Nothing,
        machine: &Nothing,
        clock: &mut clock,
        tell: &mut tell,
        notify: &notify,
    };
    let mut engine = Engine::new(spec, ports, journal).unwrap();
    let ended = engine.run(Until::Settled(since.plus(Duration::from_secs(seconds + 60))));
    assert_eq!(
        ended,
        Ended::Settled,
        "{name} does not become {posture}: {:?}",
        engine.state().progress
    );
    engine.state().progress.clone()
}

/// The files of one machine: what the watcher keeps, and the identity of a Nomad agent where it is.
pub(super) fn machine(folder: &Path, name: &str) -> Files {
    let files = Files::new(folder.join("machines").join(name));
    files
        .write_atomic("/proc/sys/kernel/random/boot_id", b"boot-1", 0o444)
        .unwrap();
    files
}

/// A Nomad server with access control, clients, and a token that may do everything.
pub(super) struct Nomads {
    server: Agent,
    pub(super) clients: Vec<Agent>,
    token: Option<String>,
}

impl Nomads {
    pub(super) fn start(binaries: &Binaries, names: &[&str], acl: bool) -> Self {
        let server_config =
            json!({"server": {"enabled": true, "bootstrap_expect": 1}, "acl": {"enabled": acl}});
        let server = binaries.start(Product::Nomad, "server", &[server_config]);
        let mut token = None;
        until("Nomad's leader", &[&server], || {
            token = server
                .ask("PUT", "/v1/acl/bootstrap", None, None)
                .map(|answer| answer["SecretID"].as_str().unwrap_or_default().to_owned());
            token.is_some()
                || (!acl
                    && server
                        .ask("GET", "/v1/status/leader", None, None)
                        .is_some_and(|leader| leader != ""))
        });
        let start = |(number, name): (usize, &&str)| {
            let first = 21_000 + number * 500;
            let config = json!({
                "client": {
                    "enabled": true, "servers": [server.rpc], "network_interface": "lo",
                    "min_dynamic_port": first, "max_dynamic_port": first + 499,
                    "options": {"fingerprint.denylist": "env_aws,env_azure,env_digitalocean,env_gce"},
                    "drain_on_shutdown": {"deadline": "1m"},
                },
                "plugin": {"raw_exec": {"config": {"enabled": true}}}, "acl": {"enabled": acl},
            });
            binaries.start(Product::Nomad, name, &[config])
        };
        let clients: Vec<Agent> = names.iter().enumerate().map(start).collect();
        let cluster = Self {
            server,
            clients,
            token,
        };
        until("Nomad's nodes", &cluster.agents(), || {
            let nodes = cluster.get("/v1/nodes");
            nodes.as_array().is_some_and(|nodes| {
                nodes.len() == names.len() && nodes.iter().all(|node| node["Status"] == "ready")
            })
        });
        cluster
    }

    pub(super) fn agents(&self) -> Vec<&Agent> {
        std::iter::once(&self.server).chain(&self.clients).collect()
    }

    pub(super) fn get(&self, path: &str) -> Json {
        self.server
            .ask("GET", path, self.token.as_deref(), None)
            .unwrap_or(Json::Null)
    }

    pub(super) fn run_job(&self, job: &Json) {
        let job = json!({ "Job": job });
        assert!(
            self.server
                .ask("PUT", "/v1/jobs", self.token.as_deref(), Some(&job))
                .is_some(),
            "{job}"
        );
    }

    /// Allocations of a job that run on a node, by the node's id; on any node without one.
    pub(super) fn running(&self, job: &str, node: Option<&str>) -> usize {
        let allocations = self.get(&format!("/v1/job/{job}/allocations"));
        let runs = |allocation: &&Json| {
            allocation["ClientStatus"] == "running" && node.is_none_or(|node| allocation["NodeID"] == node)
        };
        allocations
            .as_array()
            .map_or(0, |all| all.iter().filter(runs).count())
    }

    /// The real client of a node, with nothing but the node's own identity.
    pub(super) fn client<'f>(&self, number: usize, files: &'f Files) -> (NomadAgent<'f>, String) {
        let agent = &self.clients[number];
        for name in ["client-id", "secret-id"] {
            let identity = text(&agent.data.join("client").join(name));
            files
                .write_atomic(Path::new("/nomad/client").join(name), identity.as_bytes(), 0o600)
                .unwrap();
        }
        let id = text(&agent.data.join("client/client-id"));
        (
            NomadAgent::new(&agent.url, files, &agent.name, None, Path::new("/nomad")),
            id,
        )
    }
}
