//! Owns the users of the sample service: they ask the instances that Consul calls healthy, without a pause, and count
//! what was not answered. Touches the VPC's network.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cos_tests::machines::Fleet;
use serde_json::Value;
use tokio::task::JoinSet;

use super::http;

/// How often the list is read. A real client waits for its change, and has it sooner.
const FOLLOW: Duration = Duration::from_millis(200);
/// Pause of one user between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// How many there are.
const USERS: usize = 3;
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Shared {
    /// Addresses of Consul's agents, of which any may be asked.
    agents: Mutex<Vec<Ipv4Addr>>,
    healthy: Mutex<Vec<SocketAddrV4>>,
    sent: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

/// The users, until this is dropped.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    _users: JoinSet<()>,
}

/// What was sent and lost until some moment.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    sent: usize,
    lost: usize,
}

impl Traffic {
    pub(crate) fn begin(fleet: &Arc<Fleet>, agents: Vec<Ipv4Addr>) -> Self {
        let shared = Arc::new(Shared::default());
        *lock(&shared.agents) = agents;
        let mut users = JoinSet::new();
        users.spawn(follow(Arc::clone(fleet), Arc::clone(&shared)));
        for user in 0..USERS {
            users.spawn(ask(Arc::clone(fleet), Arc::clone(&shared), user));
        }
        Self {
            shared,
            _users: users,
        }
    }

    /// Which agents are asked from now on.
    pub(crate) fn know(&self, agents: Vec<Ipv4Addr>) {
        *lock(&self.shared.agents) = agents;
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            sent: self.shared.sent.load(Ordering::Relaxed),
            lost: lock(&self.shared.lost).len(),
        }
    }

    /// How many requests were sent since then, and why each that was lost was.
    pub(crate) fn since(&self, mark: Mark) -> (usize, Vec<String>) {
        let lost = lock(&self.shared.lost)
            .get(mark.lost..)
            .unwrap_or_default()
            .to_vec();
        (self.shared.sent.load(Ordering::Relaxed) - mark.sent, lost)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the list of healthy instances; while nobody tells it, the last one stays.
async fn follow(fleet: Arc<Fleet>, shared: Arc<Shared>) {
    loop {
        let agents = lock(&shared.agents).clone();
        for agent in agents {
            let address = SocketAddrV4::new(agent, 8500);
            let path = "/v1/health/service/web?passing";
            let Some(found) = http::document(&fleet, address, path).await else {
                continue;
            };
            *lock(&shared.healthy) = found
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(instance)
                .collect();
            break;
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

fn instance(found: &Value) -> Option<SocketAddrV4> {
    let service = &found["Service"];
    let port = u16::try_from(service["Port"].as_u64()?).ok()?;
    Some(SocketAddrV4::new(
        service["Address"].as_str()?.parse().ok()?,
        port,
    ))
}

/// One user: asks the instances in turn, and never asks twice for the same.
async fn ask(fleet: Arc<Fleet>, shared: Arc<Shared>, user: usize) {
    while lock(&shared.healthy).is_empty() {
        tokio::time::sleep(FOLLOW).await;
    }
    for turn in user.. {
        let healthy = lock(&shared.healthy).clone();
        shared.sent.fetch_add(1, Ordering::Relaxed);
        let failed = match healthy.get(turn % healthy.len().max(1)) {
            None => Some("nobody is healthy".to_owned()),
            Some(address) => http::get(&fleet, *address, "/", PATIENCE)
                .await
                .err()
                .map(|error| format!("{address}: {error:#}")),
        };
        if let Some(failed) = failed {
            lock(&shared.lost).push(format!("{}: {failed}", jiff::Timestamp::now()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
