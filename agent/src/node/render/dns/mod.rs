//! Owns how names below `.consul` come to resolve on a node: a table from what the machine has to files and units.
//! Touches nothing.
//!
//! | base | what it has | automatic is | known from |
//! |---|---|---|---|
//! | Amazon Linux 2023 | systemd 252; systemd-resolved runs and owns the resolver file, which it links to the network's servers, with its stub off (`resolved-disable-stub-listener.conf`) | systemd-resolved, with the stub on again | its issue 746 and the reports of others; run on Debian 12, which has systemd 252 too, set up in that way |
//! | Amazon Linux 2 | systemd 219 without systemd-resolved; `dhclient` writes the resolver file; iptables | redirect | its documentation; iptables and `dhclient` run on Debian 12 |
//! | Amazon Linux 1 | System V scripts; `dhclient` and iptables | redirect, by a script | its documentation; the script run on Debian 12 |
//! | any of them with dnsmasq, as COS's images had it before | dnsmasq is enabled | dnsmasq | run on Debian 12 |

mod texts;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{DesiredFile, DesiredUnit, RunsWith, Unit, digest, public};
use crate::node::config::DnsMode;
use crate::node::sources::resolver::{DHCLIENT_HOOK, Manager, RESOLV_CONF, ResolverFacts};

/// The part of systemd-resolved's configuration that COS writes. Of several files that say the same, the last by name
/// wins, whichever folder it is in: this one must sort behind `resolved-disable-stub-listener.conf`.
const RESOLVED_DROP_IN: &str = "/etc/systemd/resolved.conf.d/zz-cos-consul.conf";
/// The part of dnsmasq's configuration that COS writes.
const DNSMASQ_FILE: &str = "/etc/dnsmasq.d/10-cos-consul.conf";
/// The unit that redirects port 53 of the loopback interface to Consul.
const REDIRECT_UNIT: &str = "/etc/systemd/system/cos-dns.service";
/// The same for System V.
const REDIRECT_SCRIPT: &str = "/etc/init.d/cos-dns";
/// Rules of the redirect, for nft.
const REDIRECT_RULES: &str = "/etc/cos/dns.nft";

/// Every file that a plan may write as a whole; what another plan wrote is removed.
pub(crate) const FILES: [&str; 5] = [
    RESOLVED_DROP_IN,
    DNSMASQ_FILE,
    REDIRECT_UNIT,
    REDIRECT_SCRIPT,
    REDIRECT_RULES,
];

/// `DNS=` of systemd-resolved takes ports from this version on.
const PORTS: u32 = 246;
/// systemd-resolved answers at 127.0.0.53 from this version on.
const STUB: u32 = 231;
/// The resolver file that leads to that address.
const STUB_FILE: &str = "/run/systemd/resolve/stub-resolv.conf";
/// Its folder: a resolver file that links into it is systemd-resolved's own.
const RESOLVED_FOLDER: &str = "/run/systemd/resolve/";

/// Who resolves names below `.consul`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolver {
    /// systemd-resolved asks Consul at its port.
    SystemdResolved,
    /// systemd-resolved asks port 53 of the loopback interface, which is redirected to Consul.
    SystemdResolvedByRedirect,
    /// dnsmasq asks Consul.
    Dnsmasq,
    /// Consul itself, to which port 53 of the loopback interface is redirected.
    Redirect,
    /// Nobody.
    Off,
}

impl fmt::Display for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SystemdResolved => "systemd-resolved",
            Self::SystemdResolvedByRedirect => "systemd-resolved, with a redirect",
            Self::Dnsmasq => "dnsmasq",
            Self::Redirect => "a redirect to Consul",
            Self::Off => "nobody",
        })
    }
}

/// What is asked for, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSpec {
    /// What the configuration asks for.
    pub mode: DnsMode,
    /// A name outside `.consul` that the node needs: EC2's endpoint of its region.
    pub witness: String,
    /// What that comes to here; none until the machine was looked at.
    pub plan: Option<DnsPlan>,
}

/// Files and units, and why these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsPlan {
    /// Who resolves.
    pub resolver: Resolver,
    /// Why.
    pub reason: String,
    /// The network's own servers: Consul asks them where it answers every name.
    pub upstream: Vec<IpAddr>,
    /// Whether Consul is asked for every name, so that it needs recursors.
    pub recursors: bool,
    /// Files by path; none for one that must not be there.
    pub(super) files: BTreeMap<String, Option<DesiredFile>>,
    /// Links by path.
    pub(super) links: BTreeMap<String, String>,
    /// Units.
    pub(super) units: BTreeMap<Unit, DesiredUnit>,
}

/// What was asked for is not to be had on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("dns.consul asks for {wanted}, and {reason}")]
pub struct DnsRefusal {
    /// What was asked for.
    wanted: DnsMode,
    /// Why it cannot be.
    reason: String,
}

