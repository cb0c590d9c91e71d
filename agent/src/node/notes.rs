//! Owns what the reader of an `apply` should know though it is no fault.
//! Touches files (reading).

use super::apply::{Change, ChangeSet, Observed};
use super::config::{DnsMode, NodeSpec};
use super::render::dns::Resolver;
use super::render::{self, DesiredState};
use crate::ecr;
use crate::host::{FileError, Files};

/// What works less well than it could, or waits for somebody's hand.
pub(super) fn notes(
    spec: &NodeSpec,
    desired: &DesiredState,
    observed: &Observed,
    changes: &ChangeSet,
    files: &Files,
) -> Result<Vec<String>, FileError> {
    let mut notes = rotations(observed, changes);
    notes.extend(no_helper(desired, files)?);
    notes.extend(no_names(spec));
    Ok(notes)
}

/// Secrets of which a product has a copy of its own: nothing is restarted for them, because that would change nothing.
fn rotations(observed: &Observed, changes: &ChangeSet) -> Vec<String> {
    let note = |change: &Change| {
        let Change::Write { path, .. } = change else {
            return None;
        };
        // Written for the first time it counts.
        observed.files.get(path)?;
        match path.as_str() {
            render::CONSUL_GOSSIP => Some(
                "the gossip key of Consul changed: agents that run keep the keys of their keyring, and would not \
                 understand one that starts with another; on one server, `consul keyring -install` the new key before \
                 nodes get it, then `-use` it, then `-remove` the old one"
                    .to_owned(),
            ),
            render::NOMAD_GOSSIP => Some(
                "the gossip key of Nomad changed: servers that run keep the keys of their keyring, and would not \
                 understand one that starts with another; on one server, `nomad operator gossip keyring install` the \
                 new key before nodes get it, then `use` it, then `remove` the old one"
                    .to_owned(),
            ),
            path if path.ends_with(render::INTRODUCTION_TOKEN) => Some(
                "the introduction token changed: Nomad reads it when it starts; if this client was not let in yet, \
                 restart it (systemctl restart nomad)"
                    .to_owned(),
            ),
            _ => None,
        }
    };
    changes.0.iter().filter_map(note).collect()
}

/// An image of COS has the helper that the Docker configuration names, as a link to the agent. One that was made
/// otherwise, or before there was such a link, may be without it; every other registry works then.
fn no_helper(desired: &DesiredState, files: &Files) -> Result<Option<String>, FileError> {
    let wanted = desired
        .files
        .get(render::DOCKER_CLIENT_CONFIGURATION)
        .is_some_and(Option::is_some);
    let mut there = false;
    for folder in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"] {
        there |= files.mode(format!("{folder}/{}", ecr::NAME))?.is_some();
    }
    let note = || format!("{} is not installed: images cannot be pulled from ECR", ecr::NAME);
    Ok((wanted && !there).then(note))
}

/// The base has nothing that could resolve them.
fn no_names(spec: &NodeSpec) -> Option<String> {
    let plan = spec.dns.plan.as_ref()?;
    (plan.resolver == Resolver::Off && spec.dns.mode != DnsMode::Off)
        .then(|| format!("names below .consul do not resolve here: {}", plan.reason))
}
