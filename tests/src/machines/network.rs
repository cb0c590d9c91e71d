//! Owns the sandbox's VPC: a namespace with a bridge that has the addresses EC2 gives its services, DHCP and DNS.
//! Touches that namespace; no route leaves it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::process::{Child, Command};

use super::command::run;
use super::held::Records;
use super::namespace::Namespace;

/// Base of the default VPC plus two: the resolver, and where AWS's endpoints are.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
/// The resolver's link-local address.
const RESOLVER_LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The metadata service.
pub(crate) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const BRIDGE: &str = "vpc";

/// A range of private addresses, and the router that is its first address.
struct Range {
    network: Ipv4Addr,
    length: u32,
    router: Ipv4Addr,
}

impl Range {
    fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - self.length))
    }

    fn cidr(&self) -> String {
        format!("{}/{}", self.network, self.length)
    }
}

/// The ranges that machines may have addresses from: all of RFC 1918, because VPCs that are made in the sandbox
/// choose theirs. All VPCs of a sandbox are one network here: nothing separates them.
///
/// 172.16.0.0/12 is cut as AWS cuts its default VPC, so that a machine's own route leaves room for the networks
/// that Docker chooses for itself.
fn ranges() -> Vec<Range> {
    let range = |a, b, length| Range {
        network: Ipv4Addr::new(a, b, 0, 0),
        length,
        router: Ipv4Addr::new(a, b, 0, 1),
    };
    (16..32)
        .map(|b| range(172, b, 16))
        .chain([range(10, 0, 8), range(192, 168, 16)])
        .collect()
}

/// The block that an address is in, as the metadata service shows it: 172.31.0.0/16 of the default VPC, or the
/// sixteen bits around any other address.
pub(crate) fn block_of(address: Ipv4Addr) -> String {
    let [a, b, ..] = address.octets();
    format!("{a}.{b}.0.0/16")
}

/// What dnsmasq is told of a range: addresses only for the machines that were admitted, and the router.
fn range_options(range: &Range) -> [String; 2] {
    let tag = format!("range{:08x}", u32::from(range.network));
    [
        format!(
            "--dhcp-range=set:{tag},{},static,{},1h",
            range.network,
            range.mask()
        ),
        format!("--dhcp-option=tag:{tag},option:router,{}", range.router),
    ]
}

/// The VPC of one sandbox.
pub(crate) struct Network {
    pub(crate) namespace: Namespace,
    records: Records,
    hosts: PathBuf,
    /// Killed when the network is dropped.
    _dnsmasq: Child,
}

