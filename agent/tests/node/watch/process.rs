//! The real command as a process: notices by HTTP, `sd_notify`, signals, a `systemctl` that is a script here.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::host::Files;
use cos_agent::node::config::Role;
use cos_agent::node::render::{RECORD, Record};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{Request, Response, Server};

/// What the servers answer, as the test changes it.
#[derive(Default)]
struct Cluster {
    spot: Option<String>,
    target: Option<&'static str>,
    eligible: bool,
    drain: Option<&'static str>,
}

type Shared = Arc<Mutex<Cluster>>;

fn metadata(cluster: &Shared) -> Server {
    let cluster = Arc::clone(cluster);
    Server::start(move |request| {
        let cluster = cluster.lock().unwrap();
        let document = match request.path.as_str() {
            "/latest/api/token" => Some("token-1".to_owned()),
            "/latest/meta-data/spot/instance-action" => cluster.spot.clone(),
            "/latest/meta-data/autoscaling/target-lifecycle-state" => cluster.target.map(str::to_owned),
            _ => None,
        };
        document.map_or_else(|| Response::new(404, ""), |text| Response::new(200, text))
    })
}

fn nomad(cluster: &Shared) -> Server {
    let cluster = Arc::clone(cluster);
    Server::start(move |request: &Request| {
        assert_eq!(request.header("X-Nomad-Token"), Some("planted-secret"));
        let mut cluster = cluster.lock().unwrap();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/node/n-1") => {
                let word = if cluster.eligible {
                    "eligible"
                } else {
                    "ineligible"
                };
                let strategy = if cluster.drain == Some("draining") {
                    "{}"
                } else {
                    "null"
                };
                let last = cluster
                    .drain
                    .map_or("null".to_owned(), |status| format!(r#"{{"Status": "{status}"}}"#));
                Response::new(
                    200,
                    format!(
                        r#"{{"SchedulingEligibility": "{word}", "DrainStrategy": {strategy}, "LastDrain": {last}}}"#
                    ),
                )
            }
            ("PUT", "/v1/node/n-1/drain") if request.body.contains("null") => {
                cluster.drain = Some("canceled");
                cluster.eligible = request.body.contains("true");
                Response::new(200, "{}")
            }
            ("PUT", "/v1/node/n-1/drain") => {
                cluster.drain = Some("draining");
                cluster.eligible = false;
                Response::new(200, "{}")
            }
            ("PUT", "/v1/node/n-1/eligibility") => {
                cluster.eligible = false;
                Response::new(200, "{}")
            }
            ("GET", path) if path.starts_with("/v1/allocations") => {
                let left = if cluster.drain == Some("draining") {
                    r#"[{"JobType": "service"}]"#
                } else {
                    "[]"
                };
                Response::new(200, left)
            }
            _ => Response::new(404, ""),
        }
    })
}

