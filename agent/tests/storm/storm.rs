//! Owns one storm: many nodes, one Parameter Store, and what came of it.
//! Touches threads, and one empty folder.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cos_agent::error::chain;
use cos_agent::host::Files;
use cos_agent::node::NodeError;
use cos_agent::world::World;

use crate::limits::Bucket;
use crate::node;
use crate::parameter_store::ParameterStore;
use crate::report::{NodeReport, Report};
use crate::schedule::Schedule;
use crate::world::{Common, NodeWorld};

/// Enough for an unoptimised reader of YAML, and little for five thousand.
const STACK: usize = 512 * 1024;

/// What a storm is made of.
#[derive(Debug, Clone)]
pub(crate) struct Storm {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// GetParameters that are answered a second.
    pub(crate) requests: f64,
    /// Decryptions a second.
    pub(crate) decryptions: f64,
    /// How long a limit gathers what is not used.
    pub(crate) depth: Duration,
    pub(crate) user_data: &'static str,
    /// Type of all secrets.
    pub(crate) kind: &'static str,
    /// Of so many answers one gets lost; none if zero.
    pub(crate) one_lost_of: u64,
    pub(crate) seed: u64,
}

impl Storm {
    /// Lives through it.
    pub(crate) fn run(&self) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let store = ParameterStore::new(
            Bucket::new(self.requests, self.depth),
            Bucket::new(self.decryptions, self.depth),
            parameters(self.kind),
            self.one_lost_of,
        );
        let common = Arc::new(Common {
            schedule: Schedule::default(),
            store: Mutex::new(store),
            user_data: self.user_data.to_owned(),
        });
        // In the same moment: nothing is harder.
        let begin = Duration::ZERO;
        let nodes = thread::scope(|scope| {
            let start = |node| {
                let (common, files) = (Arc::clone(&common), &files);
                let life = move || {
                    common.schedule.begin(node);
                    let world = Arc::new(NodeWorld::new(Arc::clone(&common), node, begin, self.seed));
                    let booted = node::boot(&world, files);
                    let report = NodeReport {
                        configured: world.ticks(),
                        failed: booted.err().map(|error| match &error {
                            NodeError::Configuration(faults) => format!("{error}: {faults:?}"),
                            error => chain(error),
                        }),
                        requests: world.requests.load(Ordering::Relaxed),
                        metadata: world.metadata.load(Ordering::Relaxed),
                        packets: world.packets.load(Ordering::Relaxed),
                    };
                    common.schedule.end();
                    report
                };
                let builder = thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, life).unwrap()
            };
            let threads: Vec<_> = (0..self.nodes).map(start).collect();
            let handles = threads.iter().map(|thread| thread.thread().clone()).collect();
            common.schedule.start(handles, &vec![begin; self.nodes]);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let store = common.store.lock().unwrap();
        Report::new(self, nodes, &store)
    }
}

/// All parameters that any of the nodes needs.
fn parameters(kind: &'static str) -> BTreeMap<String, (&'static str, String)> {
    let token = |number: u8| format!("5ec2e7{number:02x}-0000-4000-8000-000000000000");
    let block = |label: &str, lines: usize| {
        let body = "MIIBszCCAVmgAwIBAgIUFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake\n".repeat(lines);
        format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
    };
    let secrets = [
        (
            "/cos/consul/gossip",
            "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
        ),
        ("/cos/ca", block("CERTIFICATE", 10)),
        ("/cos/consul/agent", token(1)),
        ("/cos/consul/default", token(2)),
        ("/cos/consul/certificate", block("CERTIFICATE", 12)),
        ("/cos/consul/key", block("EC PRIVATE KEY", 4)),
        ("/cos/nomad/certificate", block("CERTIFICATE", 12)),
        ("/cos/nomad/key", block("EC PRIVATE KEY", 4)),
        ("/cos/nomad/consul", token(3)),
        (
            "/cos/nomad/introduction",
            format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", token(4)),
        ),
    ];
    let included = "datacenter: private-services\nconsul: {retry_join: [10.0.0.10, 10.0.1.10, 10.0.2.10]}\n";
    secrets
        .into_iter()
        .map(|(name, value)| (name.to_owned(), (kind, value)))
        .chain([("/cos/base".to_owned(), ("String", included.to_owned()))])
        .collect()
}
