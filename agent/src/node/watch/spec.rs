//! Owns what the watcher is told about its node: what runs there, and what each notice shall do.
//! Touches nothing.

use std::time::Duration;

use crate::node::config::{OnDrift, OnRebalance, Role, WatchSettings};
use crate::node::render::Record;

/// How often each source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Spot interruptions. AWS advises five seconds.
    pub spot: Duration,
    /// Auto Scaling's target state.
    pub target: Duration,
    /// Recommendations to rebalance.
    pub rebalance: Duration,
    /// Planned maintenance, which is announced days before.
    pub scheduled: Duration,
    /// Auto Scaling's own API, only where the metadata service does not know the target state.
    pub group: Duration,
    /// The node itself, whether it is what its configuration says. Each time costs one request to Systems Manager, of
    /// which an account has 40 in a second: 5,000 nodes take six of them.
    pub drift: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            spot: Duration::from_secs(5),
            target: Duration::from_secs(10),
            rebalance: Duration::from_secs(30),
            scheduled: Duration::from_mins(5),
            group: Duration::from_mins(15),
            drift: Duration::from_mins(15),
        }
    }
}

/// What the watcher must know. Durations are from the notice on, unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSpec {
    /// Whether jobs run here.
    pub nomad_client: bool,
    /// How many Nomad servers form the cluster, on one of them.
    pub nomad_server: Option<u32>,
    /// How many Consul servers form the cluster, on one of them.
    pub consul_server: Option<u32>,
    /// What a recommendation to rebalance does.
    pub rebalance: OnRebalance,
    /// Longest time for jobs to move away. A notice that leaves less makes it less.
    pub drain: Duration,
    /// Longest time for jobs to move away while the machine shuts down. The unit's `TimeoutStopSec` must be longer.
    pub shutdown_drain: Duration,
    /// How long before a scheduled event jobs move away.
    pub scheduled_lead: Duration,
    /// Longest time that a server waits until it may leave without costing the cluster its quorum.
    pub server_patience: Duration,
    /// Whether system jobs stay when jobs move away.
    pub ignore_system_jobs: bool,
    /// Whether Consul calls the node critical as soon as jobs move away. Services of jobs that are still running
    /// lose their traffic then, before others took over.
    pub consul_maintenance: bool,
    /// Whether a client whose API refuses to drain it is drained by its own configuration (SIGTERM).
    pub drain_by_signal: bool,
    /// Whether a client takes no jobs before it is ready.
    pub hold_until_ready: bool,
    /// Longest time until the node must be ready.
    pub ready_deadline: Duration,
    /// Launch hook; found by itself if absent and the group has only one.
    pub launch_hook: Option<String>,
    /// Termination hook; found by itself if absent and the group has only one.
    pub termination_hook: Option<String>,
    /// What is done about files and secrets that are no longer what they should be.
    pub drift: OnDrift,
    /// How often sources are asked.
    pub intervals: Intervals,
}

impl WatchSpec {
    /// What a node does, by what `apply` made of it. One that is not watched may be drained by hand all the same.
    pub fn of(record: &Record) -> Self {
        let servers = |role, servers: Option<u32>| record.roles.has(role).then(|| servers.unwrap_or(1));
        Self {
            nomad_client: record.roles.has(Role::NomadClient),
            nomad_server: servers(Role::NomadServer, record.nomad_servers),
            consul_server: servers(Role::ConsulServer, record.consul_servers),
            ..Self::client_with(record.watch.clone().unwrap_or_default())
        }
    }

    /// A client with every default.
    pub fn client() -> Self {
        Self::client_with(WatchSettings::default())
    }

    fn client_with(settings: WatchSettings) -> Self {
        let WatchSettings {
            hold_until_ready,
            ready_deadline,
            launch_hook,
            rebalance,
            drain_deadline,
            scheduled_event_lead,
            termination_hook,
            drift,
        } = settings;
        Self {
            nomad_client: true,
            nomad_server: None,
            consul_server: None,
            rebalance,
            drain: drain_deadline,
            shutdown_drain: Duration::from_secs(90),
            scheduled_lead: scheduled_event_lead,
            server_patience: Duration::from_mins(30),
            ignore_system_jobs: false,
            consul_maintenance: false,
            drain_by_signal: true,
            hold_until_ready,
            ready_deadline,
            launch_hook,
            termination_hook,
            drift,
            intervals: Intervals::default(),
        }
    }

    /// Whether Nomad runs here.
    pub fn has_nomad(&self) -> bool {
        self.nomad_client || self.nomad_server.is_some()
    }
}
