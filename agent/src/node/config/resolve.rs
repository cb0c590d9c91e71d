//! Owns how a `NodeConfig` and the facts of an instance become a `NodeSpec`, with every default filled in.
//! Touches nothing.

use thiserror::Error;

use super::check;
use super::node_config::NodeConfig;
use super::node_spec::{ConsulSpec, NodeSpec, NomadClientSpec, NomadSpec};
use super::roles::Role;
use super::values::{Account, BootstrapExpect, ConsulDatacenter, DnsMode, NomadName, Region, RetryJoin};
use crate::node::render::dns::DnsSpec;
use crate::node::sources::InstanceFacts;

/// What a user left to AWS, and AWS does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The number of servers is to be the group's, and there is none, or it does not fit.
    #[error("{path} is to be the size of the instance's Auto Scaling group, which {reason}")]
    Group {
        /// Key.
        path: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Fills in what the user left open. `group` is how many instances the Auto Scaling group should have; it is needed
/// only where [`asks_for_group`].
pub fn resolve(
    config: &NodeConfig,
    facts: &InstanceFacts,
    group: Option<u32>,
) -> Result<NodeSpec, ResolveError> {
    let retry_join = match &config.consul.retry_join {
        RetryJoin::Tag(tag) => vec![auto_join(
            &facts.region,
            tag.tag_key.as_str(),
            tag.tag_value.as_str(),
        )],
        RetryJoin::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
    };
    let or = |given: Option<&str>, default: &str| given.unwrap_or(default).to_owned();
    let nomad = &config.nomad;
    let client = config.role.has(Role::NomadClient).then(|| NomadClientSpec {
        node_pool: nomad.node_pool.as_ref().map(ToString::to_string),
        meta: nomad
            .meta
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        docker_privileged: config.docker.privileged.unwrap_or(false),
    });
    let server = servers("nomad.bootstrap_expect", nomad.bootstrap_expect, group)?;
    Ok(NodeSpec {
        roles: config.role.clone(),
        name: facts.instance_id.clone(),
        address: facts.private_ipv4,
        zone: facts.zone.clone(),
        datacenter: or(config.datacenter.as_ref().map(NomadName::as_str), &facts.zone),
        consul: ConsulSpec {
            datacenter: or(
                config.consul.datacenter.as_ref().map(ConsulDatacenter::as_str),
                &facts.region,
            ),
            retry_join,
            server: servers("consul.bootstrap_expect", config.consul.bootstrap_expect, group)?,
            recursors: config.consul.recursors.clone(),
        },
        nomad: config.role.has_nomad().then(|| NomadSpec {
            region: or(nomad.region.as_ref().map(NomadName::as_str), &facts.region),
            server,
            client,
        }),
        registries: registries(config, facts),
        dns: DnsSpec {
            mode: config.dns.consul.unwrap_or(DnsMode::Automatic),
            witness: format!("ec2.{}.{}", facts.region, facts.domain),
            plan: None,
        },
    })
}

/// Whether the size of the instance's Auto Scaling group must be known.
pub fn asks_for_group(config: &NodeConfig) -> bool {
    [config.consul.bootstrap_expect, config.nomad.bootstrap_expect]
        .contains(&Some(BootstrapExpect::AutoScalingGroup))
}

fn servers(
    path: &'static str,
    expect: Option<BootstrapExpect>,
    group: Option<u32>,
) -> Result<Option<u32>, ResolveError> {
    let wrong = |reason: String| Err(ResolveError::Group { path, reason });
    match (expect, group) {
        (None, _) => Ok(None),
        (Some(BootstrapExpect::Servers(number)), _) => Ok(Some(number)),
        (Some(BootstrapExpect::AutoScalingGroup), None) => wrong("is not known".to_owned()),
        (Some(BootstrapExpect::AutoScalingGroup), Some(size)) => {
            match check::bootstrap_expect(i64::from(size)) {
                Ok(number) => Ok(Some(number)),
                Err(message) => wrong(message),
            }
        }
    }
}

fn registries(config: &NodeConfig, facts: &InstanceFacts) -> Vec<String> {
    let host = |account: &str, region: &str| format!("{account}.dkr.ecr.{region}.{}", facts.domain);
    let mut hosts = vec![host(&facts.account, &facts.region)];
    hosts.extend(config.ecr.registries.iter().map(|registry| {
        let account = registry
            .account
            .as_ref()
            .map_or(facts.account.as_str(), Account::as_str);
        let region = registry
            .region
            .as_ref()
            .map_or(facts.region.as_str(), Region::as_str);
        host(account, region)
    }));
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A value of `retry_join` that lets Consul ask EC2 (library go-discover, provider `aws`).
fn auto_join(region: &str, tag_key: &str, tag_value: &str) -> String {
    let pairs = [
        ("provider", "aws"),
        ("region", region),
        ("tag_key", tag_key),
        ("tag_value", tag_value),
    ];
    pairs
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .join(" ")
}

/// A value as go-discover's parser reads it: bare if it has nothing special in it, else in double quotes with
/// Go's escapes for `"` and `\`. Other characters stand for themselves (control characters never get here).
fn quoted(value: &str) -> String {
    let bare = |character: char| {
        character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | '/' | ':' | '+' | '@' | ',')
    };
    if !value.is_empty() && value.chars().all(bare) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The reading side, written after the behaviour of go-discover's `Parse`: tokens are bare texts that end at
    /// space or `=`, quoted texts with escapes, and `=` between key and value.
    fn discover_parse(text: &str) -> Option<BTreeMap<String, String>> {
        let mut pairs = BTreeMap::new();
        let mut rest = text.trim().chars().peekable();
        let token = |rest: &mut std::iter::Peekable<std::str::Chars>| -> Option<String> {
            while rest.next_if_eq(&' ').is_some() {}
            let mut read = String::new();
            if rest.next_if_eq(&'"').is_some() {
                loop {
                    match rest.next()? {
                        '"' => return Some(read),
                        '\\' => read.push(rest.next().filter(|next| matches!(next, '"' | '\\'))?),
                        character => read.push(character),
                    }
                }
            }
            while let Some(character) = rest.next_if(|character| !matches!(character, ' ' | '=')) {
                read.push(character);
            }
            (!read.is_empty()).then_some(read)
        };
        while rest.peek().is_some() {
            let key = token(&mut rest)?;
            rest.next_if_eq(&'=')?;
            let value = token(&mut rest)?;
            if pairs.insert(key, value).is_some() {
                return None;
            }
        }
        Some(pairs)
    }

    proptest! {
        #[test]
        fn what_go_discover_reads_is_what_was_meant(
            key in r#"[a-zA-Z0-9 ="\\:/_.@äé'-]{1,30}"#,
            value in r#"[a-zA-Z0-9 ="\\:/_.@äé'-]{1,30}"#,
        ) {
            let pairs = discover_parse(&auto_join("eu-central-1", &key, &value)).unwrap();
            prop_assert_eq!(pairs.len(), 4);
            prop_assert_eq!(&pairs["provider"], "aws");
            prop_assert_eq!(&pairs["region"], "eu-central-1");
            prop_assert_eq!(&pairs["tag_key"], &key);
            prop_assert_eq!(&pairs["tag_value"], &value);
        }
    }

    #[test]
    fn plain_values_stay_bare() {
        assert_eq!(
            auto_join("eu-central-1", "cos:consul", "live servers"),
            "provider=aws region=eu-central-1 tag_key=cos:consul tag_value=\"live servers\""
        );
    }
}
