//! Owns the port to the parameters that `include` names.
//! Touches what its implementations touch: Systems Manager, or files that stand for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::InstanceFacts;
use crate::aws::{AwsError, Client, Kind, Parameter};

/// Parameters of Systems Manager, type `String` or `StringList`. A NodeConfig holds no secret, so that a
/// `SecureString` need not be decrypted for it.
pub trait Parameters: Sync {
    /// Values by name, of the region in which the instance is. A parameter that does not exist is absent from the answer; `GetParameters` takes ten names at
    /// once, and splitting a longer list is the implementation's business.
    fn get(&self, names: &[&str], facts: &InstanceFacts)
    -> Result<BTreeMap<String, String>, ParametersError>;
}

/// The parameters could not be asked for; the cause says why.
#[derive(Debug, Error)]
#[error("the parameters that include names could not be read")]
pub struct ParametersError(#[source] pub Box<dyn Error + Send + Sync>);

impl Parameters for Client {
    fn get(&self, names: &[&str], _: &InstanceFacts) -> Result<BTreeMap<String, String>, ParametersError> {
        let mut names = names.to_vec();
        loop {
            match self.get_parameters(names.iter().copied()) {
                Ok(found) => {
                    let text =
                        |(name, parameter): (String, Parameter)| (name, parameter.value.expose().to_owned());
                    return Ok(found.into_iter().map(text).collect());
                }
                // Those that exist are asked for again, so that only the others are faults.
                Err(AwsError {
                    kind: Kind::Missing { names: missing, .. },
                    ..
                }) if missing.iter().any(|missing| names.contains(&missing.as_str())) => {
                    names.retain(|name| !missing.iter().any(|missing| missing == name));
                    if names.is_empty() {
                        return Ok(BTreeMap::new());
                    }
                }
                Err(error) => return Err(ParametersError(Box::new(error))),
            }
        }
    }
}

/// Files in the place of parameters, so that a configuration can be checked without an instance.
#[derive(Debug, Clone, Default)]
pub struct FileParameters(pub BTreeMap<String, PathBuf>);

impl Parameters for FileParameters {
    fn get(&self, names: &[&str], _: &InstanceFacts) -> Result<BTreeMap<String, String>, ParametersError> {
        let mut values = BTreeMap::new();
        for name in names {
            let Some(path) = self.0.get(*name) else {
                continue;
            };
            let value = fs::read_to_string(path).map_err(|error| {
                let said = format!("could not read {}: {error}", path.display());
                ParametersError(Box::new(io::Error::new(error.kind(), said)))
            })?;
            values.insert((*name).to_owned(), value);
        }
        Ok(values)
    }
}
