//! Owns the logins that are kept between two pulls: one small file each, private, in a folder in memory.
//! Touches that folder.
//!
//! A file's name holds who asked (the environment's key, or simply the instance's role), not the role's access key:
//! that one changes every few hours, and the logins that it got hold on.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::aws::{AuthorizationToken, Secret};
use crate::host::{FileError, FileLock, Files};

/// A login, and when it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) user: String,
    pub(super) password: Secret,
    /// The registry that the service named with it, as a URL.
    pub(super) registry: Option<String>,
    pub(super) received: SystemTime,
    pub(super) expires: SystemTime,
}

/// What may be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Use it.
    Fresh,
    /// Use it, but get a new one.
    Stale,
    /// Do not use it.
    Ended,
}

/// A pull that begins with a login goes on for a while: one with less time left than this is not given out.
const MARGIN: Duration = Duration::from_mins(1);

/// A clock that went back by more than this says that nothing is known about the age of an entry.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

impl Entry {
    /// A login that was given now.
    pub(super) fn new(token: AuthorizationToken, now: SystemTime) -> Self {
        Self {
            user: token.user,
            password: token.password,
            registry: token.registry,
            received: now,
            expires: token.expires,
        }
    }

    /// Half of its life it is fresh, as AWS's own helper has it.
    pub(super) fn age(&self, now: SystemTime) -> Age {
        let Ok(life) = self.expires.duration_since(self.received) else {
            return Age::Ended;
        };
        if now + MARGIN >= self.expires {
            Age::Ended
        } else if now >= self.received + life / 2 || now + CLOCK_TOLERANCE < self.received {
            Age::Stale
        } else {
            Age::Fresh
        }
    }
}

/// The last time that no login was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    /// What was said, in one line.
    pub(super) reason: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

impl Failure {
    /// Whether it happened at `time` or after it.
    pub(super) fn is_since(&self, time: SystemTime) -> bool {
        self.at >= milliseconds(time)
    }
}

/// An entry on disk; times in milliseconds since 1970.
#[derive(Serialize, Deserialize)]
struct Written<T> {
    user: String,
    password: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<String>,
    received: u64,
    expires: u64,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    files: Files,
    folder: PathBuf,
}

impl Cache {
    /// The cache in a folder, which need not exist.
    pub(super) fn new(files: Files, folder: PathBuf) -> Self {
        Self { files, folder }
    }

    /// Makes the folder if need be. An error says why nothing can be kept.
    pub(super) fn prepare(&self) -> Result<(), String> {
        let told = |error: FileError| format!("{error}: {}", error.source);
        if self.files.mode(&self.folder).map_err(told)?.is_none() {
            if let Some(parent) = self.folder.parent()
                && self.files.mode(parent).map_err(told)?.is_none()
            {
                self.files.make_directory(parent, 0o755).map_err(told)?;
            }
            self.files.make_directory(&self.folder, 0o700).map_err(told)?;
        }
        if self.is_private() {
            return Ok(());
        }
        Err(format!(
            "{} is not a folder that belongs to this user alone (mode 0700)",
            self.folder.display()
        ))
    }

    /// Whether nobody else can put entries there: the folder is this user's or root's, and closed to writers.
    fn is_private(&self) -> bool {
        let owner = self.files.owner(&self.folder).ok().flatten();
        let mode = self.files.mode(&self.folder).ok().flatten();
        let this = nix::unistd::geteuid().as_raw();
        // A link has mode 0777.
        owner.is_some_and(|(user, _)| user == this || user == 0) && mode.is_some_and(|mode| mode & 0o022 == 0)
    }

    /// The entry of a key. One that cannot be read, whatever the reason, is none: a new one will replace it.
    pub(super) fn read(&self, key: &str) -> Option<Entry> {
        if !self.is_private() {
            return None;
        }
        let content = self.files.read(self.path(key, "json")).ok()??;
        entry(&zeroize::Zeroizing::new(content))
    }

    /// Keeps an entry, and forgets the last failure.
    pub(super) fn write(&self, key: &str, entry: &Entry) -> Result<(), FileError> {
        let written = Written {
            user: entry.user.clone(),
            password: entry.password.expose(),
            registry: entry.registry.clone(),
            received: milliseconds(entry.received),
            expires: milliseconds(entry.expires),
        };
        let content = zeroize::Zeroizing::new(serde_json::to_vec(&written).unwrap_or_default());
        self.files.write_atomic(self.path(key, "json"), &content, 0o600)?;
        self.files.remove(self.path(key, "failure"))
    }

    /// Forgets the entry of a key.
    pub(super) fn erase(&self, key: &str) -> Result<(), FileError> {
        self.files.remove(self.path(key, "json"))
    }

