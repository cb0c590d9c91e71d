//! Owns what holds for a key that nobody says, in the words of its documentation: `; … if absent.`
//! Touches nothing.

use serde_json::Value as Json;

use super::roles::{Roles, has_place};
use super::schema::whole;
use super::tree::join;

/// What holds for one key that nobody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Default {
    /// Key path.
    pub path: String,
    /// What holds, in words.
    pub words: String,
}

/// Every key that `said` does not have, that has a place on a node of these roles, and for which something holds all
/// the same. `said` are the key paths of what documents say.
pub fn defaults(roles: Option<&Roles>, said: &[&str]) -> Vec<Default> {
    let mut all = Vec::new();
    look(whole(), "", &mut |path, schema, needed| {
        let is_said = said.iter().any(|said| {
            let rest = said.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        if is_said {
            return true;
        }
        if !has_place(path, roles) {
            return false;
        }
        let words = absent(schema["description"].as_str().unwrap_or_default());
        match words {
            Some(words) => {
                all.push(Default {
                    path: path.to_owned(),
                    words,
                });
                false
            }
            // Of a section that is not there and could not be without more, nothing holds.
            None => needed || schema["required"].is_null(),
        }
    });
    all
}

/// Goes through all keys; into a section only if `visit` says so.
/// `visit` hears the path, its schema, and whether it must be there.
fn look(schema: &Json, path: &str, visit: &mut impl FnMut(&str, &Json, bool) -> bool) {
    let required = schema["required"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = join(path, key);
        let needed = required.iter().any(|required| required == key);
        if visit(&path, value, needed) {
            look(value, &path, visit);
        }
    }
}

/// The words before `if absent` in the last of a key's own sentences that has them.
fn absent(description: &str) -> Option<String> {
    let text = description.lines().collect::<Vec<_>>().join(" ");
    let (before, _) = text.split_once(" if absent")?;
    let start = [before.rfind("; "), before.rfind(". ")]
        .into_iter()
        .flatten()
        .max()
        .map_or(0, |end| end + 2);
    let words = before[start..].trim().trim_end_matches(',');
    let mut characters = words.chars();
    let first = characters.next()?;
    // A sentence of its own begins large.
    let first = if words.starts_with("True") || words.starts_with("False") {
        first.to_ascii_lowercase()
    } else {
        first
    };
    Some(std::iter::once(first).chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::super::roles::Role;
    use super::*;

    fn words(roles: &Roles, said: &[&str], path: &str) -> Option<String> {
        let found = defaults(Some(roles), said).into_iter();
        found
            .filter(|default| default.path == path)
            .map(|default| default.words)
            .next()
    }

    #[test]
    fn what_holds_is_what_the_documentation_says() {
        let client = Role::NomadClient.into();
        for (path, expected) in [
            ("datacenter", Some("the availability zone")),
            ("consul.datacenter", Some("the AWS region")),
            ("consul.manage_configuration", Some("true")),
            ("consul.tls", Some("none")),
            ("consul.tls.https", None),
            ("nomad.drain_deadline", Some("5m")),
            ("log.file", Some("/var/log/user-data.log")),
            // A client has no such keys.
            ("consul.ui", None),
            ("nomad.autopilot.cleanup_dead_servers", None),
            // Nothing holds for a section that is not there.
            ("instance_store", None),
            ("instance_store.file_system", None),
        ] {
            assert_eq!(words(&client, &[], path).as_deref(), expected, "{path}");
        }
        let server = Role::ConsulServer.into();
        assert_eq!(words(&server, &[], "consul.ui").as_deref(), Some("true"));
        assert_eq!(words(&server, &["consul.ui"], "consul.ui"), None);
        let tls = ["consul.tls.ca", "consul.tls.key"];
        assert_eq!(words(&server, &tls, "consul.tls.https").as_deref(), Some("true"));
        assert_eq!(words(&server, &tls, "consul.tls"), None);
    }

    #[test]
    fn every_key_that_may_be_absent_says_what_holds_then() {
        // For these, absence is what it says: there is none of it.
        const NOTHING: &[&str] = &[
            "consul.acl.agent_token",
            "consul.acl.default_token",
            "consul.acl.initial_management_token",
            "consul.autopilot.disable_upgrade_migration",
            "consul.autopilot.min_quorum",
            "consul.autopilot.redundancy_zone_tag",
            "consul.autopilot.upgrade_version_tag",
            "consul.bootstrap_expect",
            "consul.gossip_key",
            // Needed where COS writes the configuration.
            "consul.retry_join",
            "consul.service.environment",
            "disks",
            "docker",
            "ecr.registries",
            "ecr.users",
            "efs",
            "include",
            "instance_store",
            "nomad.autopilot.disable_upgrade_migration",
            "nomad.autopilot.min_quorum",
            "nomad.autopilot.redundancy_zone_tag",
            "nomad.autopilot.upgrade_version_tag",
            "nomad.bootstrap_expect",
            "nomad.client_options",
            "nomad.consul_token",
            "nomad.gossip_key",
            "nomad.host_volumes",
            "nomad.introduction_token",
            "nomad.meta",
            "nomad.service.environment",
        ];
        let mut silent = Vec::new();
        look(whole(), "", &mut |path, schema, needed| {
            let words = absent(schema["description"].as_str().unwrap_or_default());
            let leaf = schema["properties"].is_null();
            let required = schema["required"].is_array();
            if words.is_none() && !needed && (leaf || required) && !NOTHING.contains(&path) {
                silent.push(path.to_owned());
            }
            words.is_none() && (needed || !required)
        });
        assert_eq!(silent, Vec::<String>::new());
    }
}
