//! Owns standard output and standard error: data goes to the first, talk to the second.
//! Touches both streams; nothing else in the agent prints.

use std::io::{self, Write};

use serde::Serialize;

/// Writes one line of data. A reader that went away is no error: there is nobody left to tell.
pub fn data(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => data(&text),
        Err(error) => talk(&format!(
            "warning: a result could not be written as JSON: {error}"
        )),
    }
}

/// Says one line to whoever watches.
pub fn talk(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