    /// All entries.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let names = self.files.entries(&self.folder).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.strip_suffix(".json"))
            .filter_map(|key| self.read(key))
            .collect()
    }

    /// The last failure of a key.
    pub(super) fn failure(&self, key: &str) -> Option<Failure> {
        let content = self.files.read(self.path(key, "failure")).ok()??;
        serde_json::from_slice(&content).ok()
    }

    /// Keeps a failure, for those who wait for the same answer.
    pub(super) fn fail(&self, key: &str, reason: String, hint: Option<String>) -> Result<(), FileError> {
        let failure = Failure {
            at: milliseconds(SystemTime::now()),
            reason,
            hint,
        };
        let content = serde_json::to_vec(&failure).unwrap_or_default();
        self.files
            .write_atomic(self.path(key, "failure"), &content, 0o600)
    }

    /// The right to ask for a key's login; none while another process has it.
    pub(super) fn try_lock(&self, key: &str) -> Result<Option<FileLock>, FileError> {
        self.files.try_lock(self.path(key, "lock"))
    }

    fn path(&self, key: &str, ending: &str) -> PathBuf {
        self.folder.join(Path::new(&format!("{key}.{ending}")))
    }
}

fn entry(content: &[u8]) -> Option<Entry> {
    let written: Written<Secret> = serde_json::from_slice(content).ok()?;
    let time = |milliseconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    Some(Entry {
        user: written.user,
        password: written.password,
        registry: written.registry,
        received: time(written.received)?,
        expires: time(written.expires)?,
    })
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR.mul_f64(400_000.0 + hours)
    }

    fn twelve_hours() -> Entry {
        Entry {
            user: "AWS".to_owned(),
            password: Secret::new("planted".to_owned()),
            registry: Some("https://123456789012.dkr.ecr.eu-central-1.amazonaws.com".to_owned()),
            received: at(0.0),
            expires: at(12.0),
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(Files::new(root.path()), PathBuf::from("/run/cos-agent/ecr"));
        (root, cache)
    }

    #[test]
    fn fresh_for_half_a_life_and_usable_until_just_before_its_end() {
        for (hours, age) in [
            (0.0, Age::Fresh),
            (5.99, Age::Fresh),
            (6.0, Age::Stale),
            (11.98, Age::Stale),
            (11.99, Age::Ended),
            (13.0, Age::Ended),
            (-0.05, Age::Fresh),
            (-0.5, Age::Stale),
        ] {
            assert_eq!(twelve_hours().age(at(hours)), age, "after {hours} hours");
        }
        let reversed = Entry {
            expires: at(-1.0),
            ..twelve_hours()
        };
        assert_eq!(reversed.age(at(-2.0)), Age::Ended);
    }

    #[test]
    fn what_is_kept_comes_back_and_is_private() {
        let (_root, cache) = cache();
        assert_eq!(cache.read("a"), None);
        cache.prepare().unwrap();
        assert_eq!(cache.files.mode("/run/cos-agent/ecr").unwrap(), Some(0o700));
        cache
            .fail("a", "denied".to_owned(), Some("allow it".to_owned()))
            .unwrap();
        assert!(cache.failure("a").unwrap().is_since(at(0.0)));
        cache.write("a", &twelve_hours()).unwrap();
        assert_eq!(cache.failure("a"), None);
        assert_eq!(cache.read("a"), Some(twelve_hours()));
        assert_eq!(cache.entries(), [twelve_hours()]);
        assert_eq!(
            cache.files.mode("/run/cos-agent/ecr/a.json").unwrap(),
            Some(0o600)
        );
        cache.erase("a").unwrap();
        assert_eq!(cache.read("a"), None);
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let (_root, cache) = cache();
        cache.prepare().unwrap();
        cache.write("a", &twelve_hours()).unwrap();
        cache.files.make_directory("/run/cos-agent/ecr", 0o777).unwrap();
        assert!(cache.prepare().unwrap_err().contains("/run/cos-agent/ecr"));
        assert_eq!(cache.read("a"), None);

        cache.files.make_directory("/elsewhere", 0o700).unwrap();
        cache.files.remove("/run/cos-agent/ecr").unwrap();
        cache.files.link("/run/cos-agent/ecr", "../../elsewhere").unwrap();
        assert!(cache.prepare().is_err());
    }

    proptest! {
        #[test]
        fn no_content_brings_it_down(bytes in any::<Vec<u8>>(), received in any::<u64>(), expires in any::<u64>()) {
            prop_assert_eq!(entry(&bytes), None);
            let text = format!(
                r#"{{"user":"AWS","password":"p","received":{received},"expires":{expires}}}"#
            );
            if let Some(entry) = entry(text.as_bytes()) {
                let _ = entry.age(at(0.0));
            }
        }
    }
}
