//! Owns the record of calls, to AWS's API and to the metadata service: one JSON line for each, in the order of their
//! ends.
//! Touches one file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use serde::Serialize;

/// One call.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When it came in, RFC 3339 in UTC.
    pub time: String,
    /// Signing name of the service.
    pub service: &'a str,
    /// API action.
    pub operation: &'a str,
    /// How long it took.
    pub milliseconds: u64,
    /// HTTP status; 0 if the reply was cut.
    pub status: u16,
    /// Error code, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The fault that was injected, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What the caller calls itself (`User-Agent`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Ids in request and answer; for the metadata service, the machine that asks.
    pub ids: Vec<String>,
}

/// Where calls are written to; nowhere by default.
#[derive(Debug, Default)]
pub struct Recorder {
    file: Option<Mutex<File>>,
}

impl Recorder {
    /// Appends to a file, which is made if it is missing.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("record {} cannot be written", path.display()))?;
        Ok(Self {
            file: Some(Mutex::new(file)),
        })
    }

    /// Writes a line. A full disk must not fail the call that is recorded.
    pub fn write(&self, line: &Line<'_>) {
        if let (Some(file), Ok(mut text)) = (&self.file, serde_json::to_vec(line)) {
            text.push(b'\n');
            if let Ok(mut file) = file.lock() {
                let _ = file.write_all(&text);
            }
        }
    }
}

/// What a request's sender calls itself.
pub fn caller(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(name.to_owned())
}

/// Milliseconds, rounded down.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The error code in an answer, wherever its protocol puts it.
pub fn error_code(header: Option<&str>, body: &str) -> Option<String> {
    let between = |start: &str, end: char| {
        body.split_once(start)?
            .1
            .split_once(end)
            .map(|it| it.0.to_owned())
    };
    let header = header.map(str::to_owned);
    header
        .or_else(|| between("<Code>", '<'))
        .or_else(|| between("\"__type\": \"", '"'))
        .or_else(|| {
            between("\"__type\":\"", '"').map(|code| code.rsplit('#').next().unwrap_or_default().to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::error_code;

    #[test]
    fn codes_are_found_in_each_protocol() {
        assert_eq!(
            error_code(None, "<Error><Code>DryRunOperation</Code>").as_deref(),
            Some("DryRunOperation")
        );
        assert_eq!(
            error_code(None, r#"{"__type":"a#B","message":""}"#).as_deref(),
            Some("B")
        );
        assert_eq!(error_code(Some("X"), "").as_deref(), Some("X"));
        assert_eq!(error_code(None, "{}"), None);
    }
}
