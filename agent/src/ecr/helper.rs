//! Owns when a login is taken from the cache and when AWS is asked: once for all who ask at the same time.
//! Touches the cache, and AWS where the cache does not do.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::cache::{Age, Cache, Entry};
use super::error::{EcrError, one_line};
use super::host::Registry;
use crate::aws::{AwsError, Client, Environment, Secret, Service, Settings};
use crate::host::{FileError, FileLock, Files};
use crate::node::wait::{self, Backoff, WaitError};

/// Longest time for a login: Nomad waits for its helpers without a limit of its own.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Longest time to renew a login while the old one still does.
const RENEWAL: Duration = Duration::from_secs(3);

/// After a renewal that failed nobody tries for this long, so that pulls are not slowed down one after the other.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often one who waits looks for the answer that another is getting.
const LOOK: Backoff = Backoff {
    first: Duration::from_millis(5),
    longest: Duration::from_millis(40),
};

/// Where root keeps logins: in memory, gone with a reboot, and in no need of a home.
pub const FOLDER: &str = "/run/cos-agent/ecr";

/// A login for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name; ECR's is `AWS`.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// When it ends.
    pub expires: SystemTime,
}

impl From<Entry> for Login {
    fn from(entry: Entry) -> Self {
        Self {
            user: entry.user,
            password: entry.password,
            expires: entry.expires,
        }
    }
}

/// Gives logins.
#[derive(Debug, Clone)]
pub struct Helper {
    environment: Environment,
    files: Files,
    cache: Option<Cache>,
    deadline: Duration,
}

impl Helper {
    /// A helper that keeps logins below `folder`; none asks AWS every time.
    pub fn new(environment: Environment, files: Files, folder: Option<PathBuf>, deadline: Duration) -> Self {
        let cache = folder.map(|folder| Cache::new(files.clone(), folder));
        Self {
            environment,
            files,
            cache,
            deadline,
        }
    }

    /// The folder that the environment means: `AWS_ECR_CACHE_DIR`, as AWS's own helper has it; root's own; or the
    /// user's in memory. None if there is none, or if `AWS_ECR_DISABLE_CACHE` is set.
    pub fn usual_folder(environment: &Environment) -> Option<PathBuf> {
        if environment.get("AWS_ECR_DISABLE_CACHE").is_some() {
            return None;
        }
        if let Some(named) = environment.get("AWS_ECR_CACHE_DIR") {
            return Some(PathBuf::from(named));
        }
        if nix::unistd::geteuid().is_root() {
            return Some(PathBuf::from(FOLDER));
        }
        let own = environment.get("XDG_RUNTIME_DIR")?;
        Some(PathBuf::from(own).join("cos-agent/ecr"))
    }

    /// A login for a registry. `tell` hears what is not as it should be though a login is given.
    pub fn login(&self, server: &str, tell: &mut dyn FnMut(&str)) -> Result<Login, EcrError> {
        let registry = registry(server)?;
        let client = self.client(&registry);
        let key = self.key(&registry, &client);
        let Some(cache) = &self.cache else {
            return Ok(ask(&client, &registry, self.deadline)?.into());
        };
        match current(cache, &key) {
            Some((Age::Fresh, entry)) => Ok(entry.into()),
            Some((_, entry)) => Ok(renew(cache, &key, &client, &registry, entry, tell).into()),
            None => self.obtain(cache, &key, &client, &registry, tell),
        }
    }

    /// Forgets the login of a registry.
    pub fn erase(&self, server: &str) -> Result<(), EcrError> {
        let registry = registry(server)?;
        let key = self.key(&registry, &self.client(&registry));
        match &self.cache {
            Some(cache) => Ok(cache.erase(&key)?),
            None => Ok(()),
        }
    }

    /// The registries that there is a login for, as URLs, each with its user name.
    pub fn list(&self) -> Vec<(String, String)> {
        let now = SystemTime::now();
        let entries = self.cache.as_ref().map(Cache::entries).unwrap_or_default();
        let mut listed: Vec<(String, String)> = entries
            .into_iter()
            .filter(|entry| entry.age(now) != Age::Ended)
            .filter_map(|entry| Some((entry.registry?, entry.user)))
            .collect();
        listed.sort();
        listed.dedup();
        listed
    }

    fn client(&self, registry: &Registry) -> Client {
        Client::new(Settings {
            variant: registry.variant,
            files: self.files.clone(),
            deadline: self.deadline,
            ..Settings::new(&registry.region, self.environment.clone())
        })
    }

