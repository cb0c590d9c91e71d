//! Owns the instance metadata service: HTTP on 169.254.169.254, sessions, and who asks.
//! Touches one listener in the VPC's namespace; answers by the caller's source address.

mod tree;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Metadata;
use super::namespace::Namespace;
use super::network::IMDS;
use crate::api::record::{self, Line, Recorder};

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Longest life of a session token in seconds, six hours (EC2 user guide, "Use IMDSv2").
const MAX_TTL: u64 = 21_600;
/// Versions that are served; a real one lists more, none that clients of today ask for.
const VERSIONS: &[&str] = &[
    "1.0",
    "2009-04-04",
    "2012-01-12",
    "2014-11-05",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "latest",
];

/// What the service knows of one machine.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) metadata: Metadata,
    /// When it was started, in RFC 3339.
    pub(crate) pending_time: String,
}

/// The machines that the service answers, by private address, and their sessions.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    subjects: Mutex<HashMap<Ipv4Addr, Subject>>,
    tokens: Mutex<HashMap<String, (Ipv4Addr, Instant)>>,
}

impl Directory {
    pub(crate) fn put(&self, subject: Subject) {
        self.subjects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(subject.address, subject);
    }

    pub(crate) fn remove(&self, address: Ipv4Addr) {
        self.subjects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&address);
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, (owner, _)| *owner != address);
    }

    /// Changes what is known of the machine `id`; false if there is none.
    pub(crate) fn change(&self, id: &str, act: impl FnOnce(&mut Subject)) -> bool {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        let found = subjects.values_mut().find(|subject| subject.id == id);
        found.map(act).is_some()
    }

    fn get(&self, address: Ipv4Addr) -> Option<Subject> {
        self.subjects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&address)
            .cloned()
    }

    fn new_token(&self, owner: Ipv4Addr, life: Duration) -> String {
        let token = format!(
            "{}{}==",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        tokens.retain(|_, (_, ends)| *ends > now);
        tokens.insert(token.clone(), (owner, now + life));
        token
    }

    fn token_is_valid(&self, token: &str, caller: Ipv4Addr) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(token)
            .is_some_and(|(owner, ends)| *owner == caller && *ends > Instant::now())
    }
}

/// Serves the metadata of all machines in `directory` until `stop` is cancelled.
pub(crate) async fn serve(
    namespace: &Namespace,
    directory: Arc<Directory>,
    recorder: Recorder,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = namespace.listen(SocketAddrV4::new(IMDS, 80)).await?;
    let service = Router::new()
        .fallback(handle)
        .with_state(Arc::new((directory, recorder)));
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(stop.run_until_cancelled_owned(async move { axum::serve(listener, service).await }));
    Ok(())
}

async fn handle(
    State(state): State<Arc<(Arc<Directory>, Recorder)>>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let IpAddr::V4(caller) = caller.ip() else {
        return plain(StatusCode::NOT_FOUND, "");
    };
    let (directory, recorder) = &*state;
    let (started, time) = (Instant::now(), Timestamp::now());
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let response = respond(directory, caller, method, path, headers);
    recorder.write(&Line {
        time: time.to_string(),
        service: "imds",
        operation: &format!("{method} {path}"),
        milliseconds: record::milliseconds(started.elapsed()),
        status: response.status().as_u16(),
        error: None,
        fault: None,
        caller: record::caller(headers),
        ids: directory
            .get(caller)
            .map(|subject| subject.id)
            .into_iter()
            .collect(),
    });
    response
}

fn respond(
    directory: &Directory,
    caller: Ipv4Addr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Body> {
    let Some(subject) = directory.get(caller) else {
        return plain(StatusCode::NOT_FOUND, "");
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if path == "/latest/api/token" {
        // A forwarded request is refused: a proxy must not hand out tokens (EC2 user guide).
        if header("x-forwarded-for").is_some() {
            return plain(StatusCode::FORBIDDEN, "");
        }
        if method != Method::PUT {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let ttl = header(TTL_HEADER).and_then(|value| value.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let mut answer = plain(
            StatusCode::OK,
            directory.new_token(caller, Duration::from_secs(ttl)),
        );
        answer.headers_mut().insert(TTL_HEADER, ttl.into());
        return answer;
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    match header(TOKEN_HEADER) {
        Some(token) if !directory.token_is_valid(token, caller) => {
            return plain(StatusCode::UNAUTHORIZED, "");
        }
        None if subject.metadata.token_required => return plain(StatusCode::UNAUTHORIZED, ""),
        _ => {}
    }
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return plain(StatusCode::OK, VERSIONS.join("\n"));
    }
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    if !VERSIONS.contains(&version) {
        return plain(StatusCode::NOT_FOUND, "");
    }
    if rest.trim_end_matches('/') == "user-data" {
        return match &subject.metadata.user_data {
            Some(bytes) => answer(StatusCode::OK, "application/octet-stream", bytes.clone()),
            None => plain(StatusCode::NOT_FOUND, ""),
        };
    }
    match tree::Tree::of(&subject).get(rest) {
        Some(text) => plain(StatusCode::OK, text),
        None => plain(StatusCode::NOT_FOUND, ""),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain", text.into().into_bytes())
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", axum::http::HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert("server", axum::http::HeaderValue::from_static("EC2ws"));
    response
}

#[cfg(test)]
mod tests;
