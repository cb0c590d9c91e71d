//! Owns what a machine has to resolve names with: its resolver file, its local resolvers, its packet filter.
//! Touches files (reading).

use std::net::IpAddr;

use crate::host::{FileError, Files};
use crate::node::services::{Activity, Condition};

/// Where programs learn whom to ask.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved knows of the servers that the network named.
const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
/// Run by every `dhclient-script` of Red Hat's and Debian's families before it writes the resolver file, so also by one
/// whose `dhclient` has been running for long.
pub(crate) const DHCLIENT_HOOK: &str = "/etc/dhcp/dhclient-enter-hooks";
/// Where dnsmasq's packages have it read more files from.
pub(crate) const DNSMASQ_FOLDER: &str = "/etc/dnsmasq.d";

/// A service as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalResolver {
    /// Its unit is on the machine.
    pub installed: bool,
    /// It starts at boot.
    pub enabled: bool,
    /// It runs.
    pub active: bool,
}

/// A resolver file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// What it is a link to, if it is one.
    pub link: Option<String>,
    /// Its lines.
    pub text: String,
}

impl ResolvConf {
    /// The servers that it names, in order.
    pub fn nameservers(&self) -> Vec<IpAddr> {
        nameservers(&self.text)
    }
}

/// How services are managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// systemd.
    Systemd,
    /// System V scripts.
    SysV,
}

/// What a machine has to resolve names with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverFacts {
    /// `/etc/resolv.conf`.
    pub resolv_conf: ResolvConf,
    /// The network's own servers: what the resolver file or systemd-resolved names and is not this machine.
    pub upstream: Vec<IpAddr>,
    /// systemd-resolved.
    pub resolved: LocalResolver,
    /// Version of systemd; none where it does not run.
    pub systemd: Option<u32>,
    /// dnsmasq.
    pub dnsmasq: LocalResolver,
    /// Whether dnsmasq reads the files of its folder.
    pub dnsmasq_reads_folder: bool,
    /// Path of `iptables`.
    pub iptables: Option<String>,
    /// Path of `nft`.
    pub nft: Option<String>,
    /// Content of the hook of `dhclient`, where that program is.
    pub dhclient_hook: Option<String>,
    /// How services are managed; none if nothing manages them.
    pub manager: Option<Manager>,
    /// Files of earlier plans that are there.
    pub written: Vec<&'static str>,
}

/// Looks at the machine, where systemd-resolved and dnsmasq fare so. `ours` are the files that a plan may have written
/// before.
pub(crate) fn observe(
    files: &Files,
    [resolved, dnsmasq]: [Option<&Condition>; 2],
    systemd: Option<u32>,
    ours: &[&'static str],
) -> Result<ResolverFacts, FileError> {
    let text = |path: &str| -> Result<Option<String>, FileError> {
        let bytes = files.read(path)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let link = files.link_target(RESOLV_CONF)?;
    // An absolute link is meant below the root too.
    let absolute = link.as_deref().filter(|target| target.starts_with('/'));
    let resolv_conf = ResolvConf {
        // A link to what is not there yet is as good as an empty file.
        text: text(absolute.unwrap_or(RESOLV_CONF))?.unwrap_or_default(),
        link,
    };
    let uplink = text(UPLINK)?.unwrap_or_default();
    let mut upstream = Vec::new();
    for server in resolv_conf.nameservers().into_iter().chain(nameservers(&uplink)) {
        if !server.is_loopback() && !upstream.contains(&server) {
            upstream.push(server);
        }
    }
    let [resolved, dnsmasq] = [resolved, dnsmasq].map(local_resolver);
    let folder = |path: &str| text(path).map(|text| text.is_some_and(|text| names_folder(&text)));
    Ok(ResolverFacts {
        upstream,
        resolved,
        systemd,
        dnsmasq,
        dnsmasq_reads_folder: folder("/etc/dnsmasq.conf")?
            // Debian's package says it beside its script and not in the file.
            || folder("/etc/default/dnsmasq")?,
        iptables: find(files, "iptables"),
        nft: find(files, "nft"),
        dhclient_hook: match find(files, "dhclient") {
            Some(_) => Some(text(DHCLIENT_HOOK)?.unwrap_or_default()),
            None => None,
        },
        manager: if files.locate("/run/systemd/system").is_dir() {
            Some(Manager::Systemd)
        } else {
            files.locate("/sbin/chkconfig").is_file().then_some(Manager::SysV)
        },
        written: ours
            .iter()
            .filter(|path| matches!(files.mode(path), Ok(Some(_))))
            .copied()
            .collect(),
        resolv_conf,
    })
}

/// A service that nobody could ask for counts as absent.
fn local_resolver(condition: Option<&Condition>) -> LocalResolver {
    condition.map_or_else(LocalResolver::default, |condition| LocalResolver {
        installed: condition.activity != Activity::Absent,
        enabled: condition.enabled,
        active: condition.activity == Activity::Active,
    })
}

/// Servers of a resolver file, in order.
pub(crate) fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words
                .nth(1)
                .filter(|_| line.trim_start().starts_with("nameserver"))?;
            // `fe80::1%eth0` names its interface; only loopback and the VPC matter here.
            address.split('%').next()?.parse().ok()
        })
        .collect()
}