    /// Name of what is kept: which API was asked, and by whom. One login opens all registries of a region that its
    /// holder may use, so the account is no part of it.
    fn key(&self, registry: &Registry, client: &Client) -> String {
        let service = service(registry);
        let holder = self.environment.get("AWS_ACCESS_KEY_ID").unwrap_or("role");
        let digest = Sha256::digest(format!("{} {holder}", client.endpoint(service)));
        let mut key = format!("{}-{}-", service.signing_name(), registry.region);
        for byte in &digest[..6] {
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    /// Gets a login that nobody has: one process asks, the others wait for what it is told.
    fn obtain(
        &self,
        cache: &Cache,
        key: &str,
        client: &Client,
        registry: &Registry,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Login, EcrError> {
        let start = (Instant::now(), SystemTime::now());
        let mut alone = |reason: String| {
            tell(&format!(
                "logins cannot be kept, so that every pull asks for one: {reason}"
            ));
            Ok(ask(client, registry, self.deadline)?.into())
        };
        if let Err(reason) = cache.prepare() {
            return alone(reason);
        }
        let host = || registry.host.clone();
        let _lock: FileLock = match wait_for(cache, key, start.1, self.deadline) {
            Ok(Waited::Entry(entry)) => return Ok(entry.into()),
            Ok(Waited::Failure(reason, hint)) => {
                return Err(EcrError::Told {
                    host: host(),
                    reason,
                    hint,
                });
            }
            Ok(Waited::Lock(lock)) => lock,
            Err(WaitError::Probe(error)) => return alone(one_line(&error)),
            Err(WaitError::Deadline { after, .. }) => return Err(EcrError::Busy { host: host(), after }),
        };
        let left = self.deadline.saturating_sub(start.0.elapsed());
        match ask(client, registry, left) {
            Ok(entry) => {
                keep(cache, key, &entry, tell);
                Ok(entry.into())
            }
            Err(error) => {
                let reason = one_line(&error);
                let hint = error.hint();
                if let Err(error) = cache.fail(key, reason, hint) {
                    tell(&one_line(&error));
                }
                Err(error)
            }
        }
    }
}

/// What one who waits for another's answer comes to.
enum Waited {
    Entry(Entry),
    Failure(String, Option<String>),
    /// Nobody asks: the turn to ask.
    Lock(FileLock),
}

fn wait_for(
    cache: &Cache,
    key: &str,
    since: SystemTime,
    deadline: Duration,
) -> Result<Waited, WaitError<FileError>> {
    wait::until(deadline, LOOK, || {
        let lock = cache.try_lock(key)?;
        // Looked at with the lock in hand, so that nothing can come in between; and without it, so that nobody waits
        // for a turn that is not needed any more.
        if let Some((_, entry)) = current(cache, key) {
            return Ok(ControlFlow::Break(Waited::Entry(entry)));
        }
        if let Some(failure) = cache.failure(key).filter(|failure| failure.is_since(since)) {
            return Ok(ControlFlow::Break(Waited::Failure(failure.reason, failure.hint)));
        }
        Ok(match lock {
            Some(lock) => ControlFlow::Break(Waited::Lock(lock)),
            None => ControlFlow::Continue("another process asks".to_owned()),
        })
    })
}

/// A login that still does, or a newer one if this process is the one to ask for it.
fn renew(
    cache: &Cache,
    key: &str,
    client: &Client,
    registry: &Registry,
    entry: Entry,
    tell: &mut dyn FnMut(&str),
) -> Entry {
    let recently = SystemTime::now() - PATIENCE;
    if cache
        .failure(key)
        .is_some_and(|failure| failure.is_since(recently))
    {
        return entry;
    }
    let Ok(Some(_lock)) = cache.try_lock(key) else {
        return entry;
    };
    // Somebody else may have been faster.
    if let Some((Age::Fresh, newer)) = current(cache, key) {
        return newer;
    }
    match ask(client, registry, RENEWAL) {
        Ok(newer) => {
            keep(cache, key, &newer, tell);
            newer
        }
        Err(error) => {
            let left = entry
                .expires
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            tell(&format!(
                "the login is not renewed, and the old one holds for {left}: {}",
                one_line(&error)
            ));
            let _ = cache.fail(key, one_line(&error), error.hint());
            entry
        }
    }
}

/// The entry of a key that may be used.
fn current(cache: &Cache, key: &str) -> Option<(Age, Entry)> {
    let entry = cache.read(key)?;
    match entry.age(SystemTime::now()) {
        Age::Ended => None,
        age => Some((age, entry)),
    }
}

fn keep(cache: &Cache, key: &str, entry: &Entry, tell: &mut dyn FnMut(&str)) {
    if let Err(error) = cache.write(key, entry) {
        tell(&format!("the login cannot be kept: {}", one_line(&error)));
    }
}

fn ask(client: &Client, registry: &Registry, left: Duration) -> Result<Entry, EcrError> {
    let client = client.within(left);
    let token = if registry.is_public() {
        client.get_public_authorization_token()
    } else {
        client.get_authorization_token()
    };
    let token = token.map_err(|source: AwsError| EcrError::Api {
        host: registry.host.clone(),
        source: Box::new(source),
    })?;
    Ok(Entry::new(token, SystemTime::now()))
}

fn registry(server: &str) -> Result<Registry, EcrError> {
    let server = server.trim();
    if server.is_empty() {
        return Err(EcrError::NoServer);
    }
    Registry::parse(server).ok_or_else(|| EcrError::NotEcr {
        server: server.to_owned(),
    })
}

fn service(registry: &Registry) -> Service {
    if registry.is_public() {
        Service::EcrPublic
    } else {
        Service::Ecr
    }
}