/// How packets are redirected.
#[derive(Debug, Clone, Copy)]
enum Filter<'a> {
    Iptables(&'a str),
    Nft(&'a str),
}

/// Decides. An explicit mode that the machine cannot do is refused; `automatic` takes the first that it can, and none
/// if it can do none.
pub fn plan(mode: DnsMode, facts: &ResolverFacts) -> Result<DnsPlan, DnsRefusal> {
    let refused = |reason: String| DnsRefusal { wanted: mode, reason };
    match mode {
        DnsMode::Off => Ok(off(facts, "the configuration says so".to_owned())),
        DnsMode::Resolved => by_resolved(facts).map_err(refused),
        DnsMode::Dnsmasq => by_dnsmasq(facts, true).map_err(refused),
        DnsMode::Redirect => by_redirect(facts).map_err(refused),
        DnsMode::Automatic => {
            let mut reasons = Vec::new();
            for by in [by_resolved, |facts: &_| by_dnsmasq(facts, false), by_redirect] {
                match by(facts) {
                    Ok(mut plan) => {
                        let before = reasons.iter().map(|reason| format!("{reason}, and "));
                        plan.reason = before.chain([plan.reason]).collect();
                        return Ok(plan);
                    }
                    Err(reason) => reasons.push(reason),
                }
            }
            Ok(off(facts, reasons.join(", and ")))
        }
    }
}

fn by_resolved(facts: &ResolverFacts) -> Result<DnsPlan, String> {
    if !facts.resolved.active {
        return Err("systemd-resolved does not run".to_owned());
    }
    let Some(version) = facts.systemd else {
        return Err("the version of systemd cannot be told".to_owned());
    };
    if version < STUB {
        return Err(format!("systemd-resolved {version} answers at no address"));
    }
    // In any other case it follows a resolver file that somebody else writes: with the file gone it would know no server.
    let own = facts
        .resolv_conf
        .link
        .as_deref()
        .filter(|link| link.contains(RESOLVED_FOLDER));
    let Some(link) = own else {
        return Err(format!("{RESOLV_CONF} is not systemd-resolved's own"));
    };
    let mut plan = DnsPlan::new(Resolver::SystemdResolved, facts);
    if !link.ends_with(STUB_FILE) {
        plan.links.insert(RESOLV_CONF.to_owned(), STUB_FILE.to_owned());
    }
    let server = if version >= PORTS {
        plan.reason = format!("systemd-resolved runs, and {version} knows ports");
        "127.0.0.1:8600"
    } else {
        let filter = filter(facts)?;
        plan.resolver = Resolver::SystemdResolvedByRedirect;
        plan.reason = format!("systemd-resolved runs, and {version} knows no ports");
        plan.redirect(facts, filter)?;
        "127.0.0.1"
    };
    plan.write(RESOLVED_DROP_IN, texts::resolved(server));
    plan.run(Unit::Resolved, &[RESOLVED_DROP_IN]);
    Ok(plan)
}

fn by_dnsmasq(facts: &ResolverFacts, asked_for: bool) -> Result<DnsPlan, String> {
    let dnsmasq = facts.dnsmasq;
    if !dnsmasq.installed {
        return Err("there is no dnsmasq".to_owned());
    }
    if !asked_for && !dnsmasq.active && !dnsmasq.enabled {
        return Err("dnsmasq is switched off".to_owned());
    }
    if !facts.dnsmasq_reads_folder {
        return Err("dnsmasq does not read /etc/dnsmasq.d".to_owned());
    }
    if facts.resolved.active {
        return Err("systemd-resolved has port 53".to_owned());
    }
    let mut plan = DnsPlan::new(Resolver::Dnsmasq, facts);
    plan.reason = if dnsmasq.active {
        "dnsmasq runs".to_owned()
    } else {
        "dnsmasq is installed".to_owned()
    };
    plan.write(DNSMASQ_FILE, texts::DNSMASQ.to_owned());
    plan.ask_loopback_first(facts)?;
    plan.run(Unit::Dnsmasq, &[DNSMASQ_FILE]);
    Ok(plan)
}

fn by_redirect(facts: &ResolverFacts) -> Result<DnsPlan, String> {
    if facts.dnsmasq.active {
        return Err("dnsmasq has port 53".to_owned());
    }
    let asked = facts.resolv_conf.nameservers();
    if !redirected(facts) && asked.iter().any(IpAddr::is_loopback) {
        return Err(format!(
            "{RESOLV_CONF} names a resolver of somebody else on this machine"
        ));
    }
    let filter = filter(facts)?;
    let mut plan = DnsPlan::new(Resolver::Redirect, facts);
    plan.reason = match filter {
        Filter::Iptables(_) => "iptables is here".to_owned(),
        Filter::Nft(_) => "nft is here".to_owned(),
    };
    if plan.upstream.is_empty() {
        return Err(format!(
            "{RESOLV_CONF} names no server that could answer other names"
        ));
    }
    plan.recursors = true;
    plan.redirect(facts, filter)?;
    plan.ask_loopback_first(facts)?;
    Ok(plan)
}

fn off(facts: &ResolverFacts, reason: String) -> DnsPlan {
    let mut plan = DnsPlan::new(Resolver::Off, facts);
    plan.reason = reason;
    plan
}

/// Whether port 53 of the loopback interface was redirected before.
fn redirected(facts: &ResolverFacts) -> bool {
    [REDIRECT_UNIT, REDIRECT_SCRIPT]
        .iter()
        .any(|path| facts.written.contains(path))
}

/// Docker needs iptables, so it is there where jobs run; with both, one tool for all rules is easier to read.
fn filter(facts: &ResolverFacts) -> Result<Filter<'_>, String> {
    match (&facts.iptables, &facts.nft) {
        (Some(path), _) => Ok(Filter::Iptables(path)),
        (None, Some(path)) => Ok(Filter::Nft(path)),
        (None, None) => Err("there is neither iptables nor nft".to_owned()),
    }
}

