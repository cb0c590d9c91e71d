//! Owns what a node can be for, and which keys have a place in which role.
//! Touches nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::record::{Read, Reader};
use super::tree::{Node, Value};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A Consul agent and nothing else of COS; what it is for is somebody else's business.
    ConsulClient,
    /// A Consul server.
    ConsulServer,
    /// A Nomad server with a Consul agent beside it.
    NomadServer,
    /// A Nomad client, which runs jobs, with Docker and a Consul agent beside it.
    NomadClient,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [
        Self::ConsulClient,
        Self::ConsulServer,
        Self::NomadServer,
        Self::NomadClient,
    ];

    /// The role's name in documents and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsulClient => "consul-client",
            Self::ConsulServer => "consul-server",
            Self::NomadServer => "nomad-server",
            Self::NomadClient => "nomad-client",
        }
    }

    /// Whether Nomad runs on such a node.
    pub const fn has_nomad(self) -> bool {
        matches!(self, Self::NomadServer | Self::NomadClient)
    }

    const NAMES: [&str; 4] = [
        Self::ConsulClient.name(),
        Self::ConsulServer.name(),
        Self::NomadServer.name(),
        Self::NomadClient.name(),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Read for Role {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let index = reader.word(node, path, &Self::NAMES)?;
        Self::ALL.get(index).copied()
    }

    fn schema() -> Json {
        json!({ "enum": Self::NAMES })
    }
}

/// All that one node is for; at least one role. In documents and records one role is a text, several are a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Roles(BTreeSet<Role>);

/// How [`Roles`] are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(Role),
    Several(Vec<Role>),
}

impl From<Roles> for Written {
    fn from(roles: Roles) -> Self {
        let roles: Vec<Role> = roles.0.into_iter().collect();
        match roles.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Several(roles),
        }
    }
}

impl TryFrom<Written> for Roles {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let roles = match written {
            Written::One(role) => vec![role],
            Written::Several(roles) => roles,
        };
        if roles.is_empty() {
            return Err("a node has at least one role");
        }
        Ok(Self(roles.into_iter().collect()))
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(BTreeSet::from([role]))
    }
}

impl Roles {
    /// Roles that one node may have together.
    const TOGETHER: [Role; 3] = [Role::ConsulServer, Role::NomadServer, Role::NomadClient];

    /// Whether the node is for this.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether Nomad runs, as server or client.
    pub fn has_nomad(&self) -> bool {
        self.0.iter().any(|role| role.has_nomad())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| role.name()).collect();
        formatter.write_str(&names.join(" and "))
    }
}

impl Read for Roles {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Value::List(list) = &node.value else {
            return Role::read(node, path, reader).map(Self::from);
        };
        if list.is_empty() {
            reader.expected(node, path, "a role or a list of roles");
        }
        let roles = Vec::<Role>::read(node, path, reader)?;
        if roles.iter().collect::<BTreeSet<_>>().len() < roles.len() {
            reader.fault(path, &node.said, "has a role twice");
            return None;
        }
        if roles.contains(&Role::ConsulClient) && roles.iter().any(|role| *role != Role::ConsulClient) {
            let message = "has consul-client beside another role, and every role has a Consul agent";
            reader.fault(path, &node.said, message);
            return None;
        }
        (!roles.is_empty()).then(|| Self(roles.into_iter().collect()))
    }

    fn schema() -> Json {
        let together: Vec<&str> = Self::TOGETHER.map(Role::name).to_vec();
        json!({ "anyOf": [
            Role::schema(),
            { "type": "array", "items": { "enum": together }, "minItems": 1, "uniqueItems": true },
            { "type": "array", "items": { "enum": [Role::ConsulClient.name()] }, "minItems": 1, "maxItems": 1 },
        ]})
    }
}

/// A key that only some roles have.
struct Rule {
    path: &'static str,
    roles: &'static [Role],
    why: &'static str,
}

const fn rule(path: &'static str, roles: &'static [Role], why: &'static str) -> Rule {
    Rule { path, roles, why }
}