struct Node {
    root: tempfile::TempDir,
    cluster: Shared,
    imds: Server,
    nomad: Server,
    consul: Server,
    notified: UnixDatagram,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let record = Record {
            name: "i-1".to_owned(),
            ..crate::health::record(Role::NomadClient)
        };
        let write = |path: &str, text: &[u8]| files.write_atomic(path, text, 0o644).unwrap();
        write(RECORD, &serde_json::to_vec(&record).unwrap());
        write("/opt/nomad/data/client/client-id", b"n-1");
        write("/opt/nomad/data/client/secret-id", b"planted-secret");
        write("/proc/sys/kernel/random/boot_id", b"boot-1");
        files.make_directory("/run/systemd/system", 0o755).unwrap();
        // Services run until they are stopped.
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{root}/systemctl.log\ncase \"$1 $2\" in\n\
             'show '*) echo LoadState=loaded; echo ActiveState=active; echo SubState=running ;;\n\
             list-jobs*) cat {root}/jobs 2>/dev/null ;;\nesac\nexit 0\n",
            root = root.path().display()
        );
        write("/bin/systemctl", script.as_bytes());
        fs::set_permissions(root.path().join("bin/systemctl"), Permissions::from_mode(0o755)).unwrap();
        let cluster = Shared::default();
        cluster.lock().unwrap().eligible = true;
        let notified = UnixDatagram::bind(root.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self {
            imds: metadata(&cluster),
            nomad: nomad(&cluster),
            consul: Server::start(|_| Response::new(200, "")),
            root,
            cluster,
            notified,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cos-agent"));
        let path = format!(
            "{}:{}",
            self.root.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command
            .args(arguments)
            .arg("--root")
            .arg(self.root.path())
            .args(["--nomad", &self.nomad.url, "--consul", &self.consul.url])
            .env("PATH", path)
            .env("NOTIFY_SOCKET", self.root.path().join("notify"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the daemon and waits until it is ready.
    fn watch(&self) -> Watcher {
        let imds = self.imds.url.clone();
        let mut child = self
            .command(&["watch", "--json", "--imds", &imds])
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (reader, record) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&lines));
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                record.lock().unwrap().push(line);
            }
        });
        while self.notification() != "READY=1" {}
        Watcher { child, lines }
    }

    fn notification(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.notified.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn ran(&self, program: &str) -> bool {
        let log = fs::read_to_string(self.root.path().join("systemctl.log")).unwrap_or_default();
        log.lines().any(|line| line == program)
    }
}

struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    fn said(&self) -> Vec<serde_json::Value> {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn terminate(mut self) -> (Option<i32>, Vec<serde_json::Value>) {
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), self.said())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kilobytes of memory that are its own at most, and clock ticks of processor time, of which there are 100 a second.
    fn cost(&self) -> (u64, u64) {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let memory = memory.split_whitespace().next().unwrap().parse().unwrap();
        let times = fs::read_to_string(format!("{process}/stat")).unwrap();
        let fields: Vec<&str> = times.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        (memory, ticks)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(90), "{what} did not happen");
        thread::sleep(Duration::from_millis(50));
    }
}

fn in_seconds(seconds: u64) -> String {
    cos_agent::node::watch::Timestamp::now()
        .plus(Duration::from_secs(seconds))
        .to_string()
}

#[test]
fn a_watcher_that_is_killed_during_a_drain_goes_on() {
    let node = Node::new();
    let watcher = node.watch();
    node.cluster.lock().unwrap().spot = Some(format!(
        r#"{{"action": "terminate", "time": "{}"}}"#,
        in_seconds(120)
    ));
    until("the drain", || {
        node.cluster.lock().unwrap().drain == Some("draining")
    });
    watcher.kill();
    let watcher = node.watch();
    let resumed = watcher.said()[0].clone();
    assert_eq!(
        (&resumed["event"], &resumed["resumed"]),
        (&"started".into(), &true.into()),
        "{resumed}"
    );
    node.cluster.lock().unwrap().drain = Some("complete");
    until("Consul's leave", || node.consul.count("PUT /v1/agent/leave") == 1);
    assert!(node.ran("stop nomad.service"));
    until("the end", || {
        watcher.said().iter().any(|line| line["event"] == "reached")
    });
    assert_eq!(node.nomad.count("PUT /v1/node/n-1/drain"), 1, "it drains once");
    let (memory, _) = watcher.cost();
    eprintln!("memory of its own: {memory} kB");
    assert!(memory <= 8 * 1024, "{memory} kB");
    let (code, said) = watcher.terminate();
    assert_eq!(code, Some(0));
    let said = serde_json::to_string(&said).unwrap();
    assert!(
        said.contains("told to stop") || said.contains("stopping"),
        "{said}"
    );
    let journal = fs::read_to_string(node.root.path().join("var/lib/cos-agent/watch.json")).unwrap();
    for text in [said, journal] {
        assert!(!text.contains("planted-secret"), "{text}");
    }
}

