//! Owns asking a DNS server for the IPv4 addresses of a name, as RFC 1035 has it.
//! Touches one UDP socket.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A query, answer or not, without EDNS: 512 bytes at most; some servers send more all the same.
const LARGEST: usize = 4096;
const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Response code: 0 is NOERROR.
    pub(crate) code: u8,
    /// Addresses in the answer.
    pub(crate) addresses: Vec<Ipv4Addr>,
}

impl Answer {
    /// Whether the name has an address.
    pub(crate) fn resolves(&self) -> bool {
        self.code == 0 && !self.addresses.is_empty()
    }

    /// The response code by its name.
    pub(crate) fn word(&self) -> String {
        match self.code {
            0 if self.addresses.is_empty() => "no address".to_owned(),
            0 => "NOERROR".to_owned(),
            2 => "SERVFAIL".to_owned(),
            3 => "NXDOMAIN".to_owned(),
            5 => "REFUSED".to_owned(),
            other => format!("code {other}"),
        }
    }
}

/// Asks once and waits for the answer. A server that is not there is `ConnectionRefused` where the machine in between
/// says so, else `TimedOut`.
pub(crate) fn ask(server: SocketAddr, name: &str, patience: Duration) -> io::Result<Answer> {
    let id = random();
    let question = question(id, name).ok_or_else(|| invalid("a name that DNS cannot hold"))?;
    let any = match server.ip() {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    // Connected: only the server's own packets come in, and a refusal is told.
    socket.connect(server)?;
    let start = Instant::now();
    socket.send(&question)?;
    let mut buffer = [0; LARGEST];
    loop {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            // A read timeout has this kind on Linux.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            other => other?,
        };
        // Late answers to somebody's older question are not ours.
        if let Some(answer) = read(&buffer[..length], id, &question[HEADER..]) {
            return Ok(answer);
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn random() -> u16 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    let [first, second, ..] = hasher.finish().to_le_bytes();
    u16::from_le_bytes([first, second])
}

/// One question for A records, recursion desired; none if the name cannot be written.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Flags: recursion desired. Counts: one question, nothing else.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&TYPE_A.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    (bytes.len() <= HEADER + 255 + 4).then_some(bytes)
}

/// Reads an answer to our question; none if it is something else or broken.
fn read(packet: &[u8], id: u16, question: &[u8]) -> Option<Answer> {
    let number = |place: usize| -> Option<u16> {
        Some(u16::from_be_bytes([*packet.get(place)?, *packet.get(place + 1)?]))
    };
    let is_response = packet.get(2)? & 0x80 != 0;
    if number(0)? != id || !is_response {
        return None;
    }
    let code = packet.get(3)? & 0x0f;
    // A server that understood nothing may leave out the question.
    let (questions, answers) = (number(4)?, number(6)?);
    let mut place = HEADER;
    if questions == 1 {
        let end = place + question.len();
        if !packet.get(place..end)?.eq_ignore_ascii_case(question) {
            return None;
        }
        place = end;
    } else if questions != 0 || answers != 0 {
        return None;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        place = skip_name(packet, place)?;
        let (kind, class, length) = (number(place)?, number(place + 2)?, number(place + 8)?);
        let data = packet.get(place + 10..place + 10 + usize::from(length))?;
        if let (TYPE_A, CLASS_IN, [a, b, c, d]) = (kind, class, data) {
            addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        place += 10 + usize::from(length);
    }
    Some(Answer { code, addresses })
}

/// The place behind a name: labels up to an empty one or to a pointer.
fn skip_name(packet: &[u8], mut place: usize) -> Option<usize> {
    loop {
        match *packet.get(place)? {
            0 => return Some(place + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(place + 2),
            length => place += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// An answer with a name by pointer, a CNAME and two addresses.
    fn answer(question: &[u8], code: u8) -> Vec<u8> {
        let mut packet = question.to_vec();
        packet[2] = 0x81;
        packet[3] = 0x80 | code;
        packet[7] = 3;
        packet.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12]);
        for last in [1, 2] {
            packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, last]);
        }
        packet
    }

    #[test]
    fn an_answer_is_read_after_packets_that_are_none() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            let good = answer(&buffer[..length], 0);
            let mut foreign = good.clone();
            foreign[0] ^= 1;
            for packet in [&b"x"[..], &foreign, &good[..20], &good] {
                server.send_to(packet, from).unwrap();
            }
        });
        let told = ask(address, "consul.service.consul", Duration::from_secs(5)).unwrap();
        assert_eq!(
            told.addresses,
            [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]
        );
        assert!(told.resolves());
    }

    #[test]
    fn nobody_and_silence_are_told_apart() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let told = ask(silent.local_addr().unwrap(), "a.b", Duration::from_millis(50)).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::TimedOut);
        let gone = silent.local_addr().unwrap();
        drop(silent);
        let told = ask(gone, "a.b", Duration::from_secs(5)).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn codes_have_their_names() {
        let question = question(7, "a.b").unwrap();
        let told = |code| {
            read(&answer(&question, code), 7, &question[HEADER..])
                .unwrap()
                .word()
        };
        assert_eq!(
            [told(0), told(2), told(3), told(5), told(9)],
            ["NOERROR", "SERVFAIL", "NXDOMAIN", "REFUSED", "code 9"]
        );
        assert!(super::question(1, &"a".repeat(64)).is_none() && super::question(1, "a..b").is_none());
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(mut packet in prop::collection::vec(any::<u8>(), 0..80), cut in 0..120_usize) {
            let question = question(1, "a.consul").unwrap();
            let _ = read(&packet, 1, &question[HEADER..]);
            packet = answer(&question, 0);
            packet.truncate(cut);
            let _ = read(&packet, 1, &question[HEADER..]);
        }
    }
}
