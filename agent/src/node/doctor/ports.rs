//! Owns whether somebody else has the ports of Consul and Nomad.
//! Touches `/proc`.

use std::collections::BTreeMap;

use super::{Case, Finding};
use crate::host::Files;
use crate::node::config::Role;

/// A port that a program of a node listens on.
struct Wanted {
    port: u16,
    owner: &'static str,
    /// Only servers listen there.
    server: bool,
}

const WANTED: [Wanted; 8] = [
    Wanted {
        port: 8300,
        owner: "consul",
        server: true,
    },
    Wanted {
        port: 8301,
        owner: "consul",
        server: false,
    },
    Wanted {
        port: 8302,
        owner: "consul",
        server: true,
    },
    Wanted {
        port: 8500,
        owner: "consul",
        server: false,
    },
    Wanted {
        port: 8600,
        owner: "consul",
        server: false,
    },
    Wanted {
        port: 4646,
        owner: "nomad",
        server: false,
    },
    Wanted {
        port: 4647,
        owner: "nomad",
        server: true,
    },
    Wanted {
        port: 4648,
        owner: "nomad",
        server: true,
    },
];

/// TCP_LISTEN in the kernel's tables; UDP sockets that are not connected have 07.
const LISTENING: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let Some(roles) = case.roles() else {
        return Vec::new();
    };
    let server = |owner: &str| match owner {
        "consul" => roles.has(Role::ConsulServer),
        _ => roles.has(Role::NomadServer),
    };
    let wanted = WANTED
        .iter()
        .filter(|wanted| wanted.owner == "consul" || roles.has_nomad());
    let wanted: Vec<&Wanted> = wanted
        .filter(|wanted| !wanted.server || server(wanted.owner))
        .collect();
    let mut sockets: BTreeMap<u64, (&Wanted, &str)> = BTreeMap::new();
    for (table, state) in LISTENING {
        let text = case
            .files()
            .read(format!("/proc/net/{table}"))
            .ok()
            .flatten()
            .unwrap_or_default();
        for (port, inode) in listeners(&String::from_utf8_lossy(&text), state) {
            if let Some(wanted) = wanted.iter().find(|wanted| wanted.port == port) {
                sockets.insert(inode, (wanted, table.trim_end_matches('6')));
            }
        }
    }
    let owners = owners(case.files(), &sockets.keys().copied().collect::<Vec<_>>());
    let mut findings = Vec::new();
    for (inode, (wanted, protocol)) in sockets {
        let Some((process, name)) = owners.get(&inode).filter(|(_, name)| name != wanted.owner) else {
            continue;
        };
        let finding = Finding::fault(
            format!(
                "port {} ({protocol}) of {} is taken by {name}",
                wanted.port, wanted.owner
            ),
            format!("process {process} ({name}) listens there"),
            format!(
                "systemctl status {process}; stop it, then: systemctl restart {}",
                wanted.owner
            ),
        );
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Port and inode of each socket in this state: fields 2, 4 and 10 of a table in `/proc/net` (proc(5)).
fn listeners<'a>(table: &'a str, state: &'a str) -> impl Iterator<Item = (u16, u64)> + 'a {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if *fields.get(3)? != state {
            return None;
        }
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
    })
}

/// Process and name of whoever holds these sockets.
fn owners(files: &Files, inodes: &[u64]) -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    for name in files.entries("/proc").unwrap_or_default() {
        if owners.len() == inodes.len() {
            break;
        }
        let Ok(process) = name.parse::<u32>() else {
            continue;
        };
        let folder = format!("/proc/{process}/fd");
        // A process may end while it is looked at.
        for descriptor in files.entries(&folder).unwrap_or_default() {
            let target = files
                .link_target(format!("{folder}/{descriptor}"))
                .ok()
                .flatten()
                .unwrap_or_default();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode
                .and_then(|inode| inode.parse().ok())
                .filter(|inode| inodes.contains(inode))
            else {
                continue;
            };
            let name = files
                .read(format!("/proc/{process}/comm"))
                .ok()
                .flatten()
                .unwrap_or_default();
            let name = String::from_utf8_lossy(&name).trim().to_owned();
            owners.entry(inode).or_insert((process, name));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn this_process_is_found_by_its_sockets() {
        let files = Files::new("/");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (table, state, port) in [
            ("tcp", "0A", tcp.local_addr().unwrap().port()),
            ("udp", "07", udp.local_addr().unwrap().port()),
        ] {
            let text = files.read(format!("/proc/net/{table}")).unwrap().unwrap();
            let text = String::from_utf8(text).unwrap();
            let (_, inode) = listeners(&text, state).find(|(other, _)| *other == port).unwrap();
            let owners = owners(&files, &[inode]);
            assert_eq!(owners[&inode].0, std::process::id(), "{table}");
        }
    }
}
