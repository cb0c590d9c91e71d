//! Owns the end of resources: newest first, never stopping at an error, with a deadline of its own.
//! Touches the port `Cloud` (delete only).

use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Cloud, CloudErrorKind, Resource};
use crate::events::{Event, Events};

/// How patient a cleanup is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Longest time that it may take in all: a builder needs a minute to free its volumes, a metal one many.
    pub deadline: Duration,
    /// Time between two passes over what is still in use.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_mins(5),
            pause: Duration::from_secs(2),
        }
    }
}

/// Longest time that one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(45);

/// What became of the resources.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CleanupReport {
    /// Gone.
    pub released: Vec<Resource>,
    /// Still there, and why.
    pub leftovers: Vec<(Resource, String)>,
}

/// Passes over a resource whose delete fails for another reason than being in use, on top of the port's own retries.
const PASSES: u32 = 3;

/// Ends all `resources`, given oldest first. What is in use by another is tried again until the deadline, because the
/// other may be on its way out; other failures, but for refusals, a few times. `gone` is told of each that is gone.
pub async fn release<C: Cloud>(
    cloud: &C,
    resources: &[Resource],
    patience: Patience,
    events: &Events,
    mut gone: impl FnMut(&Resource),
) -> CleanupReport {
    let Patience { deadline, pause } = patience;
    let end = Instant::now() + deadline;
    let mut report = CleanupReport::default();
    let mut left: Vec<Resource> = resources.iter().rev().cloned().collect();
    let mut pass = 0;
    while !left.is_empty() {
        pass += 1;
        let mut again = Vec::new();
        for resource in std::mem::take(&mut left) {
            let call_end = (Instant::now() + CALL_DEADLINE).min(end);
            let deleted = tokio::time::timeout_at(call_end, cloud.delete(&resource)).await;
            let reason = match deleted {
                Ok(Ok(())) => {
                    gone(&resource);
                    events.emit(Event::Released {
                        resource: resource.clone(),
                    });
                    report.released.push(resource);
                    continue;
                }
                Ok(Err(error)) if Instant::now() + pause < end && worth_another(error.kind, pass) => {
                    again.push(resource);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            events.emit(Event::Leftover {
                resource: resource.clone(),
                reason: reason.clone(),
            });
            report.leftovers.push((resource, reason));
        }
        left = again;
        if !left.is_empty() {
            tokio::time::sleep(pause).await;
        }
    }
    report
}

fn worth_another(kind: CloudErrorKind, pass: u32) -> bool {
    match kind {
        CloudErrorKind::InUse => true,
        CloudErrorKind::Denied | CloudErrorKind::NoCredentials | CloudErrorKind::BadCredentials => false,
        _ => pass < PASSES,
    }
}
