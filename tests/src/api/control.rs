//! Owns the sandbox's own API under `/_sandbox/`: what it holds, fault rules, ways into instances, notices to them.
//! Touches moto for its listing, and the host through `Host`.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::faults::Rule;
use super::front::Front;
use super::notice::Notice;
use crate::machines::Machines;

/// What a sandbox says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Region in which its base images are.
    pub region: String,
    /// Name of its timeline.
    pub timeline: String,
    /// That the base images are stand-ins.
    pub notice: String,
    /// Process id of the sandbox.
    pub process: u32,
    /// When it started, RFC 3339 in UTC.
    pub started: String,
}

/// A boxed future, for a trait that is used as an object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The host below the sandbox.
pub trait Host: Send + Sync {
    /// What is held on the host beyond what was there at the start: kinds and names.
    fn held(&self) -> Later<'_, Vec<String>>;

    /// Opens a loopback port that leads to a port of an instance.
    fn forward(&self, address: Ipv4Addr, port: u16) -> Later<'_, Result<SocketAddr>>;
}

/// `GET /_sandbox/state`: everything that is held beyond the start, by kind, and how many that are.
pub(super) async fn state<M: Machines>(State(front): State<Arc<Front<M>>>) -> Response<Body> {
    let held = match ask_moto(&front, "held").await {
        Ok(held) => held,
        Err(refusal) => return refusal,
    };
    let known: Vec<&str> = ["volumes", "snapshots"]
        .iter()
        .filter_map(|kind| held[kind].as_array())
        .flatten()
        .filter_map(|it| it["id"].as_str())
        .collect();
    let disks = front.executor.store().ids().unwrap_or_default();
    // Disks of resources that moto lists are counted there.
    let disks: Vec<&String> = disks.iter().filter(|id| !known.contains(&id.as_str())).collect();
    let commands = front.executor.open_commands();
    let host = front.host.held().await;
    let in_moto: usize = held
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, it)| it.as_array())
        .map(Vec::len)
        .sum();
    let leftovers = in_moto + disks.len() + commands.len() + host.len();
    let observed = front.executor.observe();
    json_answer(&json!({
        "about": front.about,
        "leftovers": leftovers,
        "held": held,
        "disks": disks,
        "commands": commands,
        "host": host,
        "machines": observed["instances"],
        "faults": front.faults.list(),
    }))
}

/// What the plug-in lists under one of its own paths; the error is the answer to whoever asked.
async fn ask_moto<M: Machines>(front: &Front<M>, what: &str) -> Result<Value, Response<Body>> {
    let url = format!("{}/moto-api/cos/{what}", front.moto);
    let asked = async {
        let listing = front
            .client()
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        anyhow::Ok(serde_json::from_str::<Value>(&listing)?)
    };
    let failed = |error| {
        text(
            StatusCode::BAD_GATEWAY,
            &format!("moto did not list {what}: {error}\n"),
        )
    };
    asked.await.map_err(failed)
}

/// `GET /_sandbox/lifecycle`: what was said at lifecycle hooks so far, in order: by whom, at which hook, about whom.
pub(super) async fn lifecycle<M: Machines>(State(front): State<Arc<Front<M>>>) -> Response<Body> {
    match ask_moto(&front, "lifecycle").await {
        Ok(said) => json_answer(&said),
        Err(refusal) => refusal,
    }
}

/// Body of `POST /_sandbox/notice`.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    instance: String,
    #[serde(flatten)]
    notice: Notice,
}

/// `POST /_sandbox/notice`: the instance's metadata tells it from now on; answers with path and document.
pub(super) async fn notice<M: Machines>(
    State(front): State<Arc<Front<M>>>,
    Json(told): Json<Told>,
) -> Response<Body> {
    let (path, document) = told.notice.document(Timestamp::now());
    let set = front.executor.set_notice(&told.instance, path, document.clone());
    match set.await {
        Ok(()) => json_answer(&json!({"path": path, "document": document})),
        Err(refusal) => text(StatusCode::NOT_FOUND, &format!("{refusal}\n")),
    }
}

/// `GET /_sandbox/faults`.
pub(super) async fn list_faults<M: Machines>(State(front): State<Arc<Front<M>>>) -> Response<Body> {
    json_answer(&json!(front.faults.list()))
}

/// `POST /_sandbox/faults` with one rule a line.
pub(super) async fn add_fault<M: Machines>(
    State(front): State<Arc<Front<M>>>,
    rules: String,
) -> Response<Body> {
    let rules: Result<Vec<Rule>, String> = rules
        .lines()
        .filter(|it| !it.trim().is_empty())
        .map(str::parse)
        .collect();
    match rules {
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        Ok(rules) => {
            for rule in rules {
                front.faults.add(rule);
            }
            json_answer(&json!(front.faults.list()))
        }
    }
}

/// `DELETE /_sandbox/faults`.
pub(super) async fn clear_faults<M: Machines>(State(front): State<Arc<Front<M>>>) -> Response<Body> {
    front.faults.clear();
    json_answer(&json!([]))
}

/// Body of `POST /_sandbox/forward`.
#[derive(Debug, Deserialize)]
pub(super) struct Forward {
    instance: String,
    port: u16,
}

/// `POST /_sandbox/forward`: answers with the loopback address that leads to the instance's port.
pub(super) async fn forward<M: Machines>(
    State(front): State<Arc<Front<M>>>,
    Json(wanted): Json<Forward>,
) -> Response<Body> {
    let Some(address) = front.executor.address(&wanted.instance) else {
        return text(
            StatusCode::NOT_FOUND,
            &format!("there is no instance {} that runs\n", wanted.instance),
        );
    };
    match front.host.forward(address, wanted.port).await {
        Ok(address) => json_answer(&json!({"address": address.to_string()})),
        Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error:#}\n")),
    }
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer in words.
pub(super) fn text(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(words.to_owned()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
