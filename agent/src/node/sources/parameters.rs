//! Owns the port to the parameters that `include` names.
//! Touches what its implementations touch: Systems Manager, or files that stand for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Parameters of Systems Manager, type `String` or `StringList`. A NodeConfig holds no secret, so that a
/// `SecureString` need not be decrypted for it.
pub trait Parameters: Sync {
    /// Values by name. A parameter that does not exist is absent from the answer; `GetParameters` takes ten names at
    /// once, and splitting a longer list is the implementation's business.
    fn get(&self, names: &[&str]) -> Result<BTreeMap<String, String>, ParametersError>;
}

/// The parameters could not be asked for; the cause says why.
#[derive(Debug, Error)]
#[error("the parameters that include names could not be read")]
pub struct ParametersError(#[source] pub Box<dyn Error + Send + Sync>);

/// Files in the place of parameters, so that a configuration can be checked without an instance.
#[derive(Debug, Clone, Default)]
pub struct FileParameters(pub BTreeMap<String, PathBuf>);

impl Parameters for FileParameters {
    fn get(&self, names: &[&str]) -> Result<BTreeMap<String, String>, ParametersError> {
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
