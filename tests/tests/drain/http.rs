//! Owns asking over HTTP inside the VPC, as a machine beside the nodes would.
//! Touches the VPC's network.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cos_tests::machines::Fleet;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The body of an answer with status 200; anything else is an error.
pub(crate) async fn get(
    fleet: &Fleet,
    address: SocketAddrV4,
    path: &str,
    limit: Duration,
) -> Result<Vec<u8>> {
    let asked = async {
        let mut stream = fleet.connect(address).await.context("no connection")?;
        // HTTP/1.0: the end of the connection is the end of the body.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("not sent")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.context("broken off")?;
        let head = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .context("no whole answer")?;
        let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned();
        ensure!(status == "200", "status {status}");
        Ok(answer.split_off(head + 4))
    };
    tokio::time::timeout(limit, asked)
        .await
        .context("no answer in time")?
}

/// A document; none if there is none at the moment.
pub(crate) async fn document(fleet: &Fleet, address: SocketAddrV4, path: &str) -> Option<Value> {
    let body = get(fleet, address, path, Duration::from_secs(5)).await.ok()?;
    serde_json::from_slice(&body).ok()
}
