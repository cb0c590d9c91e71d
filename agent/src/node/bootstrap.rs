//! Owns keeping a server from beginning a second cluster while another one answers.
//! Touches EC2, Consul's API on this machine, and the ports of other servers.
//!
//! With `bootstrap_expect` 1 Consul and Nomad elect themselves the moment they start, before they have looked for
//! anybody. With more they ask the servers that they find first, and join those that have a leader.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use super::config::NodeSpec;
use super::health::ConsulApi;
use super::render::Unit;
use crate::aws::Client;
use crate::error::one_line;
use crate::host::{FileError, Files};

/// Where Consul's servers speak to each other.
const CONSUL_RPC: u16 = 8300;
/// Where Nomad's servers do.
const NOMAD_RPC: u16 = 4647;
/// A server of the same network that has not answered by then does not.
const CONNECT: Duration = Duration::from_millis(500);

/// Other servers.
pub trait Neighbours {
    /// Addresses at which servers that Consul would join may be. The error is the reason why nobody can tell.
    fn consul_servers(&self, spec: &NodeSpec) -> Result<Vec<SocketAddr>, String>;
    /// Addresses at which Consul knows servers of Nomad.
    fn nomad_servers(&self) -> Result<Vec<SocketAddr>, String>;
    /// The first of them at which somebody answers.
    fn first_that_answers(&self, addresses: Vec<SocketAddr>) -> Option<SocketAddr>;
}

/// What is found before a server starts for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Discovery {
    /// It begins no second cluster.
    Free,
    /// A server answers at this address.
    Taken(IpAddr),
    /// Nobody can tell, for this reason.
    Unknown(String),
}

/// Looks for other servers, if `unit` is one that would elect itself at its start.
pub(super) fn look(
    unit: Unit,
    spec: &NodeSpec,
    files: &Files,
    neighbours: &dyn Neighbours,
) -> Result<Discovery, FileError> {
    let (alone, state) = match unit {
        Unit::Consul => (
            spec.consul.server == Some(1),
            format!("{}/raft", spec.consul.data_dir),
        ),
        Unit::Nomad => {
            let nomad = spec.nomad.as_ref();
            let server = nomad.and_then(|nomad| Some((nomad.server.as_ref()?.expect, &nomad.data_dir)));
            let Some((expect, folder)) = server else {
                return Ok(Discovery::Free);
            };
            (expect == 1, format!("{folder}/server/raft"))
        }
        _ => return Ok(Discovery::Free),
    };
    // One that has been in a cluster before goes back to it.
    if !alone || files.mode(&state)?.is_some() {
        return Ok(Discovery::Free);
    }
    let found = match unit {
        Unit::Consul => neighbours.consul_servers(spec),
        _ => neighbours.nomad_servers(),
    };
    Ok(match found {
        Err(reason) => Discovery::Unknown(reason),
        Ok(mut addresses) => {
            addresses.retain(|address| address.ip() != IpAddr::V4(spec.address));
            let taken = neighbours.first_that_answers(addresses);
            taken.map_or(Discovery::Free, |address| Discovery::Taken(address.ip()))
        }
    })
}

/// The network of this machine.
pub(super) struct Network<'a> {
    pub(super) aws: &'a Client,
    pub(super) consul: &'a dyn ConsulApi,
}

impl Neighbours for Network<'_> {
    fn consul_servers(&self, spec: &NodeSpec) -> Result<Vec<SocketAddr>, String> {
        if let Some(tag) = &spec.consul.join_tag {
            let addresses = self
                .aws
                .describe_instances_by_tag(tag.tag_key.as_str(), tag.tag_value.as_str())
                .map_err(|error| one_line(&error))?;
            let at = |address| SocketAddr::new(IpAddr::V4(address), CONSUL_RPC);
            return Ok(addresses.into_iter().map(at).collect());
        }
        Ok(spec
            .consul
            .retry_join
            .iter()
            .flat_map(|name| named(name))
            .collect())
    }

    fn nomad_servers(&self) -> Result<Vec<SocketAddr>, String> {
        let known = self.consul.service_addresses("nomad", "rpc")?;
        Ok(known
            .into_iter()
            .map(|address| SocketAddr::new(address, NOMAD_RPC))
            .collect())
    }

    fn first_that_answers(&self, addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
        thread::scope(|scope| {
            let asked: Vec<_> = addresses
                .into_iter()
                .map(|address| {
                    scope.spawn(move || {
                        TcpStream::connect_timeout(&address, CONNECT)
                            .is_ok()
                            .then_some(address)
                    })
                })
                .collect();
            asked.into_iter().find_map(|asked| asked.join().ok().flatten())
        })
    }
}

