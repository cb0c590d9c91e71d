//! Owns the kernel's messages about devices that come and go: reading one, and waiting for the next.
//! Touches one netlink socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::node::wait::{Bell, pause};

/// A message of the kernel about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `change`, `remove`, ….
    pub action: String,
    /// `block` for disks and partitions.
    pub subsystem: String,
    /// Kernel's name of the device.
    pub name: String,
}

/// Reads one message: `ACTION@PATH`, then `KEY=value`, each ended by a zero byte (lib/kobject_uevent.c of the
/// kernel). None if it is no such message. Total: any bytes give an answer.
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut parts = message.split(|byte| *byte == 0);
    let head = std::str::from_utf8(parts.next()?).ok()?;
    let (action, path) = head.split_once('@')?;
    if !path.starts_with('/') || action.is_empty() {
        return None;
    }
    let mut subsystem = String::new();
    let mut name = path.rsplit('/').next().unwrap_or_default().to_owned();
    for part in parts.filter_map(|part| std::str::from_utf8(part).ok()) {
        match part.split_once('=') {
            Some(("SUBSYSTEM", value)) => value.clone_into(&mut subsystem),
            Some(("DEVNAME", value)) => value.trim_start_matches("/dev/").clone_into(&mut name),
            _ => {}
        }
    }
    Some(Uevent {
        action: action.to_owned(),
        subsystem,
        name,
    })
}

/// The kernel's messages from now on.
#[derive(Debug)]
pub struct Uevents {
    /// None where they cannot be had, as in some containers: then there is silence.
    socket: Option<OwnedFd>,
    /// What was heard of disks, as `action name`, newest last.
    heard: Vec<String>,
}

/// As many as an error may tell.
const HEARD: usize = 20;
/// Longest message that the kernel sends: its buffer of 2,048 bytes of variables and the path.
const MESSAGE: usize = 8192;

impl Uevents {
    /// Begins to listen. What happens from here on is not missed, so look at the machine after this.
    pub fn listen() -> Self {
        Self {
            socket: open().ok(),
            heard: Vec::new(),
        }
    }

    /// Whether there is anything to hear.
    pub fn hears(&self) -> bool {
        self.socket.is_some()
    }

    /// What was heard of disks so far.
    pub fn heard(&self) -> &[String] {
        &self.heard
    }

    fn next(&mut self, longest: Duration) -> Option<Uevent> {
        let socket = self.socket.as_ref()?;
        // A time of zero would mean for ever.
        let longest = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX).max(1000);
        setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(longest)).ok()?;
        let mut buffer = [0; MESSAGE];
        let (length, sender) = recvfrom::<NetlinkAddr>(socket.as_raw_fd(), &mut buffer).ok()?;
        // Anybody may send to this socket; the kernel's number is 0.
        if sender.is_none_or(|sender| sender.pid() != 0) {
            return None;
        }
        parse(&buffer[..length])
    }
}

impl Bell for Uevents {
    /// Ends when a disk came or changed; other messages are let pass.
    fn wait(&mut self, longest: Duration) {
        if !self.hears() {
            return pause(longest);
        }
        let start = Instant::now();
        loop {
            let left = longest.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            let Some(event) = self.next(left).filter(|event| event.subsystem == "block") else {
                continue;
            };
            let text = format!("{} {}", event.action, event.name);
            if self.heard.last() != Some(&text) {
                self.heard.push(text);
                let surplus = self.heard.len().saturating_sub(HEARD);
                self.heard.drain(..surplus);
            }
            if event.action != "remove" {
                return;
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    // Group 1 is the kernel's own; udev repeats them in group 2. Number 0: the kernel chooses ours.
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(socket)
}

/// For tests and tools: whether a message is waiting, without taking time for it.
#[cfg(test)]
fn drain(uevents: &mut Uevents) {
    let Some(socket) = &uevents.socket else { return };
    let mut buffer = [0; MESSAGE];
    while nix::sys::socket::recv(
        socket.as_raw_fd(),
        &mut buffer,
        nix::sys::socket::MsgFlags::MSG_DONTWAIT,
    )
    .is_ok()
    {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_disk_that_comes_is_read() {
        let message = b"add@/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1\0ACTION=add\0\
            DEVPATH=/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1\0SUBSYSTEM=block\0MAJOR=259\0\
            DEVNAME=nvme1n1\0DEVTYPE=disk\0SEQNUM=1234\0";
        let event = parse(message).unwrap();
        assert_eq!(
            (
                event.action.as_str(),
                event.subsystem.as_str(),
                event.name.as_str()
            ),
            ("add", "block", "nvme1n1")
        );
    }

    #[test]
    fn udevs_messages_are_none_of_ours() {
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"@/x"), None);
    }

    #[test]
    fn silence_ends_in_time() {
        let mut uevents = Uevents::listen();
        drain(&mut uevents);
        let start = Instant::now();
        uevents.wait(Duration::from_millis(30));
        assert!(start.elapsed() < Duration::from_secs(5));
        let mut deaf = Uevents {
            socket: None,
            heard: Vec::new(),
        };
        let start = Instant::now();
        deaf.wait(Duration::from_millis(30));
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            parse(&bytes);
        }

        #[test]
        fn any_words_of_a_message_are_read(action in "[a-z]{1,8}", path in "(/[a-z0-9:.]{1,9}){1,5}", keys in prop::collection::vec("[A-Z]{1,9}=?[ -~]{0,9}", 0..9)) {
            let mut message = format!("{action}@{path}\0").into_bytes();
            for key in &keys {
                message.extend(key.as_bytes());
                message.push(0);
            }
            let event = parse(&message).unwrap();
            prop_assert_eq!(event.action, action);
        }
    }
}
