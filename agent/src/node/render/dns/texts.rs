//! Owns the texts of files, units and scripts by which names below `.consul` resolve.
//! Touches nothing.

use std::fmt::Write;

/// Consul's DNS port.
const CONSUL: &str = "8600";

/// First line of the part of another's file that is ours.
pub(super) const BLOCK: &str = "# Begin of cos-agent's part; changes in it are lost.";
const BLOCK_END: &str = "# End of cos-agent's part.";

/// A part of dnsmasq's configuration.
pub(super) const DNSMASQ: &str = "\
# Written by cos-agent; changes are lost.
# Names below .consul go to the Consul agent beside, all others to where they went before.
server=/consul/127.0.0.1#8600
";

/// Rules for nft. The first two lines make sure that the table is there and empty, whatever was before.
pub(super) const NFT_RULES: &str = "\
# Written by cos-agent; changes are lost.
table ip cos_dns
delete table ip cos_dns
table ip cos_dns {
    chain output {
        type nat hook output priority -100;
        ip daddr 127.0.0.1 udp dport 53 redirect to :8600
        ip daddr 127.0.0.1 tcp dport 53 redirect to :8600
    }
}
";

/// A drop-in of systemd-resolved.
pub(super) fn resolved(server: &str) -> String {
    format!(
        "# Written by cos-agent; changes are lost.\n\
         [Resolve]\n\
         # Names below .consul go to the Consul agent beside, all others to where they went before: a server whose only\n\
         # domain is for routing (~) is asked for nothing else.\n\
         DNS={server}\n\
         Domains=~consul\n\
         # Programs that bring their own resolver reach this one at 127.0.0.53. Amazon Linux 2023 switches that off in\n\
         # resolved-disable-stub-listener.conf; of two files the last by name wins.\n\
         DNSStubListener=yes\n"
    )
}

/// What brings a redirect about and ends it. Lines that may fail begin with `-`.
pub(super) struct Commands {
    start: Vec<String>,
    stop: Vec<String>,
    check: String,
}

/// A chain of our own, so that it can be made anew without touching what others have.
pub(super) fn iptables(path: &str) -> Commands {
    let command = |words: &str| format!("{path} -w -t nat {words}");
    let jump = "OUTPUT -d 127.0.0.1/32 -j COS-DNS";
    let redirect = |protocol: &str| {
        command(&format!(
            "-A COS-DNS -p {protocol} --dport 53 -j REDIRECT --to-ports {CONSUL}"
        ))
    };
    let may_fail = |words: &str| format!("-{}", command(words));
    Commands {
        start: vec![
            may_fail("-N COS-DNS"),
            command("-F COS-DNS"),
            redirect("udp"),
            redirect("tcp"),
            may_fail(&format!("-D {jump}")),
            command(&format!("-I {jump}")),
        ],
        stop: vec![
            may_fail(&format!("-D {jump}")),
            may_fail("-F COS-DNS"),
            may_fail("-X COS-DNS"),
        ],
        check: command(&format!("-C {jump}")),
    }
}

pub(super) fn nft(path: &str, rules: &str) -> Commands {
    Commands {
        start: vec![format!("{path} -f {rules}")],
        stop: vec![format!("-{path} delete table ip cos_dns")],
        check: format!("{path} list table ip cos_dns"),
    }
}

/// A unit of systemd; every directive is known to 219.
pub(super) fn unit(commands: &Commands) -> String {
    let mut text = "\
# Written by cos-agent; changes are lost.
[Unit]
Description=Consul answers DNS of this machine: port 53 of 127.0.0.1 leads to its port 8600
# firewalld throws away all rules when it starts, these included.
After=firewalld.service

[Service]
Type=oneshot
RemainAfterExit=yes
"
    .to_owned();
    for (directive, lines) in [("ExecStart", &commands.start), ("ExecStop", &commands.stop)] {
        for line in lines {
            let _ = writeln!(text, "{directive}={line}");
        }
    }
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    text
}

/// A script of System V.
pub(super) fn script(commands: &Commands) -> String {
    let body = |lines: &[String]| {
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = match line.strip_prefix('-') {
                Some(line) => writeln!(text, "    {line} 2>/dev/null"),
                None => writeln!(text, "    {line} || return 1"),
            };
            text
        })
    };
    let (start, stop, check) = (body(&commands.start), body(&commands.stop), &commands.check);
    format!(
        "\
#!/bin/sh
# Written by cos-agent; changes are lost.
# NOT TRIED on a real Amazon Linux 1; start, status and stop were run on Debian.
#
# chkconfig: 2345 15 85
# description: Consul answers DNS of this machine: port 53 of 127.0.0.1 leads to its port 8600
### BEGIN INIT INFO
# Provides:          cos-dns
# Required-Start:    $local_fs
# Required-Stop:     $local_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: DNS of this machine by Consul
### END INIT INFO

start() {{
{start}}}

stop() {{
{stop}    return 0
}}

case \"$1\" in
    start | restart | reload) start ;;
    stop) stop ;;
    status) {check} >/dev/null 2>&1 || exit 3 ;;
    *)
        echo \"usage: $0 start|stop|restart|reload|status\" >&2
        exit 2
        ;;
esac
"
    )
}

/// Whether a line of a resolver file names a server; and whether it is this machine.
fn server(line: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next() == Some("127.0.0.1"))
}

/// A resolver file with this machine before all other servers; the same if it is so already, as `dhclient` writes it.
/// The C library takes three servers.
pub(super) fn loopback_first(text: &str) -> String {
    if text.lines().find_map(server) == Some(true) {
        return text.to_owned();
    }
    let text = without_loopback(text);
    let first = text.lines().position(|line| server(line).is_some());
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(first.unwrap_or(lines.len()), "nameserver 127.0.0.1");
    lines.join("\n") + "\n"
}

/// The same without this machine.
pub(super) fn without_loopback(text: &str) -> String {
    let others = text.lines().filter(|line| server(line) != Some(true));
    others.fold(String::new(), |text, line| text + line + "\n")
}

/// A hook of `dhclient` with our part at its end.
pub(super) fn with_block(hook: &str) -> String {
    let mut text = without_block(hook);
    if text.is_empty() {
        text.push_str("#!/bin/sh\n");
    }
    let _ = write!(
        text,
        "{BLOCK}\n\
         # This machine is asked first; what DHCP brought stays behind it.\n\
         if [ -n \"$new_domain_name_servers\" ]; then\n\
         \x20   new_domain_name_servers=\"127.0.0.1 $new_domain_name_servers\"\n\
         fi\n\
         {BLOCK_END}\n"
    );
    text
}

/// A hook of `dhclient` without our part.
pub(super) fn without_block(hook: &str) -> String {
    let mut ours = false;
    let mut kept = String::new();
    for line in hook.lines() {
        ours |= line == BLOCK;
        if !ours {
            kept.push_str(line);
            kept.push('\n');
        }
        ours &= line != BLOCK_END;
    }
    kept
}
