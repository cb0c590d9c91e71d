//! Owns the ledger: every resource that a bake made, on disk before it is waited for.
//! Touches one folder of files, one file a bake, JSON lines that are only appended to and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cloud::{InstanceId, Resource};

/// The ledger cannot be written or read.
#[derive(Debug, Error)]
#[error("could not {action} the ledger {}", path.display())]
pub struct LedgerError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// Which file or folder.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// The action that fails on a ledger with bad lines.
pub(crate) const UNDERSTAND: &str = "understand";

/// Who bakes, where: the first line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Id of the bake, the value of the tag `cos:bake-id`.
    pub bake_id: String,
    /// Account that its resources are in: with other credentials they do not show, which is not to be gone.
    pub account: String,
    /// Region that its resources are in.
    pub region: String,
    /// Process that bakes.
    pub process: u32,
    /// Start of that process in clock ticks since boot, so that a reused number is not taken for it.
    pub process_start: u64,
    /// Name of the image to be.
    pub image_name: String,
    /// When it began, RFC 3339.
    pub started_at: String,
}

/// One line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// The bake began.
    Begin(Begin),
    /// A create is about to be asked for: if nothing follows, its reply was lost and only tags tell.
    Intent {
        /// What is about to be made.
        what: String,
    },
    /// A resource exists.
    Created {
        /// Which.
        resource: Resource,
    },
    /// A resource is gone.
    Released {
        /// Which.
        resource: Resource,
    },
    /// A resource goes when an instance goes.
    HandedOver {
        /// Which.
        resource: Resource,
        /// The instance that it is attached to.
        instance: InstanceId,
    },
    /// A resource stays: it is the bake's product.
    Kept {
        /// Which.
        resource: Resource,
    },
    /// The bake is over and nothing of it is left but what was kept.
    End,
}

/// The open ledger of one bake.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    live: Vec<Resource>,
    /// A write failed, maybe half-way.
    torn: bool,
}

impl Ledger {
    /// Opens a new ledger in `folder` and writes its first line.
    pub fn begin(folder: &Path, begin: Begin) -> Result<Self, LedgerError> {
        let path = folder.join(format!("{}.jsonl", begin.bake_id));
        fs::create_dir_all(folder).map_err(failed("make the folder of", folder))?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut ledger = Self {
            path,
            file,
            live: Vec::new(),
            torn: false,
        };
        ledger.write(&Entry::Begin(begin))?;
        // The name must survive a crash as well as the content.
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync the folder of", folder))?;
        Ok(ledger)
    }

    /// Opens the ledger of an earlier bake to go on with it.
    pub fn reopen(path: &Path) -> Result<(Self, Begin), LedgerError> {
        let record = Record::read(path)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(failed("open", path))?;
        let ledger = Self {
            path: path.to_owned(),
            file,
            live: record.live,
            torn: false,
        };
        ledger.mend()?;
        Ok((ledger, record.begin))
    }

    /// Drops a line that was cut off, by a crash or a full disk: it would spoil the next one.
    fn mend(&self) -> Result<(), LedgerError> {
        let content = fs::read(&self.path).map_err(failed("read", &self.path))?;
        let whole = content
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        self.file
            .set_len(whole as u64)
            .map_err(failed("mend", &self.path))
    }

    /// Says that a create is about to be asked for.
    pub fn intend(&mut self, what: &str) -> Result<(), LedgerError> {
        self.write(&Entry::Intent {
            what: what.to_owned(),
        })
    }

    /// Records a resource that exists now.
    pub fn created(&mut self, resource: Resource) -> Result<(), LedgerError> {
        // In memory first: should the disk be full, cleanup still knows of it.
        self.live.push(resource.clone());
        self.write(&Entry::Created { resource })
    }

    /// Records that a resource is gone.
    pub fn released(&mut self, resource: &Resource) -> Result<(), LedgerError> {
        self.live.retain(|live| live != resource);
        self.write(&Entry::Released {
            resource: resource.clone(),
        })
    }

    /// Records that a resource goes when `instance` goes, without more to be done.
    pub fn handed_over(&mut self, resource: &Resource, instance: &InstanceId) -> Result<(), LedgerError> {
        self.live.retain(|live| live != resource);
        self.write(&Entry::HandedOver {
            resource: resource.clone(),
            instance: instance.clone(),
        })
    }

    /// Records that a resource stays.
    pub fn kept(&mut self, resource: &Resource) -> Result<(), LedgerError> {
        self.live.retain(|live| live != resource);
        self.write(&Entry::Kept {
            resource: resource.clone(),
        })
    }

    /// Records that the bake is over.
    pub fn end(&mut self) -> Result<(), LedgerError> {
        self.write(&Entry::End)
    }

    /// What exists now and is no product, oldest first.
    pub fn live(&self) -> &[Resource] {
        &self.live
    }

    fn write(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let mut line = serde_json::to_vec(entry)
            .map_err(io::Error::from)
            .map_err(failed("encode a line of", &self.path))?;
        line.push(b'\n');
        if self.torn {
            self.mend()?;
        }
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        self.torn = written.is_err();
        written.map_err(failed("write to", &self.path))
    }
}

/// A ledger as it was found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its file.
    pub path: PathBuf,
    /// Who bakes, where.
    pub begin: Begin,
    /// What exists and is no product, oldest first.
    pub live: Vec<Resource>,
    /// What stays.
    pub kept: Vec<Resource>,
    /// Whether the bake said that it is over.
    pub ended: bool,
}

