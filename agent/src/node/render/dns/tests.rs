//! The table, row by row, and what must hold for every machine.

use proptest::prelude::*;

use super::*;
use crate::node::sources::resolver::{LocalResolver, ResolvConf};

const RUNS: LocalResolver = LocalResolver {
    installed: true,
    enabled: true,
    active: true,
};
const OFF: LocalResolver = LocalResolver {
    installed: true,
    enabled: false,
    active: false,
};
const VPC: &str = "10.0.0.2";

fn vpc() -> IpAddr {
    VPC.parse().unwrap()
}

/// As Amazon Linux 2 is documented to be.
fn amazon_linux_2() -> ResolverFacts {
    ResolverFacts {
        resolv_conf: ResolvConf {
            link: None,
            text: format!(
                "options timeout:2 attempts:5\nsearch eu-central-1.compute.internal\nnameserver {VPC}\n"
            ),
        },
        upstream: vec![vpc()],
        resolved: LocalResolver::default(),
        systemd: None,
        dnsmasq: LocalResolver::default(),
        dnsmasq_reads_folder: false,
        iptables: Some("/usr/sbin/iptables".to_owned()),
        nft: None,
        dhclient_hook: Some(String::new()),
        manager: Some(Manager::Systemd),
        written: Vec::new(),
    }
}

fn amazon_linux_1() -> ResolverFacts {
    ResolverFacts {
        iptables: Some("/sbin/iptables".to_owned()),
        manager: Some(Manager::SysV),
        ..amazon_linux_2()
    }
}

/// As Amazon Linux 2023 is reported to be.
fn amazon_linux_2023() -> ResolverFacts {
    ResolverFacts {
        resolv_conf: ResolvConf {
            link: Some("/run/systemd/resolve/resolv.conf".to_owned()),
            text: format!("nameserver {VPC}\n"),
        },
        resolved: RUNS,
        systemd: Some(252),
        dhclient_hook: None,
        iptables: None,
        ..amazon_linux_2()
    }
}

fn text(plan: &DnsPlan, path: &str) -> String {
    let file = plan.files[path]
        .as_ref()
        .unwrap_or_else(|| panic!("{path} is removed"));
    String::from_utf8(file.content.clone()).unwrap()
}

