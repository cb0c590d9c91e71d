//! Owns real agents of Nomad and Consul as processes of this machine, each in namespaces of its own so that nothing
//! of it outlives it. Touches loopback, one temporary folder, `unshare`.
#![expect(
    clippy::print_stderr,
    reason = "a test of real agents tells what they did, and that it was skipped"
)]

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::node::drain::Services;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

use crate::binaries;

/// What an agent is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    Consul,
    Nomad,
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Consul => "Consul",
            Self::Nomad => "Nomad",
        })
    }
}

/// Clusters are started one at a time: two of them on two processors only wait for each other's elections.
static TURN: Mutex<()> = Mutex::new(());

/// Both binaries, and the turn to run them.
pub(super) struct Binaries {
    pub(super) folder: tempfile::TempDir,
    consul: PathBuf,
    nomad: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// A TCP port that nobody has at the moment.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Binaries {
    /// None where this machine cannot run them, which is told; in CI it must.
    pub(super) fn find(test: &str) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = match binaries::pair() {
            None => "Consul or Nomad is not here",
            Some(_) if !nix::unistd::getuid().is_root() => "namespaces need root",
            Some([(_, consul), (_, nomad)]) => {
                return Some(Self {
                    folder: tempfile::tempdir().unwrap(),
                    consul,
                    nomad,
                    _turn: turn,
                });
            }
        };
        assert!(std::env::var_os("CI").is_none(), "CI must run {test}: {missing}");
        eprintln!("SKIPPED: {test}: {missing}");
        None
    }

    fn program(&self, product: Product) -> &Path {
        match product {
            Product::Consul => &self.consul,
            Product::Nomad => &self.nomad,
        }
    }

    /// Starts an agent with this configuration, a folder of its own for data, and ports that nobody has.
    pub(super) fn start(&self, product: Product, name: &str, more: &[Json]) -> Agent {
        let folder = self.folder.path().join(format!("{product}-{name}"));
        let config = folder.join("config");
        fs::create_dir_all(&config).unwrap();
        let http = port();
        let (own, argument) = match product {
            Product::Consul => (
                json!({
                    "node_name": name, "data_dir": folder.join("data"), "bind_addr": "127.0.0.1",
                    "retry_interval": "1s", "performance": {"raft_multiplier": 1, "leave_drain_time": "1s"},
                    "ports": {"http": http, "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
                        "server": port(), "serf_lan": port()},
                }),
                "-config-dir",
            ),
            Product::Nomad => (
                json!({
                    "name": name, "data_dir": folder.join("data"), "bind_addr": "127.0.0.1",
                    "disable_update_check": true, "leave_on_terminate": true,
                    "ports": {"http": http, "rpc": port(), "serf": port()},
                    "advertise": {"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"},
                    "consul": {"auto_advertise": false, "server_auto_join": false, "client_auto_join": false},
                }),
                "-config",
            ),
        };
        for (number, part) in std::iter::once(&own).chain(more).enumerate() {
            fs::write(config.join(format!("{number}.json")), part.to_string()).unwrap();
        }
        let log = folder.join("log");
        let output = File::create(&log).unwrap();
        // Whatever it starts and mounts ends with it.
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=SIGKILL",
                "--mount-proc",
            ])
            .arg(self.program(product))
            .args(["agent", argument])
            .arg(&config)
            .env_remove("AWS_CA_BUNDLE")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let port = |of: &str| u16::try_from(own["ports"][of].as_u64().unwrap()).unwrap();
        Agent {
            name: name.to_owned(),
            url: format!("http://127.0.0.1:{http}"),
            join: match product {
                Product::Consul => format!("127.0.0.1:{}", port("serf_lan")),
                Product::Nomad => format!("127.0.0.1:{}", port("serf")),
            },
            rpc: if product == Product::Nomad {
                format!("127.0.0.1:{}", port("rpc"))
            } else {
                String::new()
            },
            data: folder.join("data"),
            log,
            child: Mutex::new(child),
        }
    }
}

/// A running agent.
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) url: String,
    /// Where other servers join it.
    pub(super) join: String,
    /// Where Nomad's clients find it.
    pub(super) rpc: String,
    pub(super) data: PathBuf,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Agent {
    /// The agent's own process, below the one that made its namespaces.
    fn pid(&self) -> Option<i32> {
        let child = self.child.lock().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{child}/task/{child}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// One request; none if it is not answered with 200.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Json>,
    ) -> Option<Json> {
        let (status, answer) = http(method, &format!("{}{path}", self.url), token, body)?;
        (status == 200).then(|| serde_json::from_str(&answer).unwrap_or(Json::Null))
    }

    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// One request over a connection of its own; none if there is no answer.
pub(super) fn http(
    method: &str,
    url: &str,
    token: Option<&str>,
    body: Option<&Json>,
) -> Option<(u16, String)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let body = body.map(Json::to_string).unwrap_or_default();
    let token = token
        .map(|token| format!("X-Nomad-Token: {token}\r\n"))
        .unwrap_or_default();
    let request = format!(
        "{method} /{path} HTTP/1.0\r\nHost: {host}\r\n{token}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Waits until it is so; fails with the last words of those who were waited for.
pub(super) fn until(what: &str, agents: &[&Agent], mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > Duration::from_secs(90) {
            let words: Vec<String> = agents
                .iter()
                .map(|agent| format!("{}:\n{}", agent.name, agent.last_words()))
                .collect();
            panic!("{what} did not happen\n{}", words.join("\n"));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The two agents of one machine as its services.
pub(super) struct Processes<'a> {
    pub(super) nomad: Option<&'a Agent>,
    pub(super) consul: Option<&'a Agent>,
}

impl Processes<'_> {
    fn agent(&self, service: &str) -> Option<&Agent> {
        if service == "nomad" {
            self.nomad
        } else {
            self.consul
        }
    }
}

impl Services for Processes<'_> {
    fn runs(&self, service: &str) -> Result<bool, String> {
        Ok(self.agent(service).is_some_and(Agent::runs))
    }

    fn stop(&self, service: &str) -> Result<(), String> {
        // As the units do it.
        let signal = if service == "nomad" {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        };
        if let Some(agent) = self.agent(service) {
            agent.signal(signal);
            until("the stop", &[agent], || !agent.runs());
        }
        Ok(())
    }

    fn start(&self, _service: &str) -> Result<(), String> {
        Err("a process that ended is not started again here".to_owned())
    }

    fn terminate(&self, service: &str) -> Result<(), String> {
        let agent = self.agent(service).ok_or("no such service")?;
        agent.signal(Signal::SIGTERM);
        Ok(())
    }
}

/// A file's text, for identities.
pub(super) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