fn names_folder(text: &str) -> bool {
    text.lines()
        .any(|line| !line.trim_start().starts_with('#') && line.contains(DNSMASQ_FOLDER))
}

/// A program, in the folders that services look in.
fn find(files: &Files, name: &str) -> Option<String> {
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .into_iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| files.locate(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch a.internal\nnameserver 10.0.0.2\n nameserver\t127.0.0.53 x\n\
                    nameserver fe80::1%eth0\nnameserver nonsense\n";
        let expected: Vec<IpAddr> = ["10.0.0.2", "127.0.0.53", "fe80::1"]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        assert_eq!(nameservers(text), expected);
    }

    #[test]
    fn a_bare_machine_has_nothing_and_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let facts = observe(&Files::new(root.path()), [None; 2], None, &["/etc/x"]).unwrap();
        assert_eq!(facts.resolv_conf, ResolvConf::default());
        assert!(facts.upstream.is_empty() && facts.iptables.is_none() && facts.dhclient_hook.is_none());
        assert_eq!((facts.manager, facts.systemd), (None, None));
    }

    #[test]
    fn what_is_there_is_found() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for (path, text) in [
            (
                "/run/systemd/resolve/resolv.conf",
                "nameserver 10.0.0.2\nnameserver 10.0.0.2\n",
            ),
            (
                "/etc/dnsmasq.conf",
                "#conf-dir=/etc/dnsmasq.d\nconf-dir=/etc/dnsmasq.d,.rpmnew\n",
            ),
            ("/usr/sbin/iptables", ""),
            ("/sbin/dhclient", ""),
            (DHCLIENT_HOOK, "echo mine\n"),
            ("/etc/x", ""),
        ] {
            files.write_atomic(path, text.as_bytes(), 0o755).unwrap();
        }
        files
            .link(RESOLV_CONF, "../run/systemd/resolve/resolv.conf")
            .unwrap();
        files.make_directory("/run/systemd/system", 0o755).unwrap();
        let facts = observe(&files, [None; 2], Some(252), &["/etc/x", "/etc/y"]).unwrap();
        assert_eq!(
            facts.resolv_conf.link.as_deref(),
            Some("../run/systemd/resolve/resolv.conf")
        );
        assert_eq!(facts.upstream, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert!(facts.dnsmasq_reads_folder);
        assert_eq!(facts.iptables.as_deref(), Some("/usr/sbin/iptables"));
        assert_eq!(facts.dhclient_hook.as_deref(), Some("echo mine\n"));
        assert_eq!(facts.manager, Some(Manager::Systemd));
        assert_eq!(facts.written, ["/etc/x"]);
        assert_eq!(facts.systemd, Some(252));
    }
}
