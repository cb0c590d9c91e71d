//! Owns what a bench reads out of the sandbox's record of calls.
//! Touches that file, for reading.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// A recorded call, as far as a bench looks at it.
#[derive(Debug, Deserialize)]
pub(super) struct Recorded {
    #[serde(deserialize_with = "moment")]
    pub(super) time: Timestamp,
    pub(super) service: String,
    #[serde(default)]
    caller: String,
    ids: Vec<String>,
}

impl Recorded {
    /// Whether it is the agent's own, and not that of Consul, cloud-init or this bench.
    pub(super) fn is_of_the_agent(&self) -> bool {
        self.caller.starts_with("cos-agent/")
    }

    /// Whether it came from a machine; only the metadata service knows.
    pub(super) fn is_from(&self, instance: &str) -> bool {
        self.ids.iter().any(|id| id == instance)
    }
}

/// A moment in RFC 3339.
pub(super) fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// All calls between two moments.
pub(super) fn between(record: &Path, from: Timestamp, to: Timestamp) -> Result<Vec<Recorded>> {
    let text =
        std::fs::read_to_string(record).with_context(|| format!("{} cannot be read", record.display()))?;
    let mut calls = Vec::new();
    for line in text.lines() {
        let call: Recorded = serde_json::from_str(line).context("the record has a line of another shape")?;
        if from <= call.time && call.time <= to {
            calls.push(call);
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_time_and_told_apart_by_caller() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |second: u32, caller: &str| {
            format!(
                r#"{{"time":"2026-01-01T00:00:{second:02}Z","service":"imds","operation":"GET /","milliseconds":0,"status":200,"caller":"{caller}","ids":["i-1"]}}"#
            )
        };
        let text = [line(1, "cos-agent/1"), line(2, "curl/8"), line(9, "cos-agent/1")].join("\n");
        std::fs::write(file.path(), text).unwrap();
        let moment = |text: &str| text.parse::<Timestamp>().unwrap();
        let calls = between(
            file.path(),
            moment("2026-01-01T00:00:00Z"),
            moment("2026-01-01T00:00:05Z"),
        )
        .unwrap();
        assert_eq!(calls.len(), 2);
        assert_eq!(calls.iter().filter(|call| call.is_of_the_agent()).count(), 1);
        assert!(calls[0].is_from("i-1") && !calls[0].is_from("i-2"));
    }
}
