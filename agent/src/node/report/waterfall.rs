//! Owns a boot report as text: what took how long, drawn to scale, side by side where it was side by side.
//! Touches nothing.

use std::fmt::Write;

use super::boot::{BootReport, Outcome};
use super::timeline::Phase;

/// Narrower than this the bars say nothing.
const NARROWEST: usize = 60;
/// Wider than this they say nothing more.
const WIDEST: usize = 160;
/// Longest name of a phase that is shown whole.
const LONGEST_NAME: usize = 30;

/// How text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether colours may be used.
    pub colour: bool,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";
const FAINT: &str = "2";

/// Draws a report.
pub fn waterfall(report: &BootReport, style: Style) -> String {
    let width = style.width.clamp(NARROWEST, WIDEST);
    let mut text = headline(report, style);
    let names: Vec<String> = report.phases.iter().map(name).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let column = longest.max("phase".len());
    // Two spaces, nine columns of start, nine of length, two spaces.
    let canvas = width.saturating_sub(column + 2 + 9 + 9 + 2);
    let whole = report
        .phases
        .iter()
        .map(|phase| phase.start + phase.milliseconds)
        .fold(report.milliseconds, f64::max);
    let end = span(whole);
    let scale = format!("0{end:>width$}", width = canvas.saturating_sub(1));
    let head = format!("{:<column$}  {:>9}{:>9}  {scale}", "phase", "start", "took");
    let _ = writeln!(text, "\n{}", style.paint(FAINT, &head));
    for (phase, name) in report.phases.iter().zip(&names) {
        let bar = bar(phase, whole, canvas, style);
        let _ = writeln!(
            text,
            "{name:<column$}  {:>9}{:>9}  {bar}",
            span(phase.start),
            span(phase.milliseconds)
        );
    }
    for (title, lines) in [("decisions", decisions(report)), ("notes", report.notes.clone())] {
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}", style.paint(FAINT, title));
        for line in lines {
            wrap(&mut text, 2, &line, width);
        }
    }
    text
}

fn headline(report: &BootReport, style: Style) -> String {
    let width = style.width.clamp(NARROWEST, WIDEST);
    let who = match &report.node {
        Some(node) => format!("{} {} in {}: ", node.roles, node.name, node.datacenter),
        None => String::new(),
    };
    let changes = match report.changes {
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    };
    let took = span(report.milliseconds);
    let mut text = String::new();
    match &report.outcome {
        Outcome::Done => {
            wrap(&mut text, 0, &format!("{who}done in {took}, {changes}"), width);
            text = text.replacen("done", &style.paint(GREEN, "done"), 1);
        }
        Outcome::Failed { reason, hint } => {
            wrap(&mut text, 0, &format!("{who}failed after {took}"), width);
            text = text.replacen("failed", &style.paint(RED, "failed"), 1);
            wrap(&mut text, 2, reason, width);
            if let Some(hint) = hint {
                wrap(&mut text, 2, &format!("hint: {hint}"), width);
            }
        }
    }
    let _ = match report.since_kernel {
        Some(since) => writeln!(text, "began {}, {} after the kernel", report.began, span(since)),
        None => writeln!(text, "began {}", report.began),
    };
    text
}

fn name(phase: &Phase) -> String {
    let mut name: String = phase.name.chars().take(LONGEST_NAME).collect();
    let _ = match phase.retries {
        0 => Ok(()),
        1 => write!(name, ", 1 retry"),
        many => write!(name, ", {many} retries"),
    };
    if phase.failed {
        name.push_str(", failed");
    }
    name
}

fn decisions(report: &BootReport) -> Vec<String> {
    let line = |decision: &super::timeline::Decision| {
        format!("{}: {}, {}", decision.subject, decision.choice, decision.reason)
    };
    report.decisions.iter().map(line).collect()
}

/// A bar to scale. What is too short for a column gets a thin mark, so that nothing is missing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "columns of a terminal: small numbers, clamped to the canvas"
)]
fn bar(phase: &Phase, whole: f64, canvas: usize, style: Style) -> String {
    if canvas == 0 || whole <= 0.0 {
        return String::new();
    }
    let columns = canvas as f64 / whole;
    let first = ((phase.start * columns).round() as usize).min(canvas - 1);
    let last = ((phase.start + phase.milliseconds) * columns).round() as usize;
    let (full, thin) = if style.unicode {
        ("\u{2588}", "\u{258f}")
    } else {
        ("#", "|")
    };
    let drawn = if last <= first {
        thin.to_owned()
    } else {
        full.repeat(last.min(canvas) - first)
    };
    let colour = if phase.failed { RED } else { CYAN };
    format!("{}{}", " ".repeat(first), style.paint(colour, &drawn))
}