impl Record {
    /// Reads one ledger. A last line that a crash cut off is left out; any other bad line is an error.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let lines = BufReader::new(file)
            .lines()
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed("read", path))?;
        let mut begin = None;
        let (mut live, mut kept, mut ended) = (Vec::new(), Vec::new(), false);
        for (number, line) in lines.iter().enumerate() {
            let entry = match serde_json::from_str(line) {
                Ok(entry) => entry,
                Err(_) if number + 1 == lines.len() => break,
                Err(error) => {
                    let message = format!("line {}: {error}", number + 1);
                    return Err(failed(UNDERSTAND, path)(io::Error::other(message)));
                }
            };
            match entry {
                Entry::Begin(first) => begin = Some(first),
                Entry::Intent { .. } => {}
                Entry::Created { resource } => live.push(resource),
                Entry::Released { resource } | Entry::HandedOver { resource, .. } => {
                    live.retain(|other| *other != resource);
                }
                Entry::Kept { resource } => {
                    live.retain(|other| *other != resource);
                    kept.push(resource);
                }
                Entry::End => ended = true,
            }
        }
        let begin =
            begin.ok_or_else(|| failed(UNDERSTAND, path)(io::Error::other("it has no first line")))?;
        Ok(Self {
            path: path.to_owned(),
            begin,
            live,
            kept,
            ended,
        })
    }

    /// Reads all ledgers in a folder, oldest name first. No folder is no ledgers.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, LedgerError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list the folder of", folder)(error)),
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed("list the folder of", folder))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        paths.sort();
        let mut records = Vec::new();
        for path in &paths {
            // A bake that was killed before its first line was whole has made nothing.
            let content = fs::read(path).map_err(failed("read", path))?;
            if content.contains(&b'\n') {
                records.push(Self::read(path)?);
            }
        }
        Ok(records)
    }

    /// Whether the process that wrote it still runs on this machine.
    pub fn is_running(&self) -> bool {
        process_start(self.begin.process) == Some(self.begin.process_start)
    }
}

/// Start of a process in clock ticks since boot (field 22 of `/proc/PID/stat`, see proc(5)); none if it does not run.
pub fn process_start(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        None
    } else {
        fields.nth(18)?.parse().ok()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError { action, path, source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn begin(bake_id: &str) -> Begin {
        Begin {
            bake_id: bake_id.into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            process: std::process::id(),
            process_start: process_start(std::process::id()).unwrap(),
            image_name: "image".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
        }
    }

    /// A ledger that takes no more lines, as on a disk that is full.
    pub(crate) fn unwritable(folder: &Path, bake_id: &str) -> Ledger {
        let mut ledger = Ledger::begin(folder, begin(bake_id)).unwrap();
        ledger.file = File::open(&ledger.path).unwrap();
        ledger
    }

    #[test]
    fn what_was_written_is_read_back_without_a_cut_off_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::begin(folder.path(), begin("cos-a")).unwrap();
        let instance = Resource::Instance("i-1".into());
        let image = Resource::Image("ami-1".into());
        ledger.created(instance.clone()).unwrap();
        ledger.created(image.clone()).unwrap();
        ledger.kept(&image).unwrap();
        ledger.file.write_all(b"{\"entry\":\"rel").unwrap();
        let records = Record::read_all(folder.path()).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].live, [instance]);
        assert_eq!(records[0].kept, [image]);
        assert!(records[0].is_running() && !records[0].ended);
    }

    #[test]
    fn a_cut_off_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::begin(folder.path(), begin("cos-a")).unwrap();
        ledger.file.write_all(b"{\"entry\":\"rel").unwrap();
        let (mut again, _) = Ledger::reopen(&ledger.path).unwrap();
        again.end().unwrap();
        assert!(Record::read(&ledger.path).unwrap().ended);
    }

    #[test]
    fn a_write_that_failed_half_way_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::begin(folder.path(), begin("cos-a")).unwrap();
        let instance = Resource::Instance("i-1".into());
        ledger.file.write_all(b"{\"entry\":\"cre").unwrap();
        let read_only = File::open(&ledger.path).unwrap();
        let file = std::mem::replace(&mut ledger.file, read_only);
        ledger.created(instance.clone()).unwrap_err();
        ledger.file = file;
        ledger.released(&instance).unwrap();
        ledger.end().unwrap();
        let record = Record::read(&ledger.path).unwrap();
        assert!(record.ended && record.live.is_empty());
    }

    #[test]
    fn a_first_line_that_was_cut_off_is_no_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::begin(folder.path(), begin("cos-b")).unwrap();
        fs::write(folder.path().join("cos-a.jsonl"), b"{\"entry\":\"beg").unwrap();
        fs::write(folder.path().join("cos-c.jsonl"), b"").unwrap();
        let records = Record::read_all(folder.path()).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].path, ledger.path);
    }

    #[test]
    fn a_bad_line_in_the_middle_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::begin(folder.path(), begin("cos-a")).unwrap();
        ledger.file.write_all(b"nonsense\n").unwrap();
        ledger.end().unwrap();
        assert!(
            Record::read_all(folder.path())
                .unwrap_err()
                .source
                .to_string()
                .starts_with("line 2")
        );
    }

    #[test]
    fn a_process_number_that_was_reused_is_not_the_same_process() {
        let mut record_begin = begin("cos-a");
        record_begin.process_start += 1;
        let record = Record {
            path: PathBuf::new(),
            begin: record_begin,
            live: vec![],
            kept: vec![],
            ended: false,
        };
        assert!(!record.is_running());
    }
}