impl DnsPlan {
    /// Nothing of any plan: what an earlier one wrote goes.
    fn new(resolver: Resolver, facts: &ResolverFacts) -> Self {
        let mut plan = Self {
            resolver,
            reason: String::new(),
            upstream: facts.upstream.clone(),
            recursors: false,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            units: BTreeMap::new(),
        };
        for path in &facts.written {
            plan.files.insert((*path).to_owned(), None);
            match *path {
                RESOLVED_DROP_IN if facts.resolved.active => plan.run(Unit::Resolved, &[RESOLVED_DROP_IN]),
                DNSMASQ_FILE if facts.dnsmasq.active => plan.run(Unit::Dnsmasq, &[DNSMASQ_FILE]),
                REDIRECT_UNIT | REDIRECT_SCRIPT => {
                    plan.units.insert(Unit::Dns, DesiredUnit::Stopped);
                }
                _ => {}
            }
        }
        // dnsmasq goes on answering there, with or without us; after a redirect nobody does.
        if redirected(facts) && facts.resolv_conf.link.is_none() {
            plan.write(RESOLV_CONF, texts::without_loopback(&facts.resolv_conf.text));
        }
        if let Some(hook) = facts
            .dhclient_hook
            .as_deref()
            .filter(|hook| hook.contains(texts::BLOCK))
        {
            plan.hook(texts::without_block(hook));
        }
        plan
    }

    fn write(&mut self, path: &str, text: String) {
        self.files.insert(path.to_owned(), Some(public(text)));
    }

    fn hook(&mut self, text: String) {
        let file = DesiredFile {
            mode: 0o755,
            ..public(text)
        };
        self.files.insert(DHCLIENT_HOOK.to_owned(), Some(file));
    }

    /// A unit that is to run with these files.
    fn run(&mut self, unit: Unit, files: &[&str]) {
        let contents = files.iter().filter_map(|path| self.files.get(*path));
        let together: Vec<String> = contents
            .map(|file| {
                file.as_ref()
                    .map_or_else(String::new, |file| digest(&file.content))
            })
            .collect();
        let with = RunsWith {
            digest: digest(together.concat().as_bytes()),
            files: files.iter().map(|path| (*path).to_owned()).collect(),
            once: Vec::new(),
            reloads: None,
        };
        self.units.insert(unit, DesiredUnit::Running(Some(with)));
    }

    /// Redirects port 53 of the loopback interface.
    fn redirect(&mut self, facts: &ResolverFacts, filter: Filter<'_>) -> Result<(), String> {
        let mut files = Vec::new();
        if let Filter::Nft(_) = filter {
            self.write(REDIRECT_RULES, texts::NFT_RULES.to_owned());
            files.push(REDIRECT_RULES);
        }
        let commands = match filter {
            Filter::Iptables(path) => texts::iptables(path),
            Filter::Nft(path) => texts::nft(path, REDIRECT_RULES),
        };
        match facts.manager {
            Some(Manager::Systemd) => {
                self.write(REDIRECT_UNIT, texts::unit(&commands));
                files.push(REDIRECT_UNIT);
            }
            Some(Manager::SysV) => {
                let script = DesiredFile {
                    mode: 0o755,
                    ..public(texts::script(&commands))
                };
                self.files.insert(REDIRECT_SCRIPT.to_owned(), Some(script));
                files.push(REDIRECT_SCRIPT);
            }
            None => return Err("nothing here starts services".to_owned()),
        }
        self.run(Unit::Dns, &files);
        Ok(())
    }

    /// Lets this machine be asked first, and the network's servers where it does not answer. These stay in the file:
    /// with Consul down names outside `.consul` go on resolving, and Docker, which takes the servers of its containers
    /// from here and leaves out loopback addresses, would give them public ones.
    fn ask_loopback_first(&mut self, facts: &ResolverFacts) -> Result<(), String> {
        if let Some(link) = &facts.resolv_conf.link {
            return Err(format!(
                "{RESOLV_CONF} is a link to {link}, which somebody else writes"
            ));
        }
        self.write(RESOLV_CONF, texts::loopback_first(&facts.resolv_conf.text));
        if let Some(hook) = &facts.dhclient_hook {
            self.hook(texts::with_block(hook));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
