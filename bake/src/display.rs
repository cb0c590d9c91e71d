//! Owns the words on the terminal: events as lines on standard error, data on standard output, the error chain once.
//! Touches standard output and standard error; nothing else in the crate may.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::BakeError;
use crate::events::{Event, Events, Stage};

/// Least time between two lines of progress of one stage.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);

/// Events that become lines on standard error, each with the seconds since now.
pub fn on_standard_error() -> Events {
    let start = Instant::now();
    let last_progress: Mutex<Option<(Stage, Instant)>> = Mutex::new(None);
    Events::new(move |event| {
        if let Event::Progress {
            stage, done, total, ..
        } = event
        {
            let Ok(mut last) = last_progress.lock() else {
                return;
            };
            let recent = last.is_some_and(|(seen, at)| seen == stage && at.elapsed() < PROGRESS_PAUSE);
            if recent && done < total {
                return;
            }
            *last = Some((stage, Instant::now()));
        }
        let text = format!("{:>7.1}s  {}\n", start.elapsed().as_secs_f64(), line(&event));
        // Nobody may be listening; a bake does not fail for that.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    })
}

/// One event as a line.
fn line(event: &Event) -> String {
    match event {
        Event::StageStarted { stage } => format!("{:<10} started", stage.name()),
        Event::StageFinished {
            stage,
            seconds,
            outcome,
        } => {
            format!("{:<10} done in {seconds:.1} s: {outcome}", stage.name())
        }
        Event::Progress {
            stage,
            unit,
            done,
            total,
        } => {
            let percent = (done * 100).checked_div(*total).unwrap_or(100);
            format!("{:<10} {done} of {total} {unit} ({percent} %)", stage.name())
        }
        Event::Note { message } => message.clone(),
        Event::Warning { message } => format!("warning: {message}"),
        Event::Created { resource } => format!("{:<10} + {resource}", ""),
        Event::Released { resource } => format!("{:<10} - {resource}", ""),
        Event::Leftover { resource, reason } => format!("{:<10} ! {resource} is left: {reason}", ""),
    }
}

/// Prints data on standard output. A reader that went away is no failure.
pub fn data(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stdout.write_all(b"\n");
    }
    let _ = stdout.flush();
}

/// Prints a line of talk on standard error.
pub fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints an error with its causes and its hint, once.
pub fn failure(error: &BakeError) {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(source) = cause {
        let _ = writeln!(text, "  because: {source}");
        cause = source.source();
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {hint}");
    }
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