/// The MAC address of the machine that has this private address.
pub(crate) fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("0a:c0:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The private DNS name that EC2 gives an address.
pub(crate) fn host_name(address: Ipv4Addr, region: &str) -> String {
    format!("ip-{}.{}", address.to_string().replace('.', "-"), domain(region))
}

fn domain(region: &str) -> String {
    if region == "us-east-1" {
        "ec2.internal".to_owned()
    } else {
        format!("{region}.compute.internal")
    }
}

/// Name of the interface on the bridge that leads to the machine with this address.
pub(crate) fn port_name(address: Ipv4Addr) -> String {
    format!("p{:08x}", u32::from(address))
}

impl Network {
    /// Makes the namespace, its bridge, and starts DHCP and DNS in it.
    pub(crate) async fn make(
        records: &Records,
        name: &str,
        folder: &Path,
        region: &str,
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::make(records, name).await?;
        // An address of its own: a bridge without one takes the lowest of its ports, so it would change as machines
        // come and go, and all others would for half a minute not reach router, resolver and endpoints.
        run(
            "ip",
            [
                "-n",
                name,
                "link",
                "add",
                BRIDGE,
                "address",
                &mac(RESOLVER),
                "type",
                "bridge",
                "forward_delay",
                "0",
            ],
        )
        .await?;
        let ranges = ranges();
        let routers = ranges
            .iter()
            .map(|range| format!("{}/{}", range.router, range.length));
        let services = [RESOLVER, RESOLVER_LINK_LOCAL, IMDS].map(|address| format!("{address}/32"));
        for address in routers.chain(services) {
            run("ip", ["-n", name, "address", "add", &address, "dev", BRIDGE]).await?;
        }
        run("ip", ["-n", name, "link", "set", BRIDGE, "up"]).await?;

        let hosts = folder.join("dhcp-hosts");
        std::fs::create_dir_all(&hosts)?;
        records.hold_process("process-dnsmasq", "dnsmasq", None)?;
        let (mark, value) = records.mark();
        let log = std::fs::File::create(folder.join("dnsmasq.log"))?;
        let dnsmasq = Command::new("nsenter")
            .arg(format!("--net={}", namespace.path().display()))
            .args([
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--pid-file=",
            ])
            .args([
                "--log-facility=-",
                "--bind-interfaces",
                "--no-ping",
                "--dhcp-authoritative",
            ])
            .arg("--dhcp-lease-max=65536")
            .args(ranges.iter().flat_map(range_options))
            .arg(format!("--interface={BRIDGE}"))
            .arg(format!("--dhcp-hostsdir={}", hosts.display()))
            .arg(format!(
                "--dhcp-leasefile={}",
                folder.join("dhcp-leases").display()
            ))
            .arg(format!("--dhcp-option=option:dns-server,{RESOLVER}"))
            .arg(format!("--dhcp-option=option:domain-name,{}", domain(region)))
            // Every name of AWS is the endpoint inside the VPC; machines have their EC2 names; the rest is not.
            .args([
                "--no-resolv",
                "--no-hosts",
                "--address=/#/",
                "--dns-forward-max=1000",
            ])
            .arg(format!("--address=/amazonaws.com/{RESOLVER}"))
            .args(
                ranges
                    .iter()
                    .map(|range| format!("--synth-domain={},{},ip-", domain(region), range.cidr())),
            )
            .env(mark, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start dnsmasq")?;
        records.hold_process("process-dnsmasq", "dnsmasq", dnsmasq.id())?;
        Ok(Self {
            namespace,
            records: records.clone(),
            hosts,
            _dnsmasq: dnsmasq,
        })
    }

    /// Lets the machine with this address have it by DHCP, under its EC2 name.
    pub(crate) fn admit(&self, address: Ipv4Addr) -> std::io::Result<()> {
        // `id:*` ignores the client id, which differs between machines that have the address in turn.
        let name = format!("ip-{}", address.to_string().replace('.', "-"));
        let line = format!("{},id:*,{address},{name},1h\n", mac(address));
        // Renamed into place, so that dnsmasq, which watches the folder, never reads half a line.
        let temporary = self.hosts.with_file_name(format!(".dhcp-{name}"));
        std::fs::write(&temporary, line)?;
        std::fs::rename(&temporary, self.hosts.join(&name))
    }

    /// Adds a tap device for a virtual machine to the bridge, and returns its name.
    pub(crate) async fn add_tap(&self, address: Ipv4Addr) -> anyhow::Result<String> {
        self.admit(address)?;
        let (namespace, port) = (self.namespace.name(), port_name(address));
        self.remove_port(address).await;
        run(
            "ip",
            ["-n", namespace, "tuntap", "add", "dev", &port, "mode", "tap"],
        )
        .await?;
        run(
            "ip",
            ["-n", namespace, "link", "set", &port, "master", BRIDGE, "up"],
        )
        .await?;
        Ok(port)
    }

    /// Name of the namespace of the container `id`, and of its cgroups.
    pub(crate) fn container_namespace(&self, id: &str) -> String {
        format!("{}.{id}", self.namespace.name())
    }

    /// Makes a namespace for a container, with `eth0` in it that leads to the bridge.
    pub(crate) async fn add_container(&self, address: Ipv4Addr, id: &str) -> anyhow::Result<Namespace> {
        self.admit(address)?;
        let (vpc, port) = (self.namespace.name(), port_name(address));
        self.remove_port(address).await;
        let inner = Namespace::make(&self.records, &self.container_namespace(id)).await?;
        let peer = inner.name();
        run(
            "ip",
            [
                "-n",
                vpc,
                "link",
                "add",
                &port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "address",
                &mac(address),
                "netns",
                peer,
            ],
        )
        .await?;
        run("ip", ["-n", vpc, "link", "set", &port, "master", BRIDGE, "up"]).await?;
        Ok(inner)
    }

    /// Removes the interface that leads to the machine with this address, if there is one.
    pub(crate) async fn remove_port(&self, address: Ipv4Addr) {
        let _absent = run(
            "ip",
            ["-n", self.namespace.name(), "link", "delete", &port_name(address)],
        )
        .await;
    }

    /// Forgets the machine's address.
    pub(crate) async fn remove(&self, address: Ipv4Addr) {
        self.remove_port(address).await;
        let name = format!("ip-{}", address.to_string().replace('.', "-"));
        let _absent = std::fs::remove_file(self.hosts.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_address() {
        let address = Ipv4Addr::new(172, 31, 16, 5);
        assert_eq!(mac(address), "0a:c0:ac:1f:10:05");
        assert_eq!(port_name(address), "pac1f1005");
        assert!(
            port_name(address).len() < 16,
            "an interface name has at most 15 bytes"
        );
        assert_eq!(host_name(address, "us-east-1"), "ip-172-31-16-5.ec2.internal");
        assert_eq!(
            host_name(address, "eu-west-1"),
            "ip-172-31-16-5.eu-west-1.compute.internal"
        );
    }
}
