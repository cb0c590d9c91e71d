//! Owns telling the service manager how this service fares (sd_notify): ready, alive, stopping.
//! Touches one datagram socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The way to the service manager; nothing is told where there is none.
#[derive(Debug, Default)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// By the value of `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub fn to(socket: Option<&str>) -> Self {
        let address = socket.filter(|name| !name.is_empty()).and_then(|name| {
            match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name.as_bytes()),
                None => SocketAddr::from_pathname(Path::new(name)),
            }
            .ok()
        });
        let socket = UnixDatagram::unbound().and_then(|socket| {
            // A service manager that does not listen must not hold up a drain.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Self(
            address
                .zip(socket.ok())
                .map(|(address, socket)| (socket, address)),
        )
    }

    /// The service does its work.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service is not stuck. To be called more often than the unit's `WatchdogSec`.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What the service is at, in one line of `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0 {
            // A service manager that does not listen is its own fault; the node's end is more important.
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn both_kinds_of_address_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.to_str());
        notify.ready();
        notify.status("a\nb");
        assert_eq!([heard(&listener), heard(&listener)], ["READY=1", "STATUS=a b"]);
        let name = format!("cos-agent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        Notify::to(Some(&format!("@{name}"))).alive();
        assert_eq!(heard(&listener), "WATCHDOG=1");
    }

    #[test]
    fn nobody_who_does_not_listen_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.to_str());
        for _ in 0..10_000 {
            notify.alive();
        }
    }

    #[test]
    fn without_a_socket_nothing_happens() {
        for socket in [None, Some(""), Some("/nonexistent/socket")] {
            Notify::to(socket).stopping();
        }
    }
}
