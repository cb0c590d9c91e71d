//! Owns noticing that the node must go, or has yet to come, and seeing to it: the daemon `cos-agent watch`.
//! Touches the metadata service, the agents of this machine, Auto Scaling's hooks, one journal.
//!
//! What is told (`notice`) makes causes, which together make one wish (`cause`): how far out of the cluster the node
//! should be, and by when. From the wish and how far it has come (`progress`) follows the next step (`decide`), which
//! is carried out by ports (`effects`) and written down (`journal`). The wish is made anew each time, so a notice
//! that is told twice does nothing twice, one that is withdrawn is undone, and a watcher that was killed goes on.

mod action;
mod auto_scaling;
mod cause;
pub mod cli;
mod clock;
mod decide;
mod effects;
mod engine;
mod error;
mod event;
mod gate;
mod hear;
mod hook;
mod journal;
mod machine;
mod notice;
mod notify;
mod progress;
mod say;
mod source;
mod spec;
pub(crate) mod this_node;
mod time;
mod upkeep;

pub use action::{Action, Retries, Step};
pub use cause::{Cause, Notices, Seen, Wish, wish};
pub use clock::{Clock, RealClock, Stop};
pub use decide::{Next, next};
pub use effects::Ports;
pub use engine::{Ended, Engine, Until};
pub use error::WatchError;
pub use event::{Event, Lines, Tell};
pub use gate::{Gate, HealthGate, Verdict, hold_back, may_join};
pub use hook::{
    ActionResult, CallError, GroupInstance, LifecycleActions, LifecycleHook, OpenHook, Transition,
};
pub use journal::{ARRIVING, JOURNAL, Journal, REQUEST, State};
pub use machine::{Machine, SystemMachine};
pub use notice::{
    EventCode, Posture, Rebalance, Request, ScheduledEvent, Shutdown, SpotAction, SpotNotice, Target,
    read_rebalance, read_request, read_scheduled, read_spot, read_target,
};
pub use notify::Notify;
pub use progress::{Away, Draining, Found, Hook, Membership, Out, Outcome, Progress};
pub use source::{NoticeSource, Source};
pub use spec::{Intervals, WatchSpec};
pub use time::Timestamp;
pub use upkeep::Upkeep;
