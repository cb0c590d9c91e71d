//! Owns connecting to Unix sockets whose path may be longer than the 107 bytes that an address holds.
//! Touches the folder that holds the socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use tokio::net::UnixStream;

/// Connects to the socket `name` in `folder`, through the folder's descriptor.
pub(super) async fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let opened = File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())).await
}