/// Milliseconds, in the unit that a reader has a feeling for.
fn span(milliseconds: f64) -> String {
    match milliseconds {
        small if small < 9.95 => format!("{small:.1} ms"),
        medium if medium < 999.5 => format!("{medium:.0} ms"),
        seconds if seconds < 99_950.0 => format!("{:.2} s", seconds / 1000.0),
        long => format!("{:.0} s", long / 1000.0),
    }
}

/// One line, broken between words, with so many columns before it, and two more before its later parts.
fn wrap(text: &mut String, indent: usize, line: &str, width: usize) {
    let mut column = indent;
    text.push_str(&" ".repeat(indent));
    let mut first = true;
    for word in line.split_whitespace() {
        let length = word.chars().count();
        if !first && column + 1 + length > width {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            column = indent + 2;
        } else if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        first = false;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::boot::NodeName;
    use super::super::timeline::Decision;
    use super::*;

    fn phase(name: &str, start: f64, milliseconds: f64) -> Phase {
        Phase {
            name: name.to_owned(),
            start,
            milliseconds,
            retries: 0,
            failed: false,
        }
    }

    fn report() -> BootReport {
        BootReport {
            version: 1,
            began: "2026-11-25T01:36:29.123Z".to_owned(),
            since_kernel: Some(8210.0),
            milliseconds: 4000.0,
            node: Some(NodeName {
                roles: "nomad-client".to_owned(),
                name: "i-0123456789abcdef0".to_owned(),
                datacenter: "private-services".to_owned(),
            }),
            outcome: Outcome::Done,
            changes: 12,
            phases: vec![
                phase("imds", 0.0, 12.34),
                Phase {
                    retries: 9,
                    ..phase("consul", 40.0, 1000.0)
                },
                phase("docker", 40.0, 2000.0),
                phase("nomad", 2040.0, 1960.0),
            ],
            decisions: vec![Decision {
                subject: "dns".to_owned(),
                choice: "systemd-resolved".to_owned(),
                reason: "because it runs and this version (252) knows ports in DNS=".to_owned(),
            }],
            notes: Vec::new(),
        }
    }

    const PLAIN: Style = Style {
        width: 80,
        colour: false,
        unicode: false,
    };

    #[test]
    fn eighty_columns_of_plain_text() {
        let expected = "\
nomad-client i-0123456789abcdef0 in private-services: done in 4.00 s, 12 changes
began 2026-11-25T01:36:29.123Z, 8.21 s after the kernel

phase                  start     took  0                                  4.00 s
imds                  0.0 ms    12 ms  |
consul, 9 retries      40 ms   1.00 s  ###########
docker                 40 ms   2.00 s  #####################
nomad                 2.04 s   1.96 s                       ####################

decisions
  dns: systemd-resolved, because it runs and this version (252) knows ports in
    DNS=
";
        assert_eq!(waterfall(&report(), PLAIN), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_escape_is_written_without_colour() {
        let mut long = report();
        long.phases.push(phase(&"x".repeat(300), 3999.9, 400.0));
        long.notes = vec!["a note of many words ".repeat(20)];
        for width in [60, 80, 100, 132, 200] {
            let text = waterfall(&long, Style { width, ..PLAIN });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.is_ascii() && !text.contains('\x1b'));
        }
    }

    #[test]
    fn a_failure_says_why_and_colours_are_closed() {
        let mut failed = report();
        failed.node = None;
        failed.outcome = Outcome::Failed {
            reason: "docker failed".to_owned(),
            hint: Some("journalctl --unit docker".to_owned()),
        };
        failed.phases[2].failed = true;
        let style = Style {
            width: 100,
            colour: true,
            unicode: true,
        };
        let text = waterfall(&failed, style);
        assert!(
            text.contains("  docker failed\n  hint: journalctl --unit docker\n"),
            "{text}"
        );
        assert!(text.contains("docker, failed"), "{text}");
        assert_eq!(text.matches("\x1b[0m").count() * 2, text.matches('\x1b').count());
    }
}
