//! Owns what the watcher says: one line for each event, for people or as JSON.
//! Touches the stream it is given.

use std::fmt;
use std::io::Write;

use serde::Serialize;

use super::action::Step;
use super::notice::Posture;
use super::time::Timestamp;
use crate::node::reconcile::Pending;

/// Something worth a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The watcher began, perhaps with a story that another left.
    Started {
        /// Whether there was one.
        resumed: bool,
    },
    /// A cause appeared.
    Notice {
        /// In words.
        cause: String,
    },
    /// A cause is no more.
    Over {
        /// In words.
        cause: String,
    },
    /// What is asked of the node changed.
    Wish {
        /// How far out it should be.
        posture: Posture,
        /// By when its jobs must be away.
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// Why.
        reasons: Vec<String>,
    },
    /// An action begins, or would.
    Action {
        /// It.
        #[serde(flatten)]
        step: Step,
    },
    /// An action did not succeed.
    Failed {
        /// Its name.
        what: &'static str,
        /// Why not.
        reason: String,
        /// When it is tried again; never if absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        again: Option<Timestamp>,
    },
    /// Jobs move away.
    Draining {
        /// Allocations that have not ended, if that can be told.
        left: Option<u32>,
    },
    /// The node is what is asked of it.
    Reached {
        /// How far out it is.
        posture: Posture,
        /// How it came to be so, where that is not plain success.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// Something is wrong with where notices come from, or no longer.
    Source {
        /// Its name.
        source: String,
        /// What is wrong; nothing if it is well again.
        problem: Option<String>,
    },
    /// The node was not what its configuration says.
    Reconciled {
        /// Whether what could be put right was only told.
        dry_run: bool,
        /// What was put right, or could be.
        repaired: Vec<String>,
        /// What waits for an operator.
        pending: Vec<Pending>,
    },
    /// Something else is not as it should be.
    Warning {
        /// What.
        text: String,
    },
    /// The watcher was told to end.
    Stopping {
        /// What ends: the service, or the machine.
        what: &'static str,
    },
    /// The watcher ends.
    Stopped,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { resumed: false } => formatter.write_str("watching"),
            Self::Started { resumed: true } => {
                formatter.write_str("watching, and going on where it was left")
            }
            Self::Notice { cause } => write!(formatter, "notice: {cause}"),
            Self::Over { cause } => write!(formatter, "over: {cause}"),
            Self::Wish {
                posture,
                deadline,
                reasons,
            } => {
                write!(formatter, "the node should be {posture}")?;
                if let Some(deadline) = deadline {
                    write!(formatter, ", its jobs away by {deadline}")?;
                }
                if reasons.is_empty() {
                    Ok(())
                } else {
                    write!(formatter, " ({})", reasons.join("; "))
                }
            }
            Self::Action { step } => write!(formatter, "action: {step}"),
            Self::Reconciled {
                dry_run,
                repaired,
                pending,
            } => {
                let mut said = Vec::new();
                if !repaired.is_empty() {
                    let verb = if *dry_run { "could put right" } else { "put right" };
                    said.push(format!("{verb}: {}", repaired.join("; ")));
                }
                said.extend(pending.iter().map(ToString::to_string));
                if said.is_empty() {
                    said.push("the node is what it should be again".to_owned());
                }
                formatter.write_str(&said.join("; "))
            }
            Self::Failed { what, reason, again } => {
                write!(formatter, "could not {what}: {reason}")?;
                match again {
                    Some(again) => write!(formatter, "; again at {again}"),
                    None => formatter.write_str("; not tried again"),
                }
            }
            Self::Draining { left: Some(1) } => formatter.write_str("draining: 1 allocation is left"),
            Self::Draining { left: Some(left) } => write!(formatter, "draining: {left} allocations are left"),
            Self::Draining { left: None } => formatter.write_str("draining; the allocations may not be seen"),
            Self::Reached { posture, notes } => {
                write!(formatter, "the node is {posture}")?;
                if notes.is_empty() {
                    Ok(())
                } else {
                    write!(formatter, ": {}", notes.join("; "))
                }
            }
            Self::Source {
                source,
                problem: Some(problem),
            } => write!(formatter, "{source} cannot be read: {problem}"),
            Self::Source {
                source,
                problem: None,
            } => write!(formatter, "{source} can be read again"),
            Self::Warning { text } => write!(formatter, "warning: {text}"),
            Self::Stopping { what } => write!(formatter, "told to stop: {what}"),
            Self::Stopped => formatter.write_str("stopped"),
        }
    }
}

/// Whoever listens to the watcher.
pub trait Tell {
    /// Hears of an event.
    fn tell(&mut self, now: Timestamp, event: &Event);
}

/// Lines on a stream.
pub struct Lines<'a> {
    stream: &'a mut dyn Write,
    json: bool,
}

impl<'a> Lines<'a> {
    /// Lines for people, or one JSON object each.
    pub fn new(stream: &'a mut dyn Write, json: bool) -> Self {
        Self { stream, json }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl Tell for Lines<'_> {
    fn tell(&mut self, now: Timestamp, event: &Event) {
        // What is done counts, not whether somebody reads it.
        let _ = if self.json {
            let line = serde_json::to_string(&Line { time: now, event }).unwrap_or_default();
            writeln!(self.stream, "{line}")
        } else {
            // Some reasons are told in several lines.
            let line = event.to_string();
            let words: Vec<&str> = line.lines().map(str::trim).collect();
            writeln!(self.stream, "{}", words.join("; "))
        };
        let _ = self.stream.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_reason() {
        let event = Event::Failed {
            what: "drain",
            reason: "it failed\n  because: no route".to_owned(),
            again: None,
        };
        let mut stream = Vec::new();
        for json in [false, true] {
            Lines::new(&mut stream, json).tell(Timestamp::from_millis(0), &event);
        }
        let told = String::from_utf8(stream).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            "could not drain: it failed; because: no route; not tried again"
        );
        let json: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(
            (&json["event"], &json["time"]),
            (&"failed".into(), &"1970-01-01T00:00:00.000Z".into())
        );
    }
}
