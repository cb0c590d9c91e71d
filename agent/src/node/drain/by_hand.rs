//! Owns what an operator asks of the node: drained, gone, back. The watcher does it where it runs, this process where
//! not. Touches the request beside the journal, and what the watcher touches.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::node::NodeError;
use crate::node::lock;
use crate::node::wait::{self, Backoff, WaitError};
use crate::node::watch::this_node::ThisNode;
use crate::node::watch::{
    Away, Ended, Event, Journal, Membership, Notify, Posture, Request, Retries, State, Tell, Timestamp,
    Until, WatchError, WatchSpec, next, wish,
};

/// What is added to a deadline: tasks that are told to end take up to 10 s by then, leaving takes the rest.
const MARGIN: Duration = Duration::from_mins(1);

const FOLLOW: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(1),
};

/// Asks for it, and waits until the node is so.
pub(super) fn ask(node: &ThisNode, request: &Request, tell: &mut dyn Tell) -> Result<(), NodeError> {
    let journal = Journal::new(&node.files);
    journal.ask(request)?;
    let limit = request.deadline.since(request.since) + MARGIN;
    let state = match lock::take(&node.files, lock::WATCH)? {
        Some(_lock) => {
            let until = Until::Settled(request.since.plus(limit));
            let notify = Notify::default();
            let (ended, state) = node.with_engine(None, None, &notify, tell, |engine| {
                (engine.run(until), engine.state().clone())
            })?;
            match ended {
                Ended::Settled => state,
                Ended::Stopped => return Err(interrupted(request.posture).into()),
                Ended::Late => return Err(late(request.posture, limit).into()),
            }
        }
        None => follow(journal, &node.spec, request, limit, tell)?,
    };
    judge(journal, &node.spec, request, &state)
}

fn interrupted(posture: Posture) -> WatchError {
    WatchError::Interrupted {
        wanted: word(posture),
    }
}

fn late(posture: Posture, after: Duration) -> WatchError {
    WatchError::Late {
        wanted: word(posture),
        after,
    }
}

fn word(posture: Posture) -> &'static str {
    match posture {
        Posture::Serving => "serving",
        Posture::Ineligible => "ineligible",
        Posture::Drained => "drained",
        Posture::Gone => "gone",
    }
}

/// Reads along what the watcher writes down, until it has nothing more to do.
fn follow(
    journal: Journal,
    spec: &WatchSpec,
    request: &Request,
    limit: Duration,
    tell: &mut dyn Tell,
) -> Result<State, NodeError> {
    let mut told = None;
    let followed: Result<State, WaitError<Infallible>> = wait::until(limit, FOLLOW, || {
        let (state, _) = match journal.load() {
            Ok(loaded) => loaded,
            Err(error) => return Ok(ControlFlow::Continue(error.to_string())),
        };
        let now = Timestamp::now();
        let left = state.progress.drain.as_ref().and_then(|drain| drain.left);
        let going = request.posture >= Posture::Drained && heard(&state, request);
        if going && left.is_some() && left != told {
            told = left;
            tell.tell(now, &Event::Draining { left });
        }
        Ok(if heard(&state, request) && settled(&state, spec, now) {
            ControlFlow::Break(state)
        } else {
            ControlFlow::Continue("the watcher is at it".to_owned())
        })
    });
    followed.map_err(|_| late(request.posture, limit).into())
}

/// Whether the watcher knows of the request: what takes one back is gone as soon as it is done.
fn heard(state: &State, request: &Request) -> bool {
    match request.posture {
        Posture::Serving => {
            state.notices.request.is_none() || state.notices.request.as_ref() == Some(request)
        }
        _ => state.notices.request.as_ref() == Some(request),
    }
}

fn settled(state: &State, spec: &WatchSpec, now: Timestamp) -> bool {
    let wish = wish(&state.notices, &state.seen, spec, now);
    let next = next(spec, &wish, &state.progress, &Retries::default(), now);
    next.settled && next.step.is_none()
}

/// Whether what became of the node is what was asked for.
fn judge(journal: Journal, spec: &WatchSpec, request: &Request, state: &State) -> Result<(), NodeError> {
    if request.posture == Posture::Serving {
        let wish = wish(&state.notices, &state.seen, spec, Timestamp::now());
        if wish.posture > Posture::Serving {
            // It would be carried out some day, when nobody thinks of it any more.
            journal.withdraw()?;
            return Err(WatchError::KeptOut {
                posture: wish.posture.to_string(),
                reasons: wish.reasons,
            }
            .into());
        }
        return Ok(());
    }
    if let Some(Away::Deadline(left)) = state.progress.away {
        return Err(WatchError::JobsLeft { left }.into());
    }
    if request.posture == Posture::Gone {
        for (product, membership) in [
            ("Nomad", &state.progress.nomad),
            ("Consul", &state.progress.consul),
        ] {
            if let Membership::Stays(reason) = membership {
                let reason = reason.clone();
                return Err(WatchError::Stays { product, reason }.into());
            }
        }
    }
    Ok(())
}
