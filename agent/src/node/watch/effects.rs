//! Owns carrying out a step: which port is asked, and what its answer means.
//! Touches the node and the cluster through the ports only.

use std::time::Duration;

use super::action::{Action, Step};
use super::cause::Wish;
use super::clock::Clock;
use super::event::Tell;
use super::gate::{Gate, Verdict};
use super::hook::{self, CallError, GroupInstance, LifecycleActions, OpenHook, Transition};
use super::machine::Machine;
use super::notify::Notify;
use super::progress::{Found, Hook, Outcome};
use super::source::NoticeSource;
use super::spec::WatchSpec;
use super::time::Timestamp;
use super::upkeep::Upkeep;
use crate::node::drain::{ApiError, Consul, DrainView, Nomad, Raft, Services, may_leave};

const NOMAD: &str = "nomad";
const CONSUL: &str = "consul";

/// Everything that the watcher touches.
pub struct Ports<'a> {
    /// The metadata service.
    pub source: &'a mut dyn NoticeSource,
    /// Nomad's agent.
    pub nomad: &'a dyn Nomad,
    /// Consul's agent.
    pub consul: &'a dyn Consul,
    /// The machine's services.
    pub services: &'a dyn Services,
    /// Auto Scaling's API; none where nobody speaks to it.
    pub lifecycle: Option<&'a dyn LifecycleActions>,
    /// Whoever compares the node with its configuration; none where nobody does.
    pub upkeep: Option<&'a mut dyn Upkeep>,
    /// What the node must prove.
    pub gate: &'a dyn Gate,
    /// The machine itself.
    pub machine: &'a dyn Machine,
    /// Time and signals.
    pub clock: &'a mut dyn Clock,
    /// Who listens.
    pub tell: &'a mut dyn Tell,
    /// The service manager.
    pub notify: &'a Notify,
}

/// What a step must know besides itself.
pub(super) struct Context<'a> {
    pub(super) spec: &'a WatchSpec,
    pub(super) wish: &'a Wish,
    /// The last reason for which the step before this one did not succeed.
    pub(super) last_reason: Option<&'a str>,
}

fn done() -> Outcome {
    Outcome::Done(Found::Nothing)
}

/// Carries out a step on the node or the cluster.
pub(super) fn carry_out(step: &Step, ports: &Ports, context: &Context) -> Outcome {
    let now = ports.clock.now();
    match &step.action {
        Action::LookAtNode => look_at_node(ports, context),
        Action::TakeOut => plain(ports.nomad.take_out()),
        Action::Drain {
            deadline,
            ignore_system_jobs,
        } => {
            let left = deadline.since(now);
            or_absent(
                ports,
                ports
                    .nomad
                    .drain(left, *ignore_system_jobs, &step.reason)
                    .map(|()| Found::Nothing),
            )
        }
        Action::LookAtDrain => or_absent(ports, look_at_drain(ports.nomad, context.wish.ignore_system_jobs)),
        Action::Signal => signal(ports),
        Action::LookAtUnit => match ports.services.runs(NOMAD) {
            Ok(true) => Outcome::Done(Found::Running),
            Ok(false) => Outcome::Done(Found::NotRunning),
            Err(reason) => Outcome::NotNow(reason),
        },
        Action::CancelDrain { eligible } => give_back(ports.nomad.end_drain(*eligible)),
        Action::BringBack => give_back(ports.nomad.end_drain(true)),
        Action::Maintenance { on } => plain(ports.consul.maintenance(*on, &step.reason)),
        Action::LeaveNomad => leave_nomad(ports, context),
        Action::LeaveConsul => leave_consul(ports, context),
        Action::Stay { .. } => Outcome::Done(Found::Stays(
            context.last_reason.unwrap_or("it could not leave").to_owned(),
        )),
        Action::Join => join(ports.services, context.spec.has_nomad()),
        Action::FindHook { arrival } => find_hook(ports.lifecycle, context.spec, *arrival, now),
        Action::Prove => match ports.gate.prove() {
            Verdict::Ready => done(),
            Verdict::NotYet(reason) => Outcome::NotNow(reason),
            Verdict::Hopeless(reason) => Outcome::Never(reason),
        },
        Action::GiveUpProof => Outcome::Done(Found::Stays(format!(
            "not within {}: {}",
            humantime::format_duration(Duration::from_secs(context.spec.ready_deadline.as_secs())),
            context.last_reason.unwrap_or("it was not asked")
        ))),
        // Hooks are spoken to by `speak`; the rest is only written down.
        Action::Heartbeat { .. }
        | Action::Complete { .. }
        | Action::GiveUpDrain
        | Action::Arrived
        | Action::Forget => done(),
    }
}

