//! Owns asking the agents of this machine: Consul and Nomad by HTTP, Docker by its socket.
//! Touches local HTTP and one Unix socket.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::node::http;

/// Consul's API on this machine.
pub const CONSUL_URL: &str = "http://127.0.0.1:8500";
/// Nomad's API on this machine.
pub const NOMAD_URL: &str = "http://127.0.0.1:4646";
/// Docker's socket on this machine.
pub const DOCKER_SOCKET: &str = "/run/docker.sock";

const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(5);

/// What `apply` must know of Consul: whether its API answers. The error is the reason why not.
pub trait ConsulApi {
    /// Asks once.
    fn answers(&self) -> Result<(), String>;
    /// Addresses at which a service with this tag is registered, whether it is healthy or not.
    fn service_addresses(&self, service: &str, tag: &str) -> Result<Vec<IpAddr>, String>;
}

/// Consul's API at a URL.
#[derive(Debug)]
pub struct LocalConsul {
    url: String,
    agent: ureq::Agent,
}

impl LocalConsul {
    /// Consul at `url`.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            agent: http::client(CONNECT, ANSWER),
        }
    }
}

impl ConsulApi for LocalConsul {
    fn answers(&self) -> Result<(), String> {
        // With access control on, an agent that works answers 403 to who brings no token.
        match reach(&self.agent, &self.url, "/v1/agent/self")? {
            (_, answer) if matches!(answer.status, 200 | 403) => Ok(()),
            (url, answer) => Err(refusal(&url, &answer)),
        }
    }

    fn service_addresses(&self, service: &str, tag: &str) -> Result<Vec<IpAddr>, String> {
        let path = format!("/v1/catalog/service/{service}?tag={tag}");
        let entries: Vec<CatalogEntry> = decode(&path, &ask(&self.agent, &self.url, &path)?)?;
        // A service without an address of its own is at that of its node.
        let address = |entry: &CatalogEntry| {
            let own = Some(&entry.service_address).filter(|address| !address.is_empty());
            own.unwrap_or(&entry.address).parse().ok()
        };
        Ok(entries.iter().filter_map(address).collect())
    }
}

/// A service as Consul's catalog has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CatalogEntry {
    #[serde(default)]
    address: String,
    #[serde(default)]
    service_address: String,
}

/// All agents of this machine.
#[derive(Debug)]
pub struct LocalApis {
    /// Base URL of Consul.
    pub consul: String,
    /// Base URL of Nomad.
    pub nomad: String,
    /// Docker's socket.
    pub docker: PathBuf,
    agent: ureq::Agent,
}

impl LocalApis {
    /// The agents at these places.
    pub fn new(consul: &str, nomad: &str, docker: PathBuf) -> Self {
        Self {
            consul: consul.to_owned(),
            nomad: nomad.to_owned(),
            docker,
            agent: http::client(CONNECT, ANSWER),
        }
    }

    pub(super) fn consul<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        decode(path, &ask(&self.agent, &self.consul, path)?)
    }

    pub(super) fn nomad<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        decode(path, &ask(&self.agent, &self.nomad, path)?)
    }

    /// Asks Docker whether it is there. HTTP over a Unix socket is four lines; the docker client is 60 MB to read.
    pub(crate) fn docker_ping(&self) -> Result<(), String> {
        let place = self.docker.display();
        let exchange = || -> std::io::Result<String> {
            let mut socket = UnixStream::connect(&self.docker)?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.set_write_timeout(Some(ANSWER))?;
            socket.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
            let mut answer = Vec::new();
            socket.take(64 * 1024).read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = exchange().map_err(|error| format!("{place} does not answer: {error}"))?;
        let status = answer.lines().next().unwrap_or_default();
        if status.split_whitespace().nth(1) == Some("200") {
            return Ok(());
        }
        Err(format!("{place} answered \"{status}\""))
    }
}

fn ask(agent: &ureq::Agent, base: &str, path: &str) -> Result<Vec<u8>, String> {
    match reach(agent, base, path)? {
        (_, answer) if answer.status == 200 => Ok(answer.body),
        (url, answer) => Err(refusal(&url, &answer)),
    }
}

/// The URL, and what it answered.
fn reach(agent: &ureq::Agent, base: &str, path: &str) -> Result<(String, http::Answer), String> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    match http::get(agent, &url, None) {
        Ok(answer) => Ok((url, answer)),
        Err(error) => Err(format!("{url} does not answer: {error}")),
    }
}

fn refusal(url: &str, answer: &http::Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let line = body.lines().next().unwrap_or_default();
    let said: String = line.chars().take(300).collect();
    format!("{url} answered {}: {said}", answer.status)
}

fn decode<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{path} answered what is not readable: {error}"))
}
