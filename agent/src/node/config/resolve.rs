//! Owns how a `NodeConfig` and the facts of an instance become a `NodeSpec`, with every default filled in.
//! Touches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use thiserror::Error;

use super::check;
use super::disks;
use super::node_config::{
    AclConfig, ConsulConfig, ConsulTlsConfig, HostVolumeConfig, NodeConfig, NomadConfig, ServiceConfig,
};
use super::node_spec::{
    AclSpec, AutopilotSpec, ConsulSpec, ConsulTlsSpec, HostVolumeSpec, KeyPair, KeyringSpec, NodeSpec,
    NomadClientSpec, NomadServerSpec, NomadSpec, NomadTlsSpec, ServiceSpec, TelemetrySpec, WatchSettings,
};
use super::record::Number;
use super::roles::{Role, Roles};
use super::values::{
    AbsolutePath, Account, BootstrapExpect, DefaultPolicy, DnsMode, LogLevel, PlainText, Region, RetryJoin,
    VolumeName,
};
use crate::node::render::dns::DnsSpec;
use crate::node::sources::InstanceFacts;

/// The resolver of every VPC that has one, at an address of the link.
pub(super) const VPC_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253));

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
    let datacenter = config.datacenter.as_ref();
    Ok(NodeSpec {
        roles: config.role.clone(),
        name: facts.instance_id.clone(),
        address: facts.private_ipv4,
        zone: facts.zone.clone(),
        datacenter: datacenter.map_or_else(|| facts.zone.clone(), ToString::to_string),
        consul: consul(&config.consul, &config.role, facts, group)?,
        nomad: if config.role.has_nomad() {
            Some(nomad(config, facts, group)?)
        } else {
            None
        },
        disks: disks::request(config, facts),
        registries: registries(config, facts),
        registry_users: config.ecr.users.iter().map(ToString::to_string).collect(),
        dns: DnsSpec {
            mode: config.dns.consul.unwrap_or(DnsMode::Automatic),
            witness: format!("ec2.{}.{}", facts.region, facts.domain),
            plan: None,
        },
        watch: watch(config),
    })
}

fn watch(config: &NodeConfig) -> Option<WatchSettings> {
    let (readiness, watch) = (&config.readiness, &config.watch);
    let default = WatchSettings::default();
    (watch.enabled != Some(false)).then(|| WatchSettings {
        hold_until_ready: readiness.eligible.unwrap_or(default.hold_until_ready),
        ready_deadline: readiness.deadline.unwrap_or(default.ready_deadline),
        launch_hook: readiness.hook.as_ref().map(ToString::to_string),
        rebalance: watch.rebalance.unwrap_or(default.rebalance),
        drain_deadline: watch.drain_deadline.unwrap_or(default.drain_deadline),
        scheduled_event_lead: watch.scheduled_event_lead.unwrap_or(default.scheduled_event_lead),
        termination_hook: watch.hook.as_ref().map(ToString::to_string),
        drift: watch.drift.unwrap_or(default.drift),
    })
}

fn consul(
    config: &ConsulConfig,
    roles: &Roles,
    facts: &InstanceFacts,
    group: Option<u32>,
) -> Result<ConsulSpec, ResolveError> {
    let recursors = match config.recursors.as_slice() {
        [] => vec![VPC_RESOLVER],
        own => own.to_vec(),
    };
    Ok(ConsulSpec {
        managed: config.manage_configuration.unwrap_or(true),
        datacenter: config
            .datacenter
            .as_ref()
            .map_or_else(|| facts.region.clone(), ToString::to_string),
        join_tag: match &config.retry_join {
            Some(RetryJoin::Tag(tag)) => Some(tag.clone()),
            _ => None,
        },
        retry_join: match &config.retry_join {
            Some(RetryJoin::Tag(tag)) => vec![auto_join(
                &facts.region,
                tag.tag_key.as_str(),
                tag.tag_value.as_str(),
            )],
            Some(RetryJoin::Addresses(addresses)) => addresses.iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        },
        server: servers("consul.bootstrap_expect", config.bootstrap_expect, group)?,
        recursors,
        data_dir: path(config.data_dir.as_ref(), "/opt/consul/data"),
        ui: roles.has(Role::ConsulServer) && config.ui.unwrap_or(true),
        gossip_key: config.gossip_key.clone(),
        tls: config.tls.as_ref().map(consul_tls),
        acl: acl(&config.acl),
        autopilot: AutopilotSpec {
            cleanup_dead_servers: config.autopilot.cleanup_dead_servers,
            last_contact_threshold: config.autopilot.last_contact_threshold,
            max_trailing_logs: config.autopilot.max_trailing_logs.map(small),
            server_stabilization_time: config.autopilot.server_stabilization_time,
            min_quorum: config.autopilot.min_quorum.map(small),
            disable_upgrade_migration: config.autopilot.disable_upgrade_migration,
            redundancy_zone_tag: config
                .autopilot
                .redundancy_zone_tag
                .as_ref()
                .map(ToString::to_string),
            upgrade_version_tag: config
                .autopilot
                .upgrade_version_tag
                .as_ref()
                .map(ToString::to_string),
        },
        log_level: config.log_level.unwrap_or(LogLevel::Info),
        service: service(&config.service, "consul"),
    })
}

