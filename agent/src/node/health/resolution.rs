//! Owns whether names below `.consul` resolve on this machine, and all others as well as they do without us.
//! Touches the resolver that the machine's programs use, and the network's own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::failure::Failure;
use super::query::{self, Answer};
use crate::host::Files;
use crate::node::render::RecordedDns;
use crate::node::render::dns::Resolver;
use crate::node::sources::resolver::{RESOLV_CONF, nameservers};

/// The name that Consul has in every cluster: its own servers.
pub(super) const CONSUL_NAME: &str = "consul.service.consul";
/// The C library's own patience is 5 s; a resolver on this machine answers at once or asks one that does.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whom programs ask: the servers of the resolver file, or, in tests, one at any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Those of `/etc/resolv.conf`, at port 53.
    Configured,
    /// This one.
    At(SocketAddr),
}

pub(super) fn check(
    dns: &RecordedDns,
    system: System,
    upstream_port: u16,
    files: &Files,
) -> Result<String, Failure> {
    let servers = match system {
        System::At(server) => vec![server],
        System::Configured => {
            let text = files.read(RESOLV_CONF).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            nameservers(&text)
                .into_iter()
                .map(|address| SocketAddr::new(address, 53))
                .collect()
        }
    };
    let (server, answer) = first(&servers, CONSUL_NAME).map_err(|reason| {
        Failure::passing(format!("{CONSUL_NAME} cannot be asked for: {reason}")).hint(hint(dns.resolver))
    })?;
    if !answer.resolves() {
        let reason = format!(
            "{CONSUL_NAME} does not resolve: {} says {}",
            server.ip(),
            answer.word()
        );
        return Err(Failure::passing(reason).hint(hint(dns.resolver)));
    }
    let proof = format!("{CONSUL_NAME} has {} addresses", answer.addresses.len());
    // What the network does not resolve itself need not resolve here.
    let upstream: Vec<SocketAddr> = dns
        .upstream
        .iter()
        .map(|address: &IpAddr| SocketAddr::new(*address, upstream_port))
        .collect();
    let Ok((network, direct)) = first(&upstream, &dns.witness) else {
        return Ok(format!("{proof}; the network's own resolver does not answer"));
    };
    if !direct.resolves() {
        return Ok(format!("{proof}; {} is no name in this network", dns.witness));
    }
    let here = first(&servers, &dns.witness);
    match here {
        Ok((_, answer)) if answer.resolves() => Ok(format!("{proof}, {} resolves", dns.witness)),
        Ok((server, answer)) => {
            let reason = format!(
                "{} resolves at {}, and {} says {}",
                dns.witness,
                network.ip(),
                server.ip(),
                answer.word()
            );
            Err(Failure::passing(reason).hint(hint(dns.resolver)))
        }
        Err(reason) => {
            let reason = format!(
                "{} resolves at {}, and here it does not: {reason}",
                dns.witness,
                network.ip()
            );
            Err(Failure::passing(reason).hint(hint(dns.resolver)))
        }
    }
}

/// The answer of the first server that gives one, as the C library goes through its list.
fn first(servers: &[SocketAddr], name: &str) -> Result<(SocketAddr, Answer), String> {
    let mut reasons = Vec::new();
    for server in servers {
        match query::ask(*server, name, PATIENCE) {
            // Of a server that fails the next one is asked.
            Ok(answer) if answer.code == 2 || answer.code == 5 => {
                reasons.push(format!("{} says {}", server.ip(), answer.word()));
            }
            Ok(answer) => return Ok((*server, answer)),
            Err(error) => reasons.push(format!("{}: {error}", server.ip())),
        }
    }
    if reasons.is_empty() {
        return Err("no server is named".to_owned());
    }
    Err(reasons.join(", "))
}

fn hint(resolver: Resolver) -> &'static str {
    match resolver {
        Resolver::SystemdResolved => "resolvectl status; systemctl status systemd-resolved consul",
        Resolver::SystemdResolvedByRedirect => {
            "resolvectl status; systemctl status systemd-resolved cos-dns consul"
        }
        Resolver::Dnsmasq => "systemctl status dnsmasq consul; cat /etc/resolv.conf",
        Resolver::Redirect | Resolver::Off => "systemctl status cos-dns consul; cat /etc/resolv.conf",
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::*;

    /// A server that knows some names, and has a code for all others.
    fn server(names: &'static [&'static str], code: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut packet = buffer[..length].to_vec();
                let mut name = String::new();
                let mut place = 12;
                while packet[place] != 0 {
                    let end = place + 1 + usize::from(packet[place]);
                    name += &String::from_utf8_lossy(&packet[place + 1..end]);
                    name.push('.');
                    place = end;
                }
                packet[2] = 0x81;
                if names.contains(&name.trim_end_matches('.')) {
                    packet[7] = 1;
                    packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 1]);
                } else {
                    packet[3] = code;
                }
                socket.send_to(&packet, from).unwrap();
            }
        });
        address
    }

    fn dns(upstream: &[SocketAddr]) -> RecordedDns {
        RecordedDns {
            resolver: Resolver::Dnsmasq,
            upstream: upstream.iter().map(SocketAddr::ip).collect(),
            witness: "ec2.test".to_owned(),
        }
    }

    fn told(system: SocketAddr, network: SocketAddr) -> Result<String, Failure> {
        check(
            &dns(&[network]),
            System::At(system),
            network.port(),
            &Files::new("/nonexistent"),
        )
    }

    #[test]
    fn both_kinds_of_names_must_resolve() {
        let network = server(&["ec2.test"], 3);
        let good = server(&[CONSUL_NAME, "ec2.test"], 3);
        assert_eq!(
            told(good, network).unwrap(),
            "consul.service.consul has 1 addresses, ec2.test resolves"
        );
        let only_vpc = server(&["ec2.test"], 3);
        let failure = told(only_vpc, network).unwrap_err();
        assert_eq!(
            failure.reason,
            "consul.service.consul does not resolve: 127.0.0.1 says NXDOMAIN"
        );
        assert!(failure.hint.unwrap().contains("dnsmasq"));
        let only_consul = server(&[CONSUL_NAME], 3);
        let failure = told(only_consul, network).unwrap_err();
        assert_eq!(
            failure.reason,
            "ec2.test resolves at 127.0.0.1, and 127.0.0.1 says NXDOMAIN"
        );
        let refuses = server(&[CONSUL_NAME], 5);
        let failure = told(refuses, network).unwrap_err();
        assert!(failure.reason.ends_with("127.0.0.1 says REFUSED"), "{failure:?}");
    }

    #[test]
    fn what_the_network_does_not_know_fails_as_before() {
        let network = server(&[], 3);
        let good = server(&[CONSUL_NAME], 3);
        assert!(
            told(good, network)
                .unwrap()
                .ends_with("ec2.test is no name in this network")
        );
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(
            told(good, gone)
                .unwrap()
                .ends_with("the network's own resolver does not answer")
        );
        let failure = told(gone, network).unwrap_err();
        assert!(failure.reason.contains("cannot be asked for"), "{failure:?}");
        let failure = check(&dns(&[]), System::Configured, 53, &Files::new("/nonexistent")).unwrap_err();
        assert!(failure.reason.ends_with("no server is named"), "{failure:?}");
    }
}