#[test]
fn an_idle_watcher_costs_next_to_nothing() {
    let node = Node::new();
    let watcher = node.watch();
    let before = watcher.cost();
    thread::sleep(Duration::from_secs(11));
    let after = watcher.cost();
    // A debug build, and still: at most 0.5 % of a processor. The release build is measured by hand.
    let ticks = after.1 - before.1;
    eprintln!("11 s of idling: {ticks} ticks of 10 ms, {} kB", after.0);
    assert!(ticks <= 5, "{ticks} ticks of 10 ms in 11 s");
    let asked = node.imds.asked();
    assert_eq!(asked.iter().filter(|line| line.contains("api/token")).count(), 1);
    assert_eq!(node.imds.connections(), 1);
}

#[test]
fn one_watcher_at_a_time_and_commands_by_hand_go_through_it() {
    let node = Node::new();
    let watcher = node.watch();
    let second = node
        .command(&["watch", "--imds", &node.imds.url])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(6));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        told.contains("another cos-agent acts on this node") && told.contains("hint: "),
        "{told}"
    );
    // The watcher drains; the command follows.
    let drain = node
        .command(&["drain", "--deadline", "60s", "--reason", "disk swap"])
        .spawn()
        .unwrap();
    until("the drain", || {
        node.cluster.lock().unwrap().drain == Some("draining")
    });
    node.cluster.lock().unwrap().drain = Some("complete");
    let drained = drain.wait_with_output().unwrap();
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert!(
        watcher
            .said()
            .iter()
            .any(|line| line["cause"] == "operator: drained, disk swap")
    );
    let back = node.command(&["eligible"]).output().unwrap();
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert!(node.cluster.lock().unwrap().eligible);
    assert!(!Path::new(&node.root.path().join("var/lib/cos-agent/request.json")).exists());
}

#[test]
fn without_a_watcher_the_command_does_it_itself() {
    let node = Node::new();
    let drain = node.command(&["leave", "--deadline", "60s"]).spawn().unwrap();
    until("the drain", || {
        node.cluster.lock().unwrap().drain == Some("draining")
    });
    node.cluster.lock().unwrap().drain = Some("complete");
    let left = drain.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&left.stderr).into_owned();
    assert_eq!(left.status.code(), Some(0), "{told}");
    assert!(told.contains("the node is gone"), "{told}");
    assert!(node.ran("stop nomad.service"));
    assert_eq!(node.consul.count("PUT /v1/agent/leave"), 1);
    // Another cause keeps the node out, and the operator is told which.
    let watcher = {
        node.cluster.lock().unwrap().target = Some("Standby");
        node.watch()
    };
    until("Standby", || {
        watcher
            .said()
            .iter()
            .any(|line| line["cause"] == "Auto Scaling target state Standby")
    });
    let back = node.command(&["eligible"]).output().unwrap();
    let told = String::from_utf8_lossy(&back.stderr).into_owned();
    assert_eq!(back.status.code(), Some(6), "{told}");
    assert!(
        told.contains("the node stays drained: Auto Scaling target state Standby"),
        "{told}"
    );
}

#[test]
fn once_tells_what_would_be_done_and_does_nothing() {
    let node = Node::new();
    node.cluster.lock().unwrap().spot =
        Some(format!(r#"{{"action": "stop", "time": "{}"}}"#, in_seconds(120)));
    let once = node
        .command(&["watch", "--once", "--imds", &node.imds.url])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&once.stdout).into_owned();
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    for part in [
        "notice: spot interruption: stop",
        "the node should be gone, its jobs away by",
        "action: look at the node",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(node.nomad.asked().len(), 0);
    assert!(!node.root.path().join("var/lib/cos-agent/watch.json").exists());
}

#[test]
fn a_machine_that_goes_down_is_drained_first() {
    let node = Node::new();
    let watcher = node.watch();
    fs::write(node.root.path().join("jobs"), "1 poweroff.target start waiting\n").unwrap();
    kill(
        Pid::from_raw(watcher.child.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    until("the drain", || {
        node.cluster.lock().unwrap().drain == Some("draining")
    });
    node.cluster.lock().unwrap().drain = Some("complete");
    let mut watcher = watcher;
    until("the end", || watcher.child.try_wait().unwrap().is_some());
    assert!(!node.ran("stop nomad.service"), "the shutdown stops it");
    assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
}
