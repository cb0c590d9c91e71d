//! Owns a server on loopback that answers AWS calls from a closure, for tests of what AWS may say.
//! Touches loopback.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::config::Credentials;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::{AwsCloud, http_client, timeouts};

/// What the server does with one request.
pub(crate) enum Answer {
    Reply(u16, String),
    /// Hangs up without a word.
    HangUp,
}

/// An error as EC2 writes it.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::Reply(
        status,
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        ),
    )
}

/// Starts the server; the closure gets the number of the request, from 0, and its text. Returns a cloud that speaks
/// to it, and the requests it has seen.
pub(crate) async fn cloud(
    answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
) -> (AwsCloud, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read(&mut stream).await;
            let number = {
                let mut requests = requests.lock().unwrap();
                requests.push(request.clone());
                requests.len() - 1
            };
            if let Answer::Reply(status, body) = answer(number, &request) {
                let reply = format!(
                    "HTTP/1.1 {status} Said\r\nx-amzn-requestid: request-7\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        }
    });
    (connect(&endpoint).await, seen)
}

/// A cloud at this endpoint, with credentials that nobody checks.
pub(crate) async fn connect(endpoint: &str) -> AwsCloud {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .http_client(http_client().unwrap())
        .timeout_config(timeouts())
        .load()
        .await;
    AwsCloud::from_config(&config).unwrap()
}

async fn read(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, _)) = text.split_once("\r\n\r\n") else {
            assert!(count > 0, "the client hung up");
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        let start = request
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap()
            + 4;
        if request.len() - start >= length.unwrap_or(0) {
            return text.into_owned();
        }
    }
}
