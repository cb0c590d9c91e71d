//! Owns where `apply` says what it says, besides standard error: a file and the console, which EC2's system log shows.
//! Touches these two. Nothing secret is said, so that nothing secret is written.

use std::fs::File;
use std::io::{self, Write};
use std::time::SystemTime;

use super::config::{AbsolutePath, LogConfig};
use crate::host::Files;

/// Where everything that a boot says has always been on a node of COS.
pub(super) const DEFAULT_FILE: &str = "/var/log/user-data.log";
/// The console of the machine.
pub(super) const CONSOLE: &str = "/dev/console";
/// What is said may tell of addresses and names: not for every user of the machine.
const MODE: u32 = 0o640;

/// Which of the two are written where the configuration leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defaults {
    /// Both.
    Both,
    /// Neither.
    Neither,
}

/// Passes on what is said, line by line, and keeps what is said before it is known where it goes.
pub(super) struct Log<'a> {
    talk: &'a mut dyn Write,
    sinks: Sinks,
    /// The last line, as far as it is there.
    line: Vec<u8>,
}

enum Sinks {
    /// Not known yet: lines so far.
    Kept(Vec<String>),
    Open(Vec<File>),
}

impl<'a> Log<'a> {
    /// A log that passes on to `talk` and keeps the rest until [`Log::open`].
    pub(super) fn new(talk: &'a mut dyn Write) -> Self {
        Self {
            talk,
            sinks: Sinks::Kept(Vec::new()),
            line: Vec::new(),
        }
    }

    /// Opens file and console, and writes to them what was said so far. A node does its work without a log: what
    /// cannot be opened is told, and that is all.
    pub(super) fn open(&mut self, files: &Files, config: &LogConfig, defaults: Defaults) {
        let both = defaults == Defaults::Both;
        let mut open = Vec::new();
        let path = config.file.as_ref().map(AbsolutePath::as_str);
        if let Some(path) = path.or(both.then_some(DEFAULT_FILE)) {
            match files.open_to_append(path, MODE) {
                Ok(file) => open.push(file),
                Err(error) => self.tell(&error),
            }
        }
        if config.console.unwrap_or(both) {
            match files.open_terminal(CONSOLE) {
                Ok(console) => open.extend(console),
                Err(error) => self.tell(&error),
            }
        }
        let kept = match std::mem::replace(&mut self.sinks, Sinks::Open(open)) {
            Sinks::Kept(lines) => lines,
            Sinks::Open(_) => Vec::new(),
        };
        for line in kept {
            self.note(&line);
        }
    }

    /// Writes to file and console what standard error hears in another way.
    pub(super) fn note(&mut self, text: &str) {
        match &mut self.sinks {
            Sinks::Kept(lines) => lines.extend(text.lines().map(str::to_owned)),
            Sinks::Open(files) => {
                let time = humantime::format_rfc3339_seconds(SystemTime::now());
                for line in text.lines() {
                    let line = format!("{time} cos-agent: {line}\n");
                    for file in &mut *files {
                        // A full disk or a console that nobody reads must not stop a node.
                        let _ = file.write_all(line.as_bytes());
                    }
                }
            }
        }
    }

    fn tell(&mut self, error: &dyn std::error::Error) {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(self.talk, "note: {error}: {cause}");
    }
}

impl Write for Log<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.talk.write(bytes)?;
        self.line.extend_from_slice(&bytes[..written]);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.note(&String::from_utf8_lossy(&line));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.talk.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(files: &Files, path: &str) -> Vec<String> {
        let content = String::from_utf8(files.read(path).unwrap().unwrap_or_default()).unwrap();
        // Each begins with the time.
        let line = |line: &str| line.split_once(' ').unwrap().1.to_owned();
        content.lines().map(line).collect()
    }

    #[test]
    fn all_that_is_said_goes_to_file_and_console_also_what_came_before() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files
            .write_atomic(DEFAULT_FILE, b"2026-01-01T00:00:00Z before\n", 0o644)
            .unwrap();
        files.write_atomic(CONSOLE, b"", 0o600).unwrap();
        let mut talk = Vec::new();
        let mut log = Log::new(&mut talk);
        write!(log, "early ").unwrap();
        writeln!(log, "words").unwrap();
        log.note("two\nlines");
        log.open(&files, &LogConfig::default(), Defaults::Both);
        writeln!(log, "late words").unwrap();
        log.note("the end");
        assert_eq!(String::from_utf8(talk).unwrap(), "early words\nlate words\n");
        let expected =
            ["early words", "two", "lines", "late words", "the end"].map(|line| format!("cos-agent: {line}"));
        assert_eq!(lines(&files, CONSOLE), expected);
        assert_eq!(lines(&files, DEFAULT_FILE)[0], "before");
        assert_eq!(lines(&files, DEFAULT_FILE)[1..], expected);
        assert_eq!(files.mode(DEFAULT_FILE).unwrap(), Some(0o640));
        assert_eq!(files.mode(CONSOLE).unwrap(), Some(0o600));
    }

    #[test]
    fn the_configuration_says_where() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let config = LogConfig {
            file: Some(AbsolutePath::new("/var/log/mine.log").unwrap()),
            console: Some(false),
        };
        files.write_atomic(CONSOLE, b"", 0o600).unwrap();
        let mut talk = Vec::new();
        let mut log = Log::new(&mut talk);
        log.open(&files, &config, Defaults::Neither);
        writeln!(log, "words").unwrap();
        assert_eq!(lines(&files, "/var/log/mine.log"), ["cos-agent: words"]);
        assert_eq!(files.read(CONSOLE).unwrap().unwrap(), b"");
        let mut log = Log::new(&mut talk);
        log.open(&files, &LogConfig::default(), Defaults::Neither);
        writeln!(log, "words").unwrap();
        assert_eq!(files.read(DEFAULT_FILE).unwrap(), None);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_told_and_stops_nothing() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.make_directory(DEFAULT_FILE, 0o755).unwrap();
        let mut talk = Vec::new();
        let mut log = Log::new(&mut talk);
        // No console there: nobody reads it.
        log.open(&files, &LogConfig::default(), Defaults::Both);
        writeln!(log, "words").unwrap();
        let talk = String::from_utf8(talk).unwrap();
        assert!(talk.starts_with("note: could not open "), "{talk}");
        assert!(talk.ends_with("directory (os error 21)\nwords\n"), "{talk}");
    }
}