/// Speaks to a hook at which the node waits.
pub(super) fn speak(step: &Step, open: &OpenHook, lifecycle: Option<&dyn LifecycleActions>) -> Outcome {
    let Some(lifecycle) = lifecycle else {
        return Outcome::Never("nobody here speaks to Auto Scaling".to_owned());
    };
    let (answer, gone) = match &step.action {
        Action::Complete { result, .. } => (lifecycle.complete(&open.group, &open.name, *result), None),
        _ => (lifecycle.heartbeat(&open.group, &open.name), Some(())),
    };
    match (answer, gone) {
        // Completed before, by a watcher that was killed before it could write it down, or by somebody else.
        (Ok(()) | Err(CallError::NoAction(_)), None) | (Ok(()), _) => done(),
        (Err(CallError::NoAction(reason)), Some(())) => Outcome::Done(Found::Hook(Hook::None(reason))),
        (Err(CallError::Denied(reason)), _) => Outcome::Never(reason),
        (Err(CallError::Passing(reason)), _) => Outcome::NotNow(reason),
    }
}

fn plain(answer: Result<(), ApiError>) -> Outcome {
    match answer {
        Ok(()) => done(),
        Err(ApiError::Denied(reason)) => Outcome::Never(reason),
        Err(ApiError::Absent(reason) | ApiError::Failed(reason)) => Outcome::NotNow(reason),
    }
}

/// As [`plain`], where even a refusal may pass: what was taken is given back, or the node is lost to the cluster.
fn give_back(answer: Result<(), ApiError>) -> Outcome {
    match plain(answer) {
        Outcome::Never(reason) => Outcome::NotNow(reason),
        other => other,
    }
}

/// As [`plain`], where a Nomad that does not run has no jobs either.
fn or_absent(ports: &Ports, answer: Result<Found, ApiError>) -> Outcome {
    match answer {
        Ok(found) => Outcome::Done(found),
        Err(ApiError::Absent(reason)) => match ports.services.runs(NOMAD) {
            Ok(false) => Outcome::Done(Found::NotRunning),
            _ => Outcome::NotNow(reason),
        },
        Err(error) => plain(Err(error)),
    }
}

fn look_at_node(ports: &Ports, context: &Context) -> Outcome {
    // One that is ineligible only because it is not ready yet would be eligible without us.
    let arriving = context.wish.arriving.is_some();
    let seen = ports
        .nomad
        .node()
        .map(|node| Found::Eligible(node.eligible || arriving));
    if context.wish.deadline.is_some() {
        return or_absent(ports, seen);
    }
    match seen {
        Ok(found) => Outcome::Done(found),
        Err(error) => plain(Err(error)),
    }
}

fn look_at_drain(nomad: &dyn Nomad, ignore_system_jobs: bool) -> Result<Found, ApiError> {
    let complete = match nomad.node()?.drain {
        DrainView::None => return Ok(Found::NotDraining),
        DrainView::Running => false,
        DrainView::Complete => true,
    };
    let left = nomad.allocations(ignore_system_jobs)?;
    Ok(Found::Drain { complete, left })
}

fn signal(ports: &Ports) -> Outcome {
    match ports.services.terminate(NOMAD) {
        Ok(()) => done(),
        Err(reason) => match ports.services.runs(NOMAD) {
            Ok(false) => Outcome::Done(Found::NotRunning),
            _ => Outcome::NotNow(reason),
        },
    }
}

/// Whether quorum lets a server go; an outcome if not.
fn cleared(raft: Result<Raft, ApiError>, servers: u32, context: &Context) -> Result<(), Outcome> {
    if !context.wish.servers {
        let reason =
            "servers stay for this: the machine may come back, and autopilot removes one that does not";
        return Err(Outcome::Done(Found::Stays(reason.to_owned())));
    }
    match raft {
        Ok(raft) => may_leave(&raft, servers).map_err(Outcome::NotNow),
        Err(ApiError::Denied(reason)) => Err(Outcome::Never(format!(
            "nobody may tell whether quorum survives: {reason}"
        ))),
        Err(error) => Err(plain(Err(error))),
    }
}

