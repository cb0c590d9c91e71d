//! Owns how Parameter Store is asked for secrets: by the agent's own client of AWS.
//! Touches AWS.

use std::collections::{BTreeMap, BTreeSet};

use super::{FetchError, Secret, Secrets};
use crate::aws::{AwsError, Client, Kind};
use crate::node::config::ParameterName;

impl Secrets for Client {
    fn fetch(&self, names: &BTreeSet<ParameterName>) -> Result<BTreeMap<ParameterName, Secret>, FetchError> {
        let named = |text: &str| names.iter().find(|name| name.as_str() == text).cloned();
        match self.get_parameters(names.iter().map(ParameterName::as_str)) {
            Ok(found) => Ok(found
                .into_iter()
                .filter_map(|(name, parameter)| Some((named(&name)?, parameter.value)))
                .collect()),
            Err(AwsError {
                kind: Kind::Missing { names: missing, .. },
                ..
            }) => Err(FetchError::Missing(
                missing.iter().filter_map(|name| named(name)).collect(),
            )),
            Err(error) => Err(FetchError::Failed(Box::new(error))),
        }
    }
}
