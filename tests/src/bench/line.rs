//! Owns one line of a bench, the table and the JSON of all.
//! Touches standard output.

use std::io::Write as _;

use anyhow::{Result, ensure};
use serde::Serialize;

/// Which way a limit goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "bound", content = "value", rename_all = "kebab-case")]
pub enum Limit {
    /// No value may be above it.
    AtMost(f64),
    /// No value may be below it.
    AtLeast(f64),
    /// Only told.
    None,
}

/// What was measured, and what it must be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it must be.
    pub limit: Limit,
    /// Middle of the values.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many values there are.
    pub count: usize,
    /// Whether the median keeps the limit.
    pub ok: bool,
}

impl Line {
    /// The line of at least one value.
    pub fn new(name: &'static str, unit: &'static str, limit: Limit, mut values: Vec<f64>) -> Result<Self> {
        ensure!(!values.is_empty(), "there is no value of '{name}'");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Ok(Self {
            name,
            unit,
            limit,
            median,
            min: values[0],
            max: values[values.len() - 1],
            count: values.len(),
            ok: match limit {
                Limit::AtMost(most) => median <= most,
                Limit::AtLeast(least) => median >= least,
                Limit::None => true,
            },
        })
    }

    fn cells(&self) -> [String; 4] {
        let unit = self.unit;
        let limit = match self.limit {
            Limit::AtMost(most) => format!("<= {} {unit}", short(most)),
            Limit::AtLeast(least) => format!(">= {} {unit}", short(least)),
            Limit::None => "-".to_owned(),
        };
        let ok = match (self.limit, self.ok) {
            (Limit::None, _) => "-",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        let measured = if self.count == 1 {
            format!("{} {unit}", short(self.median))
        } else {
            let [median, min, max] = [self.median, self.min, self.max].map(short);
            format!("{median} ({min}..{max}) {unit}")
        };
        [self.name.to_owned(), limit, measured, ok.to_owned()]
    }
}

/// Three digits that mean something, and no more.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// The lines as a table for people.
pub fn print(lines: &[Line]) {
    let head = ["line", "limit", "median (min..max)", "ok"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head)
        .chain(lines.iter().map(Line::cells))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let mut out = std::io::stdout().lock();
    for [name, limit, measured, ok] in &rows {
        let [one, two, three] = widths;
        // A reader that went away is no failure.
        let _ = writeln!(out, "{name:<one$} | {limit:<two$} | {measured:<three$} | {ok}");
    }
}

/// The lines as one JSON list.
pub fn print_json(lines: &[Line]) -> Result<()> {
    let text = serde_json::to_string_pretty(lines)?;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_the_ends_are_told() {
        let line = Line::new("apply", "ms", Limit::AtMost(50.0), vec![90.0, 40.0, 30.0, 45.0]).unwrap();
        assert_eq!(
            (line.median, line.min, line.max, line.ok),
            (42.5, 30.0, 90.0, true)
        );
        assert_eq!(line.cells(), ["apply", "<= 50 ms", "42.5 (30..90) ms", "yes"]);
        let line = Line::new("faster", "x", Limit::AtLeast(50.0), vec![49.0]).unwrap();
        assert_eq!(line.cells(), ["faster", ">= 50 x", "49 x", "NO"]);
        assert!(Line::new("none", "", Limit::None, Vec::new()).is_err());
        assert_eq!(
            [0.0, 0.034, 1234.0, 2.5].map(short),
            ["0", "0.034", "1234", "2.5"].map(str::to_owned)
        );
    }
}
