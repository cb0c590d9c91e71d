//! Owns what the agent asks AWS about this instance and its configuration: the client, parameters, the group's size.
//! Touches AWS.

use std::collections::BTreeMap;

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
    pub(super) imds: &'a str,
}

impl Parameters for ParameterStore<'_> {
    fn get(
        &self,
        names: &[&str],
        facts: &InstanceFacts,
    ) -> Result<BTreeMap<String, String>, ParametersError> {
        client(self.imds, facts).get(names, facts)
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
