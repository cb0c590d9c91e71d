//! Owns the one way the node speaks HTTP: no proxy, no redirect, short timeouts, every status an answer.
//! Touches the network.

use std::io;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::world::{Outgoing, Reply, Trouble, World};

/// A status and the body that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Bodies above this are refused: user-data has at most 16 KiB, Consul's and Nomad's own answers some 100 KiB.
const LARGEST_BODY: u64 = 8 * 1024 * 1024;

/// A client that keeps connections alive. `connect` and `answer` limit one try, not the sum of all tries.
pub(crate) fn client(connect: Duration, answer: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        // Neither the metadata service nor the local agents redirect; whatever does is somebody else.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(answer))
        .timeout_recv_body(Some(answer))
        .user_agent(concat!("cos-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// The world of a client that speaks plain HTTP. Its own limits make each exchange shorter than it may be.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) ureq::Agent);

impl World for Plain {
    fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Reply, Trouble> {
        let answer = match (outgoing.method, outgoing.headers.first().copied()) {
            ("GET", header) => get(&self.0, outgoing.url, header),
            ("PUT", Some(header)) => put(&self.0, outgoing.url, header),
            (method, _) => {
                return Err(Trouble::Configuration(format!(
                    "nothing is sent by {method} here"
                )));
            }
        };
        match answer {
            Ok(Answer { status, body }) => Ok(Reply {
                status,
                body: Zeroizing::new(body),
                ..Reply::default()
            }),
            Err(error @ ureq::Error::Timeout(ureq::Timeout::RecvResponse)) => {
                Err(Trouble::Silence(error.to_string()))
            }
            Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(Trouble::Passing("the connection is refused".to_owned()))
            }
            Err(error) => Err(Trouble::Passing(error.to_string())),
        }
    }
}

/// Reads one URL.
pub(crate) fn get(
    agent: &ureq::Agent,
    url: &str,
    header: Option<(&str, &str)>,
) -> Result<Answer, ureq::Error> {
    let mut request = agent.get(url);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    read(request.call()?)
}

/// Sends an empty PUT.
pub(crate) fn put(agent: &ureq::Agent, url: &str, header: (&str, &str)) -> Result<Answer, ureq::Error> {
    read(agent.put(url).header(header.0, header.1).send_empty()?)
}

/// Sends anything else: a method, headers, and a body of JSON if there is one.
pub(crate) fn send(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<Vec<u8>>,
) -> Result<Answer, ureq::Error> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = match body {
        Some(body) => agent.run(request.header("Content-Type", "application/json").body(body)?)?,
        None => agent.run(request.body(())?)?,
    };
    read(response)
}

/// What time a server says it is, in whatever answer: its header `Date`.
pub(crate) fn date(agent: &ureq::Agent, url: &str) -> Option<String> {
    let response = agent.get(url).call().ok()?;
    let date = response.headers().get("date")?;
    date.to_str().ok().map(str::to_owned)
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(LARGEST_BODY)
        .read_to_vec()?;
    Ok(Answer { status, body })
}