fn leave_nomad(ports: &Ports, context: &Context) -> Outcome {
    match ports.services.runs(NOMAD) {
        Ok(true) => {}
        Ok(false) => return done(),
        Err(reason) => return Outcome::NotNow(reason),
    }
    if let Some(servers) = context.spec.nomad_server {
        if let Err(outcome) = cleared(ports.nomad.raft(), servers, context) {
            return outcome;
        }
        return match ports.nomad.leaves_on_signal() {
            Ok(Some(true)) => Outcome::Done(Found::MayLeave),
            Ok(_) => Outcome::Never("leave_on_terminate is off, or nobody may tell".to_owned()),
            Err(error) => plain(Err(error)),
        };
    }
    // While the machine goes down its own stop of Nomad waits for this service: who waited for it would wait forever.
    if context.wish.going_down {
        return done();
    }
    ports
        .services
        .stop(NOMAD)
        .map_or_else(Outcome::NotNow, |()| done())
}

fn leave_consul(ports: &Ports, context: &Context) -> Outcome {
    match ports.services.runs(CONSUL) {
        Ok(true) => {}
        Ok(false) => return done(),
        Err(reason) => return Outcome::NotNow(reason),
    }
    if let Some(servers) = context.spec.consul_server {
        if let Err(outcome) = cleared(ports.consul.raft(), servers, context) {
            return outcome;
        }
        return plain(ports.consul.leave());
    }
    if context.wish.going_down {
        // A client leaves when it is stopped, which the shutdown is about to do.
        return done();
    }
    match ports.consul.leave() {
        Err(ApiError::Denied(_)) => ports
            .services
            .stop(CONSUL)
            .map_or_else(Outcome::NotNow, |()| done()),
        other => plain(other),
    }
}

fn join(services: &dyn Services, nomad: bool) -> Outcome {
    for service in [CONSUL, NOMAD]
        .into_iter()
        .filter(|service| nomad || *service != NOMAD)
    {
        if let Err(reason) = services.start(service) {
            return Outcome::NotNow(reason);
        }
    }
    done()
}

fn find_hook(
    lifecycle: Option<&dyn LifecycleActions>,
    spec: &WatchSpec,
    arrival: bool,
    now: Timestamp,
) -> Outcome {
    let Some(lifecycle) = lifecycle else {
        return Outcome::Never("nobody here speaks to Auto Scaling".to_owned());
    };
    let none = |reason| Outcome::Done(Found::Hook(Hook::None(reason)));
    let call = |error| match error {
        CallError::Denied(reason) => Outcome::Never(reason),
        CallError::NoAction(reason) => none(reason),
        CallError::Passing(reason) => Outcome::NotNow(reason),
    };
    let instance = match lifecycle.instance() {
        Ok(Some(instance)) => instance,
        Ok(None) => return none("the instance belongs to no Auto Scaling group".to_owned()),
        Err(error) => return call(error),
    };
    let hooks = match lifecycle.hooks(&instance.group) {
        Ok(hooks) => hooks,
        Err(error) => return call(error),
    };
    match hook::choose(
        &instance,
        &hooks,
        spec.launch_hook.as_deref(),
        spec.termination_hook.as_deref(),
    ) {
        Ok(hook) => Outcome::Done(Found::Hook(Hook::Open(OpenHook {
            name: hook.name.clone(),
            transition: hook.transition,
            // Auto Scaling allows 30 s to 7200 s.
            timeout_seconds: hook.heartbeat_timeout.as_secs().max(30),
            since: now,
            last_beat: None,
            beats: 0,
            group: instance.group,
        }))),
        Err(reason)
            if will_wait(&instance, arrival)
                && hooks.iter().any(|hook| acts(hook.transition, &instance, arrival)) =>
        {
            Outcome::NotNow(reason)
        }
        Err(reason) => none(reason),
    }
}

/// Whether the instance is on its way to where a hook would hold it.
fn will_wait(instance: &GroupInstance, arrival: bool) -> bool {
    match instance.state.as_str() {
        "Pending" | "Warmed:Pending" => true,
        "InService" | "Standby" | "Terminating" | "Warmed:Terminating" => !arrival,
        warmed => {
            warmed.starts_with("Warmed:")
                && !warmed.ends_with(":Wait")
                && !warmed.ends_with(":Proceed")
                && !arrival
        }
    }
}

fn acts(transition: Transition, instance: &GroupInstance, arrival: bool) -> bool {
    let launching = arrival || instance.state.contains("Pending");
    (transition == Transition::Launching) == launching
}
