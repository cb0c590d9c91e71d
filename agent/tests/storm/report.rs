//! Owns what came of a storm, in figures. Touches nothing.

use std::fmt;
use std::time::Duration;

use crate::parameter_store::{Counts, ParameterStore};
use crate::storm::Storm;

/// What came of one node.
#[derive(Debug, Clone)]
pub(crate) struct NodeReport {
    /// When it was configured, or gave up.
    pub(crate) configured: Duration,
    pub(crate) failed: Option<String>,
    pub(crate) requests: u64,
    pub(crate) metadata: u64,
    pub(crate) packets: u64,
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) nodes: Vec<NodeReport>,
    pub(crate) counts: Counts,
    /// The time that the limits leave for what was answered, decrypted and lost.
    pub(crate) allowed: Duration,
    /// The time until the last node was configured.
    pub(crate) took: Duration,
}

/// Fewest, middle and most.
fn spread(values: impl Iterator<Item = u64>) -> (u64, u64, u64) {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

impl Report {
    pub(crate) fn new(storm: &Storm, mut nodes: Vec<NodeReport>, store: &ParameterStore) -> Self {
        nodes.sort_by_key(|node| node.configured);
        let counts = store.counts.clone();
        let of = |count: u64| f64::from(u32::try_from(count).unwrap());
        let requests = store.requests.allows(of(counts.answered + counts.lost));
        let decryptions = store.decryptions.allows(of(counts.decrypted));
        Self {
            name: storm.name,
            took: nodes.last().unwrap().configured,
            allowed: requests.max(decryptions),
            nodes,
            counts,
        }
    }

    pub(crate) fn given_up(&self) -> usize {
        self.nodes.iter().filter(|node| node.failed.is_some()).count()
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.took.as_secs_f64() / self.allowed.as_secs_f64()
    }

    pub(crate) fn most_packets(&self) -> u64 {
        self.nodes.iter().map(|node| node.packets).max().unwrap_or(0)
    }

    /// When each tenth of the nodes was configured.
    fn curve(&self) -> String {
        let tenth = |tenth: usize| {
            let node = &self.nodes[(self.nodes.len() * tenth / 10).max(1) - 1];
            format!("{:.1}", node.configured.as_secs_f64())
        };
        (1..=10).map(tenth).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            answered,
            throttled,
            throttled_by_kms,
            lost,
            decrypted,
            seconds,
        } = &self.counts;
        let requests = spread(self.nodes.iter().map(|node| node.requests));
        let metadata = spread(self.nodes.iter().map(|node| node.metadata));
        writeln!(formatter, "{}: {} nodes", self.name, self.nodes.len())?;
        writeln!(
            formatter,
            "  configured after {:.2} s; the limits allow {:.2} s: ratio {:.3}; given up: {}",
            self.took.as_secs_f64(),
            self.allowed.as_secs_f64(),
            self.ratio(),
            self.given_up()
        )?;
        writeln!(
            formatter,
            "  seconds at each tenth of the nodes: {}",
            self.curve()
        )?;
        writeln!(
            formatter,
            "  GetParameters: {answered} answered, {throttled} throttled ({throttled_by_kms} more by KMS), {lost} lost; \
             {decrypted} decryptions"
        )?;
        writeln!(
            formatter,
            "  a node asks (min/median/max) Parameter Store {}/{}/{} times, the metadata service {}/{}/{} times with at \
             most {} packets",
            requests.0,
            requests.1,
            requests.2,
            metadata.0,
            metadata.1,
            metadata.2,
            self.most_packets()
        )?;
        let at = |second: usize| seconds.get(second).copied().unwrap_or(0);
        let later: u64 = seconds.iter().skip(10).sum();
        let average = later / u64::try_from(seconds.len().saturating_sub(10).max(1)).unwrap();
        write!(
            formatter,
            "  requests in second 1, 2, 5, 10, and on average after that: {} {} {} {} {average}",
            at(0),
            at(1),
            at(4),
            at(9)
        )
    }
}
