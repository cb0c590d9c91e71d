//! Owns waiting: polls a probe with jitter until a deadline, and says why it failed.
//! Touches the clock. Stages sleep nowhere else; the ports pace their own retries.

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::BakeError;

/// What a probe saw.
pub enum Seen<T> {
    /// It came to pass.
    Done(T),
    /// Not yet, and what is there instead.
    Pending(String),
    /// It can never come to pass, and why.
    Hopeless(String),
}

/// Time between two probes, before jitter: AWS's own waiters take 15 s, which costs half of that in each phase.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Polls `probe` until it is done, hopeless, past `deadline`, or cancelled. An error of the probe ends the wait.
pub async fn until<T, F, P>(
    what: &str,
    deadline: Duration,
    pause: Duration,
    cancel: &CancellationToken,
    mut probe: P,
) -> Result<T, BakeError>
where
    P: FnMut() -> F,
    F: Future<Output = Result<Seen<T>, BakeError>>,
{
    let end = Instant::now() + deadline;
    loop {
        if cancel.is_cancelled() {
            return Err(BakeError::Interrupted);
        }
        // A probe only reads, so it may be dropped half-way; one that hangs must not outlive the deadline.
        let seen = tokio::select! {
            seen = tokio::time::timeout_at(end, probe()) => seen,
            () = cancel.cancelled() => return Err(BakeError::Interrupted),
        };
        let reason = match seen {
            Ok(seen) => match seen? {
                Seen::Done(value) => return Ok(value),
                Seen::Hopeless(reason) => {
                    return Err(BakeError::Hopeless {
                        what: what.to_owned(),
                        reason,
                    });
                }
                Seen::Pending(reason) => reason,
            },
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() + pause > end {
            return Err(BakeError::Deadline {
                what: what.to_owned(),
                deadline,
                reason,
            });
        }
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            () = cancel.cancelled() => return Err(BakeError::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(1);
    const DEADLINE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_deadline_carries_what_was_seen_last() {
        let cancel = CancellationToken::new();
        let waited = until("the door to open", DEADLINE, PAUSE, &cancel, async || {
            Ok(Seen::<()>::Pending("the door is shut".into()))
        });
        let error = waited.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the door to open did not happen within 0 s: the door is shut"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlive_the_deadline() {
        let cancel = CancellationToken::new();
        let waited = until("an answer", DEADLINE, PAUSE, &cancel, async || {
            std::future::pending::<Result<Seen<()>, BakeError>>().await
        });
        assert!(matches!(waited.await, Err(BakeError::Deadline { .. })));
    }

    #[tokio::test]
    async fn cancel_ends_a_wait() {
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DEADLINE).await;
            later.cancel();
        });
        let waited = until("never", Duration::from_secs(500), PAUSE, &cancel, async || {
            Ok(Seen::<()>::Pending(String::new()))
        });
        assert!(matches!(waited.await, Err(BakeError::Interrupted)));
    }
}
