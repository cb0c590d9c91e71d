//! Owns how host names become addresses: by the machine's own `getent`, as every other program there sees them.
//! Touches one child process for each look-up.
//!
//! A look-up cannot be cut short inside the process, where a resolver that does not answer would hold the agent; a child
//! can be ended. And however the agent is linked, the name service modules of the machine stay out of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::host::{Invocation, ProgramError, Programs, RealPrograms};

/// Longest time for one name.
const LONGEST: Duration = Duration::from_secs(5);

/// As many addresses as a connection will try.
const MOST: usize = 16;

/// Resolves names through the machine's name service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let mut addresses = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(literal) = bare.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(literal, port));
            return Ok(addresses);
        }
        let found = look_up(host, (*timeout.after).min(LONGEST)).ok_or(ureq::Error::HostNotFound)?;
        for address in found.into_iter().take(MOST) {
            addresses.push(SocketAddr::new(address, port));
        }
        Ok(addresses)
    }
}

/// Addresses in the order in which they should be tried; none if the name has none.
fn look_up(host: &str, deadline: Duration) -> Option<Vec<IpAddr>> {
    let ask = |program: &str| RealPrograms.check(&Invocation::new(program, ["ahosts", host], deadline));
    // A service may run with an odd PATH.
    let told = match ask("getent") {
        Err(ProgramError::Start { .. }) => ask("/usr/bin/getent"),
        other => other,
    };
    let addresses = parse(&told.ok()?.stdout);
    (!addresses.is_empty()).then_some(addresses)
}

/// The addresses of `getent ahosts`: one line for each address and kind of socket.
fn parse(told: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for line in told.lines() {
        let mut words = line.split_whitespace();
        if let (Some(address), Some("STREAM")) = (words.next(), words.next())
            && let Ok(address) = address.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_machine_is_kept() {
        let told = "2001:db8::1     STREAM api.ecr.eu-central-1.amazonaws.com\n\
                    2001:db8::1     DGRAM  \n\
                    192.0.2.7       STREAM \n\
                    192.0.2.7       RAW    \n\
                    fe80::1%eth0    STREAM \n";
        let expected: Vec<IpAddr> = ["2001:db8::1", "192.0.2.7"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(parse(told), expected);
        assert!(parse("").is_empty());
    }

    #[test]
    fn this_machine_knows_itself_and_no_nonsense() {
        let found = look_up("localhost", LONGEST).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(look_up("no-such-host.invalid", LONGEST), None);
    }
}