/// Resolver and reason, or the refusal.
fn told(mode: DnsMode, facts: &ResolverFacts) -> String {
    match plan(mode, facts) {
        Ok(plan) => format!("{}: {}", plan.resolver, plan.reason),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn each_row_of_the_table_with_its_reason() {
    let no_resolved = "systemd-resolved does not run";
    let no_dnsmasq = "there is no dnsmasq";
    let with_dnsmasq = |dnsmasq| ResolverFacts {
        dnsmasq,
        dnsmasq_reads_folder: true,
        ..amazon_linux_2()
    };
    let automatic = [
        (
            amazon_linux_2023(),
            "systemd-resolved: systemd-resolved runs, and 252 knows ports".to_owned(),
        ),
        (
            ResolverFacts {
                systemd: Some(245),
                iptables: Some("/usr/sbin/iptables".to_owned()),
                ..amazon_linux_2023()
            },
            "systemd-resolved, with a redirect: systemd-resolved runs, and 245 knows no ports".to_owned(),
        ),
        (
            // Without a packet filter an old one is of no use.
            ResolverFacts {
                systemd: Some(245),
                ..amazon_linux_2023()
            },
            format!(
                "nobody: there is neither iptables nor nft, and {no_dnsmasq}, and there is neither iptables nor nft"
            ),
        ),
        (
            // It follows a file of somebody else's.
            ResolverFacts {
                resolv_conf: amazon_linux_2().resolv_conf,
                iptables: Some("/usr/sbin/iptables".to_owned()),
                ..amazon_linux_2023()
            },
            format!(
                "a redirect to Consul: /etc/resolv.conf is not systemd-resolved's own, and {no_dnsmasq}, and iptables \
                 is here"
            ),
        ),
        (
            amazon_linux_2(),
            format!("a redirect to Consul: {no_resolved}, and {no_dnsmasq}, and iptables is here"),
        ),
        (
            amazon_linux_1(),
            format!("a redirect to Consul: {no_resolved}, and {no_dnsmasq}, and iptables is here"),
        ),
        (
            ResolverFacts {
                iptables: None,
                nft: Some("/usr/sbin/nft".to_owned()),
                ..amazon_linux_2()
            },
            format!("a redirect to Consul: {no_resolved}, and {no_dnsmasq}, and nft is here"),
        ),
        (
            with_dnsmasq(RUNS),
            format!("dnsmasq: {no_resolved}, and dnsmasq runs"),
        ),
        (
            with_dnsmasq(OFF),
            format!("a redirect to Consul: {no_resolved}, and dnsmasq is switched off, and iptables is here"),
        ),
        (
            ResolverFacts {
                dnsmasq_reads_folder: false,
                ..with_dnsmasq(RUNS)
            },
            format!(
                "nobody: {no_resolved}, and dnsmasq does not read /etc/dnsmasq.d, and dnsmasq has port 53"
            ),
        ),
        (
            ResolverFacts {
                upstream: Vec::new(),
                ..amazon_linux_2()
            },
            format!(
                "nobody: {no_resolved}, and {no_dnsmasq}, and /etc/resolv.conf names no server that could answer \
                 other names"
            ),
        ),
        (
            ResolverFacts {
                iptables: None,
                ..amazon_linux_2()
            },
            format!("nobody: {no_resolved}, and {no_dnsmasq}, and there is neither iptables nor nft"),
        ),
        (
            // unbound, named or nscd; what they answer is theirs.
            ResolverFacts {
                resolv_conf: ResolvConf {
                    link: None,
                    text: format!("nameserver 127.0.0.1\nnameserver {VPC}\n"),
                },
                ..amazon_linux_2()
            },
            format!(
                "nobody: {no_resolved}, and {no_dnsmasq}, and /etc/resolv.conf names a resolver of somebody else on \
                 this machine"
            ),
        ),
        (
            ResolverFacts {
                manager: None,
                ..amazon_linux_2()
            },
            format!("nobody: {no_resolved}, and {no_dnsmasq}, and nothing here starts services"),
        ),
    ];
    for (facts, expected) in automatic {
        assert_eq!(told(DnsMode::Automatic, &facts), expected);
    }
    // What was asked for is done or refused.
    for (mode, facts, expected) in [
        (
            DnsMode::Off,
            amazon_linux_2(),
            "nobody: the configuration says so",
        ),
        (
            DnsMode::Resolved,
            amazon_linux_2(),
            "dns.consul asks for systemd-resolved, and systemd-resolved does not run",
        ),
        (
            DnsMode::Dnsmasq,
            amazon_linux_2023(),
            "dns.consul asks for dnsmasq, and there is no dnsmasq",
        ),
        (
            DnsMode::Dnsmasq,
            with_dnsmasq(OFF),
            "dnsmasq: dnsmasq is installed",
        ),
        (
            DnsMode::Dnsmasq,
            ResolverFacts {
                resolved: RUNS,
                ..with_dnsmasq(OFF)
            },
            "dns.consul asks for dnsmasq, and systemd-resolved has port 53",
        ),
        (
            DnsMode::Redirect,
            ResolverFacts {
                iptables: Some("/usr/sbin/iptables".to_owned()),
                ..amazon_linux_2023()
            },
            "dns.consul asks for redirect, and /etc/resolv.conf is a link to /run/systemd/resolve/resolv.conf, which \
             somebody else writes",
        ),
        (
            DnsMode::Redirect,
            amazon_linux_2(),
            "a redirect to Consul: iptables is here",
        ),
    ] {
        assert_eq!(told(mode, &facts), expected);
    }
}

#[test]
fn amazon_linux_2023_gets_its_stub_back() {
    let plan = plan(DnsMode::Automatic, &amazon_linux_2023()).unwrap();
    assert_eq!(
        plan.links["/etc/resolv.conf"],
        "/run/systemd/resolve/stub-resolv.conf"
    );
    let drop_in = text(&plan, RESOLVED_DROP_IN);
    for line in ["DNS=127.0.0.1:8600", "Domains=~consul", "DNSStubListener=yes"] {
        assert!(drop_in.lines().any(|other| other == line), "{drop_in}");
    }
    // The file that switches it off must come before ours.
    assert!(RESOLVED_DROP_IN.rsplit('/').next() > Some("resolved-disable-stub-listener.conf"));
    assert!(!plan.recursors);
    assert_eq!(plan.units.keys().collect::<Vec<_>>(), [&Unit::Resolved]);
}

#[test]
fn a_stub_that_is_on_keeps_its_link() {
    let facts = ResolverFacts {
        resolv_conf: ResolvConf {
            link: Some("../run/systemd/resolve/stub-resolv.conf".to_owned()),
            text: "nameserver 127.0.0.53\n".to_owned(),
        },
        ..amazon_linux_2023()
    };
    assert!(plan(DnsMode::Automatic, &facts).unwrap().links.is_empty());
}

#[test]
fn a_redirect_keeps_the_networks_servers_and_gives_them_to_consul() {
    let plan = plan(DnsMode::Automatic, &amazon_linux_2()).unwrap();
    assert!(plan.recursors);
    assert_eq!(plan.upstream, [vpc()]);
    let resolv_conf = text(&plan, "/etc/resolv.conf");
    let servers = crate::node::sources::resolver::nameservers(&resolv_conf);
    assert_eq!(servers, ["127.0.0.1".parse::<IpAddr>().unwrap(), vpc()]);
    assert!(resolv_conf.contains("search eu-central-1.compute.internal\n"));
    let hook = plan.files[DHCLIENT_HOOK].as_ref().unwrap();
    assert_eq!(hook.mode, 0o755);
    let unit = text(&plan, REDIRECT_UNIT);
    assert!(
        unit.contains("ExecStart=-/usr/sbin/iptables -w -t nat -N COS-DNS\n"),
        "{unit}"
    );
}

#[test]
fn recursors_that_a_user_named_are_kept() {
    let spec = |recursors: &str| {
        let text =
            format!("version: 1\nrole: nomad-client\nconsul: {{retry_join: [192.0.2.1]{recursors}}}\n");
        let document = crate::node::sources::Document {
            origin: crate::node::sources::Origin::UserData,
            bytes: text.into_bytes(),
        };
        let config = crate::node::config::read(&[document]).unwrap();
        let facts = crate::node::sources::InstanceFacts::sample();
        crate::node::config::resolve(&config, &facts, None).unwrap()
    };
    let mut spec_of_user = spec(", recursors: [192.0.2.53]");
    assert_eq!(spec_of_user.dns.witness, "ec2.eu-central-1.amazonaws.com");
    spec_of_user.settle_dns(&amazon_linux_2()).unwrap();
    assert_eq!(
        spec_of_user.consul.recursors,
        ["192.0.2.53".parse::<IpAddr>().unwrap()]
    );
    let mut silent = spec("");
    silent.settle_dns(&amazon_linux_2()).unwrap();
    assert_eq!(silent.consul.recursors, [vpc()]);
}

#[test]
fn what_dhclient_writes_with_the_hook_is_left_as_it_is() {
    let before = format!("search a.internal\nnameserver {VPC}\noptions rotate\n");
    let written = format!("search a.internal\nnameserver 127.0.0.1\nnameserver {VPC}\noptions rotate\n");
    assert_eq!(texts::loopback_first(&before), written);
    assert_eq!(texts::loopback_first(&written), written);
    assert_eq!(texts::without_loopback(&written), before);
    let last = format!("nameserver {VPC}\nnameserver 127.0.0.1\n");
    assert_eq!(
        texts::loopback_first(&last),
        format!("nameserver 127.0.0.1\nnameserver {VPC}\n")
    );
    assert_eq!(
        texts::loopback_first("search x"),
        "search x\nnameserver 127.0.0.1\n"
    );
}

#[test]
fn a_hook_of_somebody_else_is_kept_around_ours() {
    let theirs = "#!/bin/sh\necho before\n";
    let both = texts::with_block(theirs);
    assert!(both.starts_with(theirs) && both.contains("127.0.0.1 $new_domain_name_servers"));
    assert_eq!(texts::with_block(&both), both);
    assert_eq!(texts::without_block(&both), theirs);
    assert_eq!(
        texts::without_block(&format!("{both}echo after\n")),
        format!("{theirs}echo after\n")
    );
}

/// What the machine is after the plan was carried out.
fn after(facts: &ResolverFacts, plan: &DnsPlan) -> ResolverFacts {
    let mut after = facts.clone();
    for (path, file) in &plan.files {
        let text = file
            .as_ref()
            .map(|file| String::from_utf8(file.content.clone()).unwrap());
        match (path.as_str(), text) {
            (RESOLV_CONF, Some(text)) => after.resolv_conf = ResolvConf { link: None, text },
            (DHCLIENT_HOOK, Some(text)) => after.dhclient_hook = Some(text),
            (path, text) => {
                let path = FILES.into_iter().find(|file| *file == path).unwrap();
                after.written.retain(|other| *other != path);
                after.written.extend(text.map(|_| path));
            }
        }
    }
    for (path, target) in &plan.links {
        assert_eq!(path, RESOLV_CONF);
        after.resolv_conf.link = Some(target.clone());
        after.resolv_conf.text = "nameserver 127.0.0.53\n".to_owned();
    }
    after.written.sort_unstable();
    for (unit, wanted) in &plan.units {
        if matches!(wanted, DesiredUnit::Running(_)) {
            match unit {
                Unit::Dnsmasq => after.dnsmasq = RUNS,
                Unit::Resolved => after.resolved = RUNS,
                _ => {}
            }
        }
    }
    after
}

fn local() -> impl Strategy<Value = LocalResolver> {
    prop::sample::select(vec![LocalResolver::default(), OFF, RUNS])
}

fn machines() -> impl Strategy<Value = ResolverFacts> {
    let link = prop::sample::select(vec![
        None,
        Some("/run/systemd/resolve/resolv.conf"),
        Some("../run/systemd/resolve/stub-resolv.conf"),
        Some("/run/NetworkManager/resolv.conf"),
    ]);
    let systemd = prop::sample::select(vec![None, Some(219), Some(237), Some(245), Some(246), Some(252)]);
    let hook = prop::sample::select(vec![None, Some(""), Some("#!/bin/sh\necho mine\n")]);
    let manager = prop::sample::select(vec![None, Some(Manager::Systemd), Some(Manager::SysV)]);
    let flags = any::<[bool; 5]>();
    (link, systemd, hook, manager, flags, local(), local()).prop_map(
        |(link, systemd, hook, manager, [iptables, nft, folder, servers, local], resolved, dnsmasq)| {
            ResolverFacts {
                resolv_conf: ResolvConf {
                    link: link.map(str::to_owned),
                    text: match (servers, local) {
                        (true, true) => format!("nameserver 127.0.0.1\nnameserver {VPC}\n"),
                        (true, false) => format!("search x\nnameserver {VPC}\n"),
                        (false, true) => "nameserver 127.0.0.1\n".to_owned(),
                        (false, false) => String::new(),
                    },
                },
                upstream: if servers { vec![vpc()] } else { Vec::new() },
                resolved,
                systemd,
                dnsmasq,
                dnsmasq_reads_folder: folder,
                iptables: iptables.then(|| "/usr/sbin/iptables".to_owned()),
                nft: nft.then(|| "/usr/sbin/nft".to_owned()),
                dhclient_hook: hook.map(str::to_owned),
                manager,
                written: Vec::new(),
            }
        },
    )
}

fn modes() -> impl Strategy<Value = DnsMode> {
    prop::sample::select(vec![
        DnsMode::Automatic,
        DnsMode::Resolved,
        DnsMode::Dnsmasq,
        DnsMode::Redirect,
        DnsMode::Off,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_plan_that_was_carried_out_plans_itself_again(facts in machines(), mode in modes()) {
        let Ok(first) = plan(mode, &facts) else { return Ok(()) };
        let machine = after(&facts, &first);
        let again = plan(mode, &machine).unwrap();
        prop_assert_eq!(again.resolver, first.resolver);
        // Links that are there need no second mention, and files that are gone no second removal.
        prop_assert_eq!(&after(&machine, &again), &machine);
        let running = |plan: &DnsPlan| -> Vec<(Unit, DesiredUnit)> {
            let wanted = plan.units.iter().filter(|(_, unit)| **unit != DesiredUnit::Stopped);
            wanted.map(|(unit, wanted)| (*unit, wanted.clone())).collect()
        };
        prop_assert_eq!(running(&again), running(&first));
    }

    #[test]
    fn from_any_mode_to_off_nothing_of_ours_is_left(facts in machines(), mode in modes()) {
        let Ok(first) = plan(mode, &facts) else { return Ok(()) };
        let machine = after(&facts, &first);
        let off = plan(DnsMode::Off, &machine).unwrap();
        let end = after(&machine, &off);
        prop_assert!(end.written.is_empty());
        prop_assert!(!end.dhclient_hook.unwrap_or_default().contains(texts::BLOCK));
        // A link stays: with its stub off systemd-resolved names the network's servers in that file too.
        // And a dnsmasq that was asked first may be so still: it answers.
        if first.links.is_empty() && first.resolver != Resolver::Dnsmasq {
            prop_assert_eq!(end.resolv_conf, facts.resolv_conf);
        }
        prop_assert!(!off.recursors);
        if machine.written.contains(&REDIRECT_UNIT) {
            prop_assert_eq!(&off.units[&Unit::Dns], &DesiredUnit::Stopped);
        }
    }

    #[test]
    fn the_networks_servers_are_never_lost(facts in machines(), mode in modes()) {
        let Ok(plan) = plan(mode, &facts) else { return Ok(()) };
        if let Some(Some(file)) = plan.files.get(RESOLV_CONF) {
            let text = String::from_utf8(file.content.clone()).unwrap();
            for server in facts.resolv_conf.nameservers() {
                prop_assert!(crate::node::sources::resolver::nameservers(&text).contains(&server));
            }
        }
        // Where Consul is asked for every name it has somebody to ask.
        prop_assert!(!plan.recursors || !plan.upstream.is_empty());
    }
}