/// Addresses of a value of `retry_join`: an address or a name, perhaps with the port of gossip. What Consul asks other
/// clouds for (`provider=…`) is left to Consul.
fn named(text: &str) -> Vec<SocketAddr> {
    let host = match text.parse::<IpAddr>() {
        Ok(address) => return vec![SocketAddr::new(address, CONSUL_RPC)],
        Err(_) if text.contains(['=', ' ']) => return Vec::new(),
        Err(_) => text.rsplit_once(':').map_or(text, |(host, _)| host),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, CONSUL_RPC).to_socket_addrs();
    found.map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::node::config;
    use crate::node::sources::{Document, InstanceFacts, Origin};

    /// Servers that were found, of which those that answer end in 9.
    struct Found {
        addresses: Result<Vec<&'static str>, &'static str>,
        asked: Cell<u32>,
    }

    impl Found {
        fn new(addresses: Result<Vec<&'static str>, &'static str>) -> Self {
            let asked = Cell::new(0);
            Self { addresses, asked }
        }

        fn tell(&self) -> Result<Vec<SocketAddr>, String> {
            self.asked.set(self.asked.get() + 1);
            let addresses = self.addresses.clone().map_err(str::to_owned)?;
            Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    impl Neighbours for Found {
        fn consul_servers(&self, _: &NodeSpec) -> Result<Vec<SocketAddr>, String> {
            self.tell()
        }

        fn nomad_servers(&self) -> Result<Vec<SocketAddr>, String> {
            self.tell()
        }

        fn first_that_answers(&self, addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
            addresses
                .into_iter()
                .find(|address| address.ip().to_string().ends_with('9'))
        }
    }

    fn spec(expect: u32) -> NodeSpec {
        let document = format!(
            "version: 1\nrole: [consul-server, nomad-server]\n\
             consul: {{retry_join: [192.0.2.1], bootstrap_expect: {expect}}}\nnomad: {{bootstrap_expect: {expect}}}\n"
        );
        let document = Document {
            origin: Origin::UserData,
            bytes: document.into(),
        };
        config::resolve(
            &config::read(&[document]).unwrap(),
            &InstanceFacts::sample(),
            None,
        )
        .unwrap()
    }

    #[test]
    fn one_that_would_elect_itself_looks_for_others_before() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let own = spec(1).address.to_string() + ":8300";
        let own: &'static str = own.leak();
        let look = |unit, expect, found: &Found| look(unit, &spec(expect), &files, found).unwrap();
        for unit in [Unit::Consul, Unit::Nomad] {
            let found = Found::new(Ok(vec![own, "192.0.2.8:1", "192.0.2.9:1"]));
            assert_eq!(
                look(unit, 1, &found),
                Discovery::Taken("192.0.2.9".parse().unwrap())
            );
            assert_eq!(look(unit, 3, &found), Discovery::Free);
            assert_eq!(found.asked.get(), 1, "three look for each other by themselves");
            assert_eq!(look(unit, 1, &Found::new(Ok(vec![own]))), Discovery::Free);
            assert_eq!(
                look(unit, 1, &Found::new(Ok(vec!["192.0.2.8:1"]))),
                Discovery::Free
            );
            assert_eq!(
                look(unit, 1, &Found::new(Err("denied"))),
                Discovery::Unknown("denied".to_owned())
            );
        }
        for state in ["/opt/consul/data/raft", "/opt/nomad/data/server/raft"] {
            files.make_directory(state, 0o700).unwrap();
        }
        let found = Found::new(Ok(vec!["192.0.2.9:1"]));
        for unit in [Unit::Consul, Unit::Nomad, Unit::Docker] {
            assert_eq!(look(unit, 1, &found), Discovery::Free);
        }
        assert_eq!(found.asked.get(), 0, "it goes back to its own cluster");
    }

    #[test]
    fn names_and_addresses_are_read_as_consul_reads_them() {
        let at = |text: &str| named(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(at("192.0.2.1"), ["192.0.2.1:8300"]);
        assert_eq!(at("192.0.2.1:8301"), ["192.0.2.1:8300"]);
        assert_eq!(at("2001:db8::1"), ["[2001:db8::1]:8300"]);
        assert_eq!(at("[2001:db8::1]:8301"), ["[2001:db8::1]:8300"]);
        assert!(at("provider=gce project_name=x").is_empty());
        assert!(at("localhost").iter().all(|address| address.ends_with(":8300")));
    }

    #[test]
    fn whoever_listens_answers() {
        let client = Client::new(crate::aws::Settings::new(
            "eu-central-1",
            crate::aws::Environment::default(),
        ));
        let consul = crate::node::health::LocalConsul::new("http://127.0.0.1:1");
        let network = Network {
            aws: &client,
            consul: &consul,
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (here, nowhere) = (listener.local_addr().unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(network.first_that_answers(vec![nowhere, here]), Some(here));
        assert_eq!(network.first_that_answers(vec![nowhere]), None);
        assert!(network.nomad_servers().unwrap_err().contains("does not answer"));
    }
}
