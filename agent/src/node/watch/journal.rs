//! Owns the watcher's memory: what was told, when it was first seen, how far the node has come.
//! Touches one small file that survives a reboot, and markers beside it.

use serde::{Deserialize, Serialize};

use super::cause::{Notices, Seen};
use super::notice::{self, Request};
use super::progress::Progress;
use crate::host::{FileError, Files};

/// The journal.
pub const JOURNAL: &str = "/var/lib/cos-agent/watch.json";
/// What an operator asked for; it outlives a reboot.
pub const REQUEST: &str = "/var/lib/cos-agent/request.json";
/// There while the node has yet to prove that it is ready. One that reboots meanwhile has yet to.
pub const ARRIVING: &str = "/var/lib/cos-agent/arriving";

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const VERSION: u32 = 1;

/// All that the watcher remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this document.
    pub version: u32,
    /// The boot in which it was written.
    pub boot: String,
    /// The last word of each source.
    pub notices: Notices,
    /// When each cause was first seen.
    pub seen: Seen,
    /// How far the node has come.
    pub progress: Progress,
}

impl State {
    /// The same in another boot: what went down with the machine is no more, and what the cluster remembers of the
    /// node is as it was.
    fn in_boot(mut self, boot: &str) -> Self {
        self.version = VERSION;
        if self.boot == boot {
            return self;
        }
        boot.clone_into(&mut self.boot);
        self.notices.shutdown = None;
        self.notices.arriving = false;
        let before = std::mem::take(&mut self.progress);
        self.progress = Progress {
            eligible_before: before.eligible_before,
            out: before.out,
            maintenance: before.maintenance,
            drain: before.drain,
            ..Progress::default()
        };
        self
    }
}

/// The journal of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Journal<'a> {
    files: &'a Files,
}

impl<'a> Journal<'a> {
    /// The journal of the machine with these files.
    pub fn new(files: &'a Files) -> Self {
        Self { files }
    }

    /// What is remembered, and what is wrong with it: a journal that cannot be read is as good as none.
    pub fn load(&self) -> Result<(State, Option<String>), FileError> {
        let boot = self.files.read(BOOT)?.unwrap_or_default();
        let boot = String::from_utf8_lossy(&boot).trim().to_owned();
        let (state, fault) = match self.files.read(JOURNAL)? {
            None => (State::default(), None),
            Some(content) => match serde_json::from_slice::<State>(&content) {
                Ok(state) if state.version == VERSION => (state, None),
                Ok(state) => (
                    State::default(),
                    Some(format!("{JOURNAL} has version {}, not {VERSION}", state.version)),
                ),
                Err(error) => (
                    State::default(),
                    Some(format!("{JOURNAL} is not readable: {error}")),
                ),
            },
        };
        Ok((state.in_boot(&boot), fault))
    }

    /// Remembers.
    pub fn store(&self, state: &State) -> Result<(), FileError> {
        let content = serde_json::to_vec(state).unwrap_or_default();
        self.files.write_atomic(JOURNAL, &content, 0o600)
    }

    /// What an operator asked for; an error if it cannot be read.
    pub fn request(&self) -> Result<Option<Request>, String> {
        match self.files.read(REQUEST) {
            Ok(None) => Ok(None),
            Ok(Some(content)) => notice::read_request(&content)
                .map(Some)
                .map_err(|error| format!("{REQUEST} is not readable: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes down what an operator asks for.
    pub fn ask(&self, request: &Request) -> Result<(), FileError> {
        let content = serde_json::to_vec(request).unwrap_or_default();
        self.files.write_atomic(REQUEST, &content, 0o600)
    }

    /// Forgets what an operator asked for.
    pub fn withdraw(&self) -> Result<(), FileError> {
        self.files.remove(REQUEST)
    }

    /// Whether the node has yet to prove that it is ready.
    pub fn is_arriving(&self) -> Result<bool, FileError> {
        Ok(self.files.mode(ARRIVING)?.is_some())
    }

    /// Marks the node as one that has yet to prove that it is ready, or no longer.
    pub fn set_arriving(&self, arriving: bool) -> Result<(), FileError> {
        if arriving {
            self.files.write_atomic(ARRIVING, b"", 0o644)
        } else {
            self.files.remove(ARRIVING)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::{Away, Membership, Out};
    use super::super::time::Timestamp;
    use super::*;

    fn machine(boot: &str) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write_atomic(BOOT, boot.as_bytes(), 0o444).unwrap();
        (root, files)
    }

    #[test]
    fn a_reboot_forgets_what_went_down_and_keeps_what_the_cluster_remembers() {
        let (_root, files) = machine("boot-1\n");
        let journal = Journal::new(&files);
        let (mut state, fault) = journal.load().unwrap();
        assert_eq!((state.boot.as_str(), fault), ("boot-1", None));
        state.notices.shutdown = Some(super::super::notice::Shutdown::PowerOff);
        state.progress.eligible_before = Some(true);
        state.progress.out = Out::Yes;
        state.progress.away = Some(Away::Complete);
        state.progress.nomad = Membership::Left;
        state.progress.signalled = Some(Timestamp::from_millis(1));
        journal.store(&state).unwrap();
        assert_eq!(journal.load().unwrap(), (state.clone(), None));
        files.write_atomic(BOOT, b"boot-2\n", 0o444).unwrap();
        let (after, _) = journal.load().unwrap();
        assert_eq!(after.notices.shutdown, None);
        let expected = Progress {
            eligible_before: Some(true),
            out: Out::Yes,
            ..Progress::default()
        };
        assert_eq!(after.progress, expected);
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_told_and_is_as_good_as_none() {
        let (_root, files) = machine("b");
        let journal = Journal::new(&files);
        for (content, part) in [(&b"{\"version\":1"[..], "not readable"), (b"", "not readable")] {
            files.write_atomic(JOURNAL, content, 0o600).unwrap();
            let (state, fault) = journal.load().unwrap();
            assert!(fault.unwrap().contains(part));
            assert_eq!(state.progress, Progress::default());
        }
        let newer = State {
            version: 2,
            ..State::default()
        };
        journal.store(&newer).unwrap();
        assert!(journal.load().unwrap().1.unwrap().contains("version 2"));
        assert_eq!(files.mode(JOURNAL).unwrap(), Some(0o600));
    }
}
