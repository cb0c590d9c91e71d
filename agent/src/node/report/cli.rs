//! Owns the arguments of `report`, and how wide and how colourful it is.
//! Touches the two streams it is given, and asks the terminal for its width.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::boot::BootReport;
use super::waterfall::{Style, waterfall};
use crate::host::Files;
use crate::node::NodeError;

/// Show what the last `apply` did, and how long each part of it took.
#[derive(Debug, Clone, Args)]
pub struct ReportArguments {
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// Columns; those of the terminal, or 80, if absent.
    #[arg(long, value_name = "COLUMNS")]
    pub width: Option<usize>,
    /// Print the report as it is kept, as one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl ReportArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, _talk: &mut dyn Write) -> Result<(), NodeError> {
        let report = BootReport::read(&Files::new(&self.root))?.ok_or(NodeError::NeverApplied)?;
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
            return Ok(writeln!(out)?);
        }
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let environment = |name: &str| std::env::var(name).unwrap_or_default();
        let columns = || rustix::termios::tcgetwinsize(&stdout).map(|size| usize::from(size.ws_col));
        let style = Style {
            width: self
                .width
                .or_else(|| columns().ok().filter(|columns| *columns > 0))
                .unwrap_or(80),
            colour: terminal && environment("NO_COLOR").is_empty() && environment("TERM") != "dumb",
            unicode: shows_unicode(environment),
        };
        Ok(out.write_all(waterfall(&report, style).as_bytes())?)
    }
}

/// By the first of these variables that says something, as the C library does it.
fn shows_unicode(environment: impl Fn(&str) -> String) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(environment);
    let locale = locale.iter().find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let said = |lc_all: &'static str, lang: &'static str| {
            shows_unicode(move |name| match name {
                "LC_ALL" => lc_all.to_owned(),
                "LANG" => lang.to_owned(),
                _ => String::new(),
            })
        };
        assert!(said("", "en_US.UTF-8") && said("C.utf8", "C"));
        assert!(!said("C", "en_US.UTF-8") && !said("", "") && !said("", "POSIX"));
    }
}
