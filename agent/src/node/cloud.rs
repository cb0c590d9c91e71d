//! Owns what the agent asks AWS about this instance and its configuration: the client, parameters, the group's size.
//! Touches AWS.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use super::config;
use super::error::NodeError;
use super::sources::{InstanceFacts, Parameters, ParametersError};
use crate::aws::{self, Client, Settings};

/// The agent's client of AWS, for this instance.
pub(super) fn client(imds: &str, facts: &InstanceFacts) -> Client {
    Client::new(Settings {
        domain: Some(facts.domain.clone()),
        imds: Some(imds.to_owned()),
        ..Settings::new(&facts.region, aws::Environment::of_process())
    })
}

/// Parameters of Systems Manager, asked for when it is known where the instance is.
pub(super) struct ParameterStore<'a> {
    imds: &'a str,
    patience: Duration,
    client: OnceLock<Client>,
}

impl<'a> ParameterStore<'a> {
    /// Asks nothing yet. `patience` is for how long the service may have no room.
    pub(super) fn new(imds: &'a str, patience: Duration) -> Self {
        Self {
            imds,
            patience,
            client: OnceLock::new(),
        }
    }

    /// The client, for whatever else is asked of AWS in the same pass: with the same connections and credentials.
    pub(super) fn client(&self, facts: &InstanceFacts) -> &Client {
        self.client
            .get_or_init(|| client(self.imds, facts).patient(self.patience))
    }
}

impl Parameters for ParameterStore<'_> {
    fn get(
        &self,
        names: &[&str],
        facts: &InstanceFacts,
    ) -> Result<BTreeMap<String, String>, ParametersError> {
        self.client(facts).get(names, facts)
    }
}

/// How many instances the Auto Scaling group should have, where the configuration asks for that. It is never assumed:
/// who belongs to no group must say the number.
pub(super) fn group_size(
    config: &config::NodeConfig,
    facts: &InstanceFacts,
    aws: &Client,
) -> Result<Option<u32>, NodeError> {
    if !config::asks_for_group(config) {
        return Ok(None);
    }
    let Some(member) = aws.describe_auto_scaling_instance(&facts.instance_id)? else {
        return Ok(None);
    };
    let group = aws.describe_auto_scaling_group(&member.group)?;
    Ok(group.map(|group| group.desired))
}
