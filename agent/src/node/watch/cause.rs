//! Owns what each notice asks of the node, and what all of them together ask: the node's wish.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::notice::{
    EventCode, Posture, Rebalance, Request, ScheduledEvent, Shutdown, SpotAction, SpotNotice, Target,
};
use super::spec::WatchSpec;
use super::time::Timestamp;
use crate::node::config::OnRebalance;

/// What is kept of a notice's time for what comes after the jobs: leaving Nomad and Consul, last log lines.
pub(crate) const MARGIN: Duration = Duration::from_secs(15);

/// What jobs get at least when an event may come at any moment: its time is the earliest, not the exact one.
const AT_LEAST: Duration = Duration::from_mins(1);

/// How long a Spot notice without a readable time is taken to leave, as AWS documents it.
const SPOT_NOTICE: Duration = Duration::from_mins(2);

/// What is known of the node's end: the last word of each source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notices {
    /// Spot interruption.
    pub spot: Option<SpotNotice>,
    /// Recommendation to rebalance.
    pub rebalance: Option<Rebalance>,
    /// Planned maintenance.
    pub scheduled: Vec<ScheduledEvent>,
    /// Auto Scaling's target; none until it was told once.
    pub target: Option<Target>,
    /// What an operator asked for.
    pub request: Option<Request>,
    /// The machine goes down.
    pub shutdown: Option<Shutdown>,
    /// The node has yet to prove that it is ready.
    pub arriving: bool,
}

/// One reason to be elsewhere than in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Spot interruption.
    Spot(SpotNotice),
    /// Recommendation to rebalance.
    Rebalance(Rebalance),
    /// Planned maintenance.
    Scheduled(ScheduledEvent),
    /// Auto Scaling wants the instance elsewhere.
    Target(Target),
    /// An operator asked.
    Request(Request),
    /// The machine goes down.
    Shutdown(Shutdown),
    /// The node is not ready yet.
    Arriving,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spot(SpotNotice { action, at }) => {
                let action = match action {
                    SpotAction::Stop => "stop",
                    SpotAction::Hibernate => "hibernate",
                    SpotAction::Terminate => "terminate",
                };
                write!(formatter, "spot interruption: {action}")?;
                at.map_or(Ok(()), |at| write!(formatter, " at {at}"))
            }
            Self::Rebalance(Rebalance { at }) => {
                formatter.write_str("rebalance recommendation")?;
                at.map_or(Ok(()), |at| write!(formatter, " of {at}"))
            }
            Self::Scheduled(event) => {
                write!(
                    formatter,
                    "scheduled event {}: {} not before {}",
                    event.id, event.code, event.not_before
                )
            }
            Self::Target(target) => write!(formatter, "Auto Scaling target state {target}"),
            Self::Request(request) => {
                write!(formatter, "operator: {}", request.posture)?;
                if request.reason.is_empty() {
                    return Ok(());
                }
                write!(formatter, ", {}", request.reason)
            }
            Self::Shutdown(Shutdown::PowerOff) => formatter.write_str("the machine shuts down"),
            Self::Shutdown(Shutdown::Reboot) => formatter.write_str("the machine reboots"),
            Self::Arriving => formatter.write_str("not ready yet"),
        }
    }
}

impl Notices {
    /// Every cause that there is, whatever it asks for. The text of each is its name: a notice that is told again
    /// is the same cause, one with another time is a new one.
    pub fn causes(&self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self.scheduled.iter().cloned().map(Cause::Scheduled).collect();
        causes.extend(self.spot.clone().map(Cause::Spot));
        causes.extend(self.rebalance.clone().map(Cause::Rebalance));
        let away = |target: &&Target| !matches!(target, Target::InService);
        causes.extend(self.target.as_ref().filter(away).cloned().map(Cause::Target));
        let asks = |request: &&Request| request.posture != Posture::Serving;
        causes.extend(self.request.as_ref().filter(asks).cloned().map(Cause::Request));
        causes.extend(self.shutdown.map(Cause::Shutdown));
        causes.extend(self.arriving.then_some(Cause::Arriving));
        causes
    }
}

/// When each present cause was first seen, by its name.
pub type Seen = BTreeMap<String, Timestamp>;

/// What one cause asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Demand {
    posture: Posture,
    /// From when on.
    from: Timestamp,
    /// By when jobs must be away.
    deadline: Timestamp,
    /// Whether servers leave too.
    servers: bool,
    /// Whether a hook waits for us.
    hook: bool,
}

/// What all causes together ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// How far out the node should be, apart from readiness.
    pub posture: Posture,
    /// By when jobs must be away: the earliest that a cause asks for.
    pub deadline: Option<Timestamp>,
    /// Until when a server may wait for the moment in which it can leave.
    pub patience: Option<Timestamp>,
    /// Whether servers leave too.
    pub servers: bool,
    /// Whether a hook waits for the node to have left.
    pub hook: bool,
    /// Whether system jobs stay.
    pub ignore_system_jobs: bool,
    /// Since when the node has been on its way into service, if it is.
    pub arriving: Option<Timestamp>,
    /// Whether the machine goes down: services are stopped by it, not by us.
    pub going_down: bool,
    /// Whether an operator asked for the node to be taken back in.
    pub restore: bool,
    /// The causes that ask for the posture or more, in words.
    pub reasons: Vec<String>,
    /// When the next cause begins to ask.
    pub next: Option<Timestamp>,
}