fn consul_tls(config: &ConsulTlsConfig) -> ConsulTlsSpec {
    let pair = config.certificate.clone().zip(config.key.clone());
    ConsulTlsSpec {
        ca: config.ca.clone(),
        pair: pair.map(|(certificate, key)| KeyPair { certificate, key }),
        verify_incoming: config.verify_incoming.unwrap_or(true),
        verify_outgoing: config.verify_outgoing.unwrap_or(true),
        verify_server_hostname: config.verify_server_hostname.unwrap_or(true),
        auto_encrypt: config.auto_encrypt.unwrap_or(false),
        https: config.https.unwrap_or(true),
        verify_https_client: config
            .verify_https_client
            .or(config.verify_incoming)
            .unwrap_or(true),
    }
}

fn acl(config: &AclConfig) -> Option<AclSpec> {
    (config.enabled == Some(true)).then(|| AclSpec {
        default_policy: config.default_policy.unwrap_or(DefaultPolicy::Deny),
        agent: config.agent_token.clone(),
        default: config.default_token.clone(),
        initial_management: config.initial_management_token.clone(),
    })
}

fn nomad(config: &NodeConfig, facts: &InstanceFacts, group: Option<u32>) -> Result<NomadSpec, ResolveError> {
    let (roles, nomad) = (&config.role, &config.nomad);
    let client = roles.has(Role::NomadClient);
    let expect = servers("nomad.bootstrap_expect", nomad.bootstrap_expect, group)?;
    Ok(NomadSpec {
        managed: nomad.manage_configuration.unwrap_or(true),
        region: nomad
            .region
            .as_ref()
            .map_or_else(|| facts.region.clone(), ToString::to_string),
        server: expect.map(|expect| NomadServerSpec {
            expect,
            gossip_key: nomad.gossip_key.clone(),
            autopilot: AutopilotSpec {
                cleanup_dead_servers: nomad.autopilot.cleanup_dead_servers,
                last_contact_threshold: nomad.autopilot.last_contact_threshold,
                max_trailing_logs: nomad.autopilot.max_trailing_logs.map(small),
                server_stabilization_time: nomad.autopilot.server_stabilization_time,
                min_quorum: nomad.autopilot.min_quorum.map(small),
                disable_upgrade_migration: nomad.autopilot.disable_upgrade_migration,
                ..AutopilotSpec::default()
            },
            client_introduction: nomad.client_introduction,
            keyring: nomad.kms_key.as_ref().map(|key| KeyringSpec {
                region: facts.region.clone(),
                key: key.to_string(),
            }),
            // Where Consul asks for tokens, jobs need a way to get theirs.
            consul_identities: config.consul.acl.enabled == Some(true),
        }),
        client: client.then(|| nomad_client(nomad, config.docker.privileged.unwrap_or(false))),
        data_dir: path(nomad.data_dir.as_ref(), "/opt/nomad/data"),
        log_dir: nomad.log_dir.as_ref().map(ToString::to_string),
        tls: nomad.tls.as_ref().map(|tls| NomadTlsSpec {
            ca: tls.ca.clone(),
            pair: KeyPair {
                certificate: tls.certificate.clone(),
                key: tls.key.clone(),
            },
            http: tls.http.unwrap_or(true),
            verify_server_hostname: tls.verify_server_hostname.unwrap_or(true),
            verify_https_client: tls.verify_https_client.unwrap_or(false),
        }),
        acl: nomad.acl.unwrap_or(false),
        consul_token: nomad.consul_token.clone(),
        telemetry: TelemetrySpec {
            allocations: nomad.telemetry.publish_allocation_metrics.unwrap_or(true),
            node: nomad.telemetry.publish_node_metrics.unwrap_or(true),
            prometheus: nomad.telemetry.prometheus_metrics.unwrap_or(true),
        },
        log_level: nomad.log_level.unwrap_or(LogLevel::Info),
        // A client makes namespaces, cgroups and mounts for jobs; a server does nothing that needs root.
        service: service(&nomad.service, if client { "root" } else { "nomad" }),
    })
}

fn nomad_client(nomad: &NomadConfig, docker_privileged: bool) -> NomadClientSpec {
    let volume = |(name, volume): (&VolumeName, &HostVolumeConfig)| {
        let spec = HostVolumeSpec {
            path: volume.path.to_string(),
            read_only: volume.read_only.unwrap_or(false),
        };
        (name.to_string(), spec)
    };
    NomadClientSpec {
        node_pool: nomad.node_pool.as_ref().map(ToString::to_string),
        meta: texts(&nomad.meta),
        docker_privileged,
        host_volumes: nomad.host_volumes.iter().map(volume).collect(),
        options: texts(&nomad.client_options),
        drain_deadline: nomad.drain_deadline.unwrap_or(Duration::from_mins(5)),
        drain_asked: nomad.drain_deadline.is_some(),
        introduction_token: nomad.introduction_token.clone(),
    }
}

fn service(config: &ServiceConfig, user: &str) -> ServiceSpec {
    ServiceSpec {
        user: config
            .user
            .as_ref()
            .map_or_else(|| user.to_owned(), ToString::to_string),
        environment: texts(&config.environment),
        standard_output: config.standard_output.as_ref().map(ToString::to_string),
        standard_error: config.standard_error.as_ref().map(ToString::to_string),
    }
}

fn texts<K: ToString>(map: &BTreeMap<K, PlainText>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn path(given: Option<&AbsolutePath>, default: &str) -> String {
    given.map_or_else(|| default.to_owned(), ToString::to_string)
}

/// A number whose range, checked when it was read, ends far below.
fn small<const LOWEST: i64, const HIGHEST: i64>(number: Number<LOWEST, HIGHEST>) -> u32 {
    u32::try_from(number.get()).unwrap_or(u32::MAX)
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
