//! Owns the way of a call: recognised, perhaps hit by a fault, done by moto or by the block store, recorded.
//! Touches loopback HTTP, and moto behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, header};
use axum::routing::{get, post};
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::call::{Call, ids};
use super::control;
use super::cut::{Cut, CutListener};
use super::executor::Executor;
use super::faults::{Effect, Faults};
use super::record::{Line, Recorder, caller, error_code, milliseconds};
use super::{blocks, mirror};
use crate::machines::Machines;

/// Largest body that is held in memory; larger ones are passed through as they come.
const HELD: u64 = 8 << 20;
/// Ids that a record line names.
const IDS: usize = 12;

/// What stands before moto.
pub struct Front<M> {
    /// What does the acts.
    pub executor: Arc<Executor<M>>,
    /// `http://127.0.0.1:PORT` of moto.
    pub moto: String,
    /// Rules of faults.
    pub faults: Faults,
    /// Where calls are recorded.
    pub recorder: Recorder,
    /// Folder of the download mirror.
    pub mirror: Option<PathBuf>,
    /// What the control API says about this sandbox.
    pub about: control::About,
    /// What this sandbox holds on the host, and ways into its instances.
    pub host: Box<dyn control::Host>,
    client: reqwest::Client,
}

impl<M: Machines> Front<M> {
    /// A front before the moto at `moto`.
    pub fn new(
        executor: Arc<Executor<M>>,
        moto: String,
        about: control::About,
        host: Box<dyn control::Host>,
    ) -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Ok(Self {
            executor,
            moto,
            faults: Faults::default(),
            recorder: Recorder::default(),
            mirror: None,
            about,
            host,
            client: client.context("HTTP client cannot be made")?,
        })
    }

    /// The client that reaches moto.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

/// Serves until the task is dropped.
pub async fn serve<M: Machines>(listener: TcpListener, front: Arc<Front<M>>) -> Result<()> {
    let app = Router::new()
        .route("/_sandbox/state", get(control::state::<M>))
        .route("/_sandbox/health", get(|| async { "ok\n" }))
        .route(
            "/_sandbox/faults",
            get(control::list_faults::<M>)
                .post(control::add_fault::<M>)
                .delete(control::clear_faults::<M>),
        )
        .route("/_sandbox/forward", post(control::forward::<M>))
        .route("/_sandbox/notice", post(control::notice::<M>))
        .route("/_sandbox/lifecycle", get(control::lifecycle::<M>))
        .route("/_sandbox/mirror/{*path}", get(mirrored::<M>))
        .fallback(answer::<M>)
        .with_state(front)
        .into_make_service_with_connect_info::<Cut>();
    axum::serve(CutListener(listener), app)
        .await
        .context("front stopped")
}

async fn mirrored<M: Machines>(State(front): State<Arc<Front<M>>>, uri: Uri) -> Response<Body> {
    let path = uri.path().trim_start_matches("/_sandbox/mirror");
    match &front.mirror {
        Some(root) => mirror::answer(root, path).await,
        None => control::text(
            StatusCode::NOT_FOUND,
            "this sandbox was started without --mirror\n",
        ),
    }
}

/// The way of one call.
async fn answer<M: Machines>(
    State(front): State<Arc<Front<M>>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response<Body> {
    let (started, time) = (Instant::now(), Timestamp::now());
    let (parts, body) = request.into_parts();
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    let (held, passed) = if length.is_some_and(|length| length > HELD) {
        (Bytes::new(), Some(body))
    } else {
        match to_bytes(body, usize::try_from(HELD).unwrap_or(usize::MAX)).await {
            Ok(bytes) => (bytes, None),
            Err(error) => return control::text(StatusCode::PAYLOAD_TOO_LARGE, &format!("{error}\n")),
        }
    };
    let call = Call::of(&parts.method, &parts.uri, &parts.headers, &held);
    let effect = front.faults.decide(&call);
    let response = if let Some(Effect::Error(kind)) = &effect {
        let (status, code) = kind.shape(&call);
        call.error(status, &code, "injected by a fault rule of the sandbox")
    } else if let Some(done) = blocks::answer(&front.executor, &call, &parts.uri, &parts.headers, &held).await
    {
        done
    } else {
        let body = match passed {
            None => reqwest::Body::from(held.clone()),
            Some(body) => reqwest::Body::wrap_stream(body.into_data_stream()),
        };
        front
            .pass(&call, &parts.method, &parts.uri, &parts.headers, body)
            .await
    };
    let (mut response, text) = peek(response).await;
    if let Some(Effect::Hang(time)) = &effect {
        tokio::time::sleep(*time).await;
    }
    let lost = effect == Some(Effect::Drop);
    if lost {
        cut.cut();
        // The connection must not wait for the end of a body that nobody will get.
        *response.body_mut() = Body::empty();
    }
    let status = response.status();
    let code_header = response
        .headers()
        .get("x-amzn-errortype")
        .and_then(|it| it.to_str().ok());
    // The bodies of blocks are no text, and their ids are in the path.
    let asked = if call.service == "ebs" {
        ""
    } else {
        std::str::from_utf8(&held).unwrap_or_default()
    };
    front.recorder.write(&Line {
        time: time.to_string(),
        service: &call.service,
        operation: &call.operation,
        milliseconds: milliseconds(started.elapsed()),
        status: if lost { 0 } else { status.as_u16() },
        error: if status.is_success() {
            None
        } else {
            error_code(code_header, &text)
        },
        fault: effect.map(|it| format!("{it:?}")),
        caller: caller(&parts.headers),
        ids: ids(&format!("{} {asked} {text}", parts.uri.path()), IDS),
    });
    response
}

impl<M: Machines> Front<M> {
    /// Hands a request to moto as it came: same path, headers (with `Host` and the signature) and body.
    async fn pass(
        &self,
        call: &Call,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: reqwest::Body,
    ) -> Response<Body> {
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        let mut sent = headers.clone();
        for name in HOP_BY_HOP {
            sent.remove(name);
        }
        let url = format!("{}{path}", self.moto);
        let reply = self
            .client
            .request(method.clone(), url)
            .headers(sent)
            .body(body)
            .send()
            .await;
        match reply {
            Err(error) => {
                let message = format!("moto did not answer: {error}; see 'cos-sandbox logs'");
                call.error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
            }
            Ok(reply) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = reply.status();
                *response.headers_mut() = reply.headers().clone();
                for name in HOP_BY_HOP {
                    response.headers_mut().remove(name);
                }
                *response.body_mut() = Body::from_stream(reply.bytes_stream());
                response
            }
        }
    }
}

/// Headers that speak of one connection only.
const HOP_BY_HOP: [HeaderName; 4] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::TE,
];

/// Reads the text of an answer that is small and text, and leaves the answer as it was.
async fn peek(response: Response<Body>) -> (Response<Body>, String) {
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default();
    if !(kind.contains("xml") || kind.contains("json") || kind.contains("text")) {
        return (response, String::new());
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            (Response::from_parts(parts, Body::from(bytes)), text)
        }
        Err(error) => {
            let mut failed =
                Response::from_parts(parts, Body::from(format!("moto's answer broke off: {error}\n")));
            *failed.status_mut() = StatusCode::BAD_GATEWAY;
            (failed, String::new())
        }
    }
}