impl Wish {
    /// Why, in one line.
    pub fn reason(&self) -> String {
        self.reasons.join("; ")
    }
}

fn demand(cause: &Cause, seen: Timestamp, spec: &WatchSpec) -> Option<Demand> {
    let within = seen.plus(spec.drain);
    let plain = |posture| Demand {
        posture,
        from: seen,
        deadline: within,
        servers: posture == Posture::Gone,
        hook: false,
    };
    match cause {
        // Memory is being written to disk already. Jobs that sleep are moved by Nomad's servers.
        Cause::Spot(SpotNotice {
            action: SpotAction::Hibernate,
            ..
        }) => Some(plain(Posture::Ineligible)),
        Cause::Spot(SpotNotice { at, .. }) => {
            let end = at.unwrap_or(seen.plus(SPOT_NOTICE));
            Some(Demand {
                deadline: within.min(end.minus(MARGIN)),
                ..plain(Posture::Gone)
            })
        }
        Cause::Rebalance(_) => match spec.rebalance {
            OnRebalance::Ignore => None,
            OnRebalance::Ineligible => Some(plain(Posture::Ineligible)),
            OnRebalance::Drain => Some(plain(Posture::Drained)),
        },
        Cause::Scheduled(event) => {
            let from = event.not_before.minus(spec.scheduled_lead).max(seen);
            let latest = event.not_before.minus(MARGIN).max(from.plus(AT_LEAST));
            let posture = match event.code {
                EventCode::Other(_) => Posture::Ineligible,
                _ => Posture::Drained,
            };
            Some(Demand {
                from,
                deadline: from.plus(spec.drain).min(latest),
                ..plain(posture)
            })
        }
        Cause::Target(Target::Terminated | Target::Warmed(_)) => Some(Demand {
            hook: true,
            ..plain(Posture::Gone)
        }),
        Cause::Target(Target::Standby | Target::Detached) => Some(plain(Posture::Drained)),
        Cause::Request(request) => Some(Demand {
            deadline: request.deadline,
            ..plain(request.posture)
        }),
        // Nomad and Consul are stopped by the shutdown itself, in the right order, when this service has ended.
        // Servers stay members: a machine that is only stopped comes back, and autopilot removes one that does not.
        Cause::Shutdown(Shutdown::PowerOff) => Some(Demand {
            deadline: seen.plus(spec.shutdown_drain),
            ..plain(Posture::Drained)
        }),
        // Nobody leaves for a reboot: the node comes back with its jobs.
        Cause::Shutdown(Shutdown::Reboot)
        | Cause::Target(Target::InService | Target::Other(_))
        | Cause::Arriving => None,
    }
}

/// What the notices ask for at a point in time.
pub fn wish(notices: &Notices, seen: &Seen, spec: &WatchSpec, now: Timestamp) -> Wish {
    let mut wish = Wish {
        ignore_system_jobs: spec.ignore_system_jobs,
        going_down: notices.shutdown.is_some(),
        restore: notices
            .request
            .as_ref()
            .is_some_and(|request| request.posture == Posture::Serving),
        ..Wish::default()
    };
    let mut asked = Vec::new();
    for cause in notices.causes() {
        let name = cause.to_string();
        let first = seen.get(&name).copied().unwrap_or(now);
        if cause == Cause::Arriving {
            wish.arriving = Some(first);
        }
        match demand(&cause, first, spec) {
            Some(demand) if demand.from > now => {
                wish.next = Some(wish.next.map_or(demand.from, |next| next.min(demand.from)));
            }
            Some(demand) => {
                if let Cause::Request(request) = &cause {
                    wish.ignore_system_jobs |= request.ignore_system_jobs;
                }
                asked.push((name, first, demand));
            }
            None => {}
        }
    }
    wish.posture = asked
        .iter()
        .map(|(.., demand)| demand.posture)
        .max()
        .unwrap_or_default();
    for (name, first, demand) in asked {
        if demand.posture >= Posture::Drained {
            wish.deadline = Some(
                wish.deadline
                    .map_or(demand.deadline, |least| least.min(demand.deadline)),
            );
        }
        if demand.posture == Posture::Gone {
            // What is bound to a time of the machine's end cannot be waited for beyond it.
            let patience = if demand.hook {
                first.plus(spec.server_patience)
            } else {
                demand.deadline
            };
            wish.patience = Some(wish.patience.map_or(patience, |least| least.min(patience)));
        }
        wish.servers |= demand.servers;
        wish.hook |= demand.hook;
        if demand.posture == wish.posture && wish.posture > Posture::Serving {
            wish.reasons.push(name);
        }
    }
    wish
}