/// Every key that has no place on some node, so that a setting is never silently without effect.
const RULES: [Rule; 22] = {
    use Role::{ConsulServer, NomadClient, NomadServer};
    const CONSUL: &str = ": only consul-server has it";
    const SERVER: &str = ": only nomad-server has it";
    const CLIENT: &str = ": only clients have it";
    [
        rule("consul.bootstrap_expect", &[ConsulServer], CONSUL),
        rule("consul.autopilot", &[ConsulServer], CONSUL),
        rule("consul.ui", &[ConsulServer], CONSUL),
        rule("consul.acl.initial_management_token", &[ConsulServer], CONSUL),
        rule("nomad", &[NomadServer, NomadClient], ""),
        rule("nomad.bootstrap_expect", &[NomadServer], SERVER),
        rule("nomad.autopilot", &[NomadServer], SERVER),
        rule("nomad.gossip_key", &[NomadServer], SERVER),
        rule("nomad.kms_key", &[NomadServer], SERVER),
        rule("nomad.client_introduction", &[NomadServer], SERVER),
        rule("nomad.node_pool", &[NomadClient], CLIENT),
        rule("nomad.meta", &[NomadClient], CLIENT),
        rule("nomad.host_volumes", &[NomadClient], CLIENT),
        rule("nomad.client_options", &[NomadClient], CLIENT),
        rule("nomad.drain_deadline", &[NomadClient], CLIENT),
        rule("nomad.introduction_token", &[NomadClient], CLIENT),
        rule("docker", &[NomadClient], ": only nomad-client runs Docker"),
        rule("ecr.users", &[NomadClient], ": only nomad-client runs Docker"),
        rule("readiness.eligible", &[NomadClient], CLIENT),
        rule("watch.rebalance", &[NomadClient], CLIENT),
        rule("watch.drain_deadline", &[NomadClient], CLIENT),
        rule("watch.scheduled_event_lead", &[NomadClient], CLIENT),
    ]
};

/// Whether a key has a place on a node of these roles; yes if they are not known.
pub(super) fn has_place(path: &str, roles: Option<&Roles>) -> bool {
    let about = |rule: &&Rule| {
        let rest = path.strip_prefix(rule.path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let fits = |roles: &Roles| {
        let mut rules = RULES.iter().filter(about);
        rules.all(|rule| rule.roles.iter().any(|role| roles.has(*role)))
    };
    roles.is_none_or(fits)
}

/// The roles that alone have this very key, where not all have it.
pub(super) fn only(path: &str) -> Option<&'static [Role]> {
    let rule = RULES.iter().find(|rule| rule.path == path)?;
    Some(rule.roles)
}

/// Keys that a role cannot do without: never assumed, because a wrong guess makes two clusters.
const NEEDED: [(Role, &str); 2] = [
    (Role::ConsulServer, "consul.bootstrap_expect"),
    (Role::NomadServer, "nomad.bootstrap_expect"),
];

/// Finds keys without a place, and keys that are missing.
pub(super) fn check(root: &Node, roles: &Roles, reader: &mut Reader) {
    for rule in RULES {
        // Where the whole of it has no place, its parts need no word of their own.
        let covered = |outer: &Rule| {
            rule.path
                .strip_prefix(outer.path)
                .is_some_and(|rest| rest.starts_with('.'))
                && !outer.roles.iter().any(|role| roles.has(*role))
        };
        if rule.roles.iter().any(|role| roles.has(*role)) || RULES.iter().any(covered) {
            continue;
        }
        if let Some(node) = root.at(rule.path) {
            let message = format!("has no place in role {roles}{}", rule.why);
            reader.fault(rule.path, &node.said, message);
        }
    }
    for (role, path) in NEEDED {
        if roles.has(role) && root.at(path).is_none() {
            let owner = path
                .rsplit_once('.')
                .and_then(|(owner, _)| root.at(owner))
                .unwrap_or(root);
            reader.fault(path, &owner.said, format!("is missing: role {role} needs it"));
        }
    }
    let managed = root
        .at("consul.manage_configuration")
        .is_none_or(|node| !matches!(node.value, Value::Boolean(false)));
    if managed && root.at("consul.retry_join").is_none() {
        let owner = root.get("consul").unwrap_or(root);
        reader.fault("consul.retry_join", &owner.said, "is missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_role_is_a_text_and_several_are_a_list() {
        let one = Roles::from(Role::NomadClient);
        assert_eq!(serde_json::to_string(&one).unwrap(), r#""nomad-client""#);
        let both: Roles = serde_json::from_str(r#"["nomad-client","consul-server"]"#).unwrap();
        assert_eq!(both.to_string(), "consul-server and nomad-client");
        assert!(serde_json::from_str::<Roles>("[]").is_err());
        assert_eq!(serde_json::from_str::<Roles>(r#""nomad-client""#).unwrap(), one);
    }
}
