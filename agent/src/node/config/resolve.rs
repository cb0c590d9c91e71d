//! Owns how a `NodeConfig` and the facts of an instance become a `NodeSpec`: total, with every default filled in.
//! Touches nothing.

use super::{ConsulSpec, NodeConfig, NodeSpec, NomadKind, NomadSpec, RetryJoin, Role};
use crate::node::sources::InstanceFacts;

/// Fills in what the user left open. It cannot fail: the document was checked when it was read.
pub fn resolve(config: &NodeConfig, facts: &InstanceFacts) -> NodeSpec {
    let retry_join = match &config.consul.retry_join {
        RetryJoin::Tag { key, value } => vec![auto_join(&facts.region, key, value)],
        RetryJoin::Addresses(addresses) => addresses.clone(),
    };
    let kind = match config.role {
        Role::ConsulServer => None,
        // `read` refuses a server without the number.
        Role::NomadServer => config
            .nomad
            .bootstrap_expect
            .map(|bootstrap_expect| NomadKind::Server { bootstrap_expect }),
        Role::NomadClient => Some(NomadKind::Client {
            node_pool: config.nomad.node_pool.clone(),
            meta: config.nomad.meta.clone(),
            docker_privileged: config.docker_privileged,
        }),
    };
    let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    NodeSpec {
        role: config.role,
        name: facts.instance_id.clone(),
        address: facts.private_ipv4,
        zone: facts.zone.clone(),
        datacenter: or(&config.datacenter, &facts.zone),
        consul: ConsulSpec {
            datacenter: or(&config.consul.datacenter, &facts.region),
            retry_join,
            server: config.consul.bootstrap_expect,
            recursors: config.consul.recursors.clone(),
        },
        nomad: kind.map(|kind| NomadSpec {
            region: or(&config.nomad.region, &facts.region),
            kind,
        }),
        registries: registries(config, facts),
    }
}

fn registries(config: &NodeConfig, facts: &InstanceFacts) -> Vec<String> {
    let host = |account: &str, region: &str| format!("{account}.dkr.ecr.{region}.{}", facts.domain);
    let mut hosts = vec![host(&facts.account, &facts.region)];
    hosts.extend(config.registries.iter().map(|registry| {
        let account = registry.account.as_deref().unwrap_or(&facts.account);
        host(account, registry.region.as_deref().unwrap_or(&facts.region))
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
