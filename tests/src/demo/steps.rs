//! Owns the demo's steps: one line when a step begins, one when it ends, and the table at the end.
//! Touches standard error and standard output.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Steps so far, each with its seconds and what came out.
#[derive(Debug, Default)]
pub struct Steps {
    rows: Vec<(String, String)>,
}

impl Steps {
    /// Runs one step; its outcome becomes a row of the table.
    pub async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        talk(&format!("==> {name}"));
        let start = Instant::now();
        let (value, outcome) = work.await.with_context(|| format!("{name} failed"))?;
        let seconds = start.elapsed().as_secs_f64();
        talk(&format!("    {name}: {outcome} ({seconds:.1} s)"));
        self.row(name, format!("{outcome} ({seconds:.1} s)"));
        Ok(value)
    }

    /// Adds a row to the table.
    pub fn row(&mut self, name: impl Into<String>, value: impl Display) {
        self.rows.push((name.into(), value.to_string()));
    }

    /// The table, on standard output.
    pub fn print(&self) {
        let width = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        let mut out = std::io::stdout().lock();
        for (name, value) in &self.rows {
            // A reader that went away is no failure.
            let _ = writeln!(out, "{name:<width$}  {value}");
        }
    }
}

/// A line on standard error.
pub(super) fn talk(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
