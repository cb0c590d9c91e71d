//! Owns the secrets of a node between the place where they are kept and the files that hold them: fetched once, looked
//! at without being shown, and struck out of what others say. Touches Parameter Store through [`Secrets`], and files.

mod need;
mod pair;
mod parameter_store;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use thiserror::Error;

use super::config::{NodeSpec, ParameterName, SecretSource};
pub use crate::aws::Secret;
use crate::host::{FileError, Files};

pub use need::{Need, needs};
pub use shape::Shape;

/// Parameter Store, as far as a node needs it.
pub trait Secrets {
    /// Values of parameters, decrypted, by name. `GetParameters` takes ten names at once, and splitting a longer list
    /// is the implementation's business.
    fn fetch(&self, names: &BTreeSet<ParameterName>) -> Result<BTreeMap<ParameterName, Secret>, FetchError>;
}

/// Parameters could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// These do not exist.
    #[error("some parameters do not exist")]
    Missing(BTreeSet<ParameterName>),
    /// The call itself failed.
    #[error(transparent)]
    Failed(#[from] Box<dyn Error + Send + Sync>),
}

/// A secret cannot be had, or is not what it should be. None of these shows any of it.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Parameter Store did not answer as it should.
    #[error("the secrets of this node could not be fetched: {}", listed(names))]
    Fetch {
        /// What was asked for, each with the key that needs it.
        names: Vec<(ParameterName, &'static str)>,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Parameters that do not exist, or not for this node.
    #[error("there is no parameter {}", listed(.0))]
    Missing(Vec<(ParameterName, &'static str)>),
    /// A file that something else should have put there is not there.
    #[error("there is no file {path}, which {key} needs")]
    NoFile {
        /// The file.
        path: String,
        /// Who needs it.
        key: &'static str,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Secrets that are not what they should be.
    #[error("{}", .0.join("; "))]
    Malformed(Vec<String>),
}

fn listed(names: &[(ParameterName, &'static str)]) -> String {
    let each = |(name, key): &(ParameterName, &str)| format!("{name}, which {key} needs");
    names.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl SecretsError {
    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        let arn = |(name, _): &(ParameterName, _)| {
            format!(
                "arn:aws:ssm:*:*:parameter/{}",
                name.as_str().trim_start_matches('/')
            )
        };
        match self {
            Self::Fetch { names, .. } | Self::Missing(names) => Some(format!(
                "the parameters must exist in this region, and the instance profile must allow ssm:GetParameters on {} \
                 (and kms:Decrypt on the key of a SecureString that has its own)",
                names.iter().map(arn).collect::<Vec<_>>().join(", ")
            )),
            Self::NoFile { path, .. } => Some(format!("let {path} be written before cos-agent apply runs")),
            Self::File(_) | Self::Malformed(_) => None,
        }
    }
}

/// All secrets of a node, by where they are. `Debug` shows where, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched(BTreeMap<SecretSource, Secret>);

impl Fetched {
    /// Fetches what `spec` needs: all at once, and without a question where no parameter is needed. What is missing or
    /// malformed is told all at once, too.
    pub fn fetch(spec: &NodeSpec, secrets: &dyn Secrets, files: &Files) -> Result<Self, SecretsError> {
        let needs = needs(spec);
        let raw = fetch_all(&needs, secrets, files)?;
        let mut fetched = BTreeMap::new();
        let mut faults = Vec::new();
        for Need { key, source, shape } in needs {
            match raw.get(source).map(|secret| shape.take(secret)) {
                Some(Ok(secret)) => drop(fetched.insert(source.clone(), secret)),
                Some(Err(why)) => faults.push(format!("{source}, which {key} needs, {why}")),
                None => {}
            }
        }
        for need::Pair { certificate, key } in need::pairs(spec) {
            if let (Some(first), Some(second)) = (fetched.get(certificate.1), fetched.get(key.1))
                && pair::is_mismatched(first.expose(), second.expose())
            {
                faults.push(format!(
                    "{}, which {} needs, is not the key of {} (is one of them changed and the other not yet?)",
                    key.1, key.0, certificate.1
                ));
            }
        }
        if faults.is_empty() {
            Ok(Self(fetched))
        } else {
            Err(SecretsError::Malformed(faults))
        }
    }

    /// Values in the place of all secrets of a node, of the right shape and none of them secret: to see what would be
    /// written, or have it judged, where nobody may ask for the secrets.
    pub fn placeholders(spec: &NodeSpec) -> Self {
        let needs = needs(spec);
        Self(
            needs
                .iter()
                .map(|need| (need.source.clone(), need.shape.placeholder()))
                .collect(),
        )
    }

    /// The secret from a place. It was fetched, or it would not have come to this.
    pub(super) fn get(&self, source: &SecretSource) -> Option<&str> {
        self.0.get(source).map(Secret::expose)
    }

    /// Strikes secrets out of what another program said.
    pub fn redact(&self, text: &str) -> String {
        let mut struck = text.to_owned();
        for secret in self.0.values() {
            // Of a key or certificate any line gives it away.
            for line in secret
                .expose()
                .lines()
                .filter(|line| line.len() >= 8 && !line.starts_with("-----"))
            {
                struck = struck.replace(line, "(secret)");
            }
        }
        struck
    }
}

fn fetch_all<'a>(
    needs: &[Need<'a>],
    secrets: &dyn Secrets,
    files: &Files,
) -> Result<BTreeMap<&'a SecretSource, Secret>, SecretsError> {
    let mut raw = BTreeMap::new();
    let mut wanted: BTreeMap<&ParameterName, &'static str> = BTreeMap::new();
    for Need { key, source, .. } in needs {
        match source {
            SecretSource::Parameter(name) => {
                wanted.entry(name).or_insert(*key);
            }
            SecretSource::File(path) => {
                let content = files.read(path)?.ok_or_else(|| SecretsError::NoFile {
                    path: path.display().to_string(),
                    key,
                })?;
                // What is no text is malformed, which its shape will say.
                let text = String::from_utf8_lossy(&content).into_owned();
                raw.insert(*source, Secret::new(text));
            }
        }
    }
    let asked: BTreeSet<ParameterName> = wanted.keys().copied().cloned().collect();
    let with_keys = |matches: &dyn Fn(&ParameterName) -> bool| {
        let named = wanted.iter().filter(|(name, _)| matches(name));
        named.map(|(name, key)| ((*name).clone(), *key)).collect()
    };
    let found = if asked.is_empty() {
        BTreeMap::new()
    } else {
        secrets.fetch(&asked).map_err(|error| match error {
            FetchError::Missing(missing) => SecretsError::Missing(with_keys(&|name| missing.contains(name))),
            FetchError::Failed(source) => SecretsError::Fetch {
                names: with_keys(&|_| true),
                source,
            },
        })?
    };
    if asked.iter().any(|name| !found.contains_key(name)) {
        return Err(SecretsError::Missing(with_keys(&|name| {
            !found.contains_key(name)
        })));
    }
    for Need { source, .. } in needs {
        if let SecretSource::Parameter(name) = source
            && let Some(secret) = found.get(name)
        {
            raw.insert(*source, secret.clone());
        }
    }
    Ok(raw)
}
