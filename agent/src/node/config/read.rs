//! Owns reading `NodeConfig` from a document: every key known, every fault found, each with its place.
//! Touches nothing.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::check;
use super::fault::{Fault, Faults};
use super::tree::{self, Value};
use super::{ConsulConfig, NodeConfig, NomadConfig, Registry, RetryJoin, Role, VERSION};
use crate::node::sources::{Document, Origin};

/// Reads a document. All that is wrong with it comes at once.
pub fn read(document: &Document) -> Result<NodeConfig, Faults> {
    let tree = tree::parse(document).map_err(|fault| Faults(vec![fault]))?;
    let mut reader = Reader {
        origin: &document.origin,
        faults: Vec::new(),
    };
    let config = reader.node(&tree);
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        _ => {
            reader.faults.sort_by_key(|fault| fault.place);
            Err(Faults(reader.faults))
        }
    }
}

type Located = Spanned<Value>;

/// Collects faults while the tree is read.
struct Reader<'a> {
    origin: &'a Origin,
    faults: Vec<Fault>,
}

/// The entries of one mapping, by key; the keys it may have were checked.
struct Entries<'t> {
    path: String,
    place: Option<(u64, u64)>,
    by_key: BTreeMap<&'t str, &'t Located>,
}

impl<'t> Entries<'t> {
    fn get(&self, key: &str) -> Option<&'t Located> {
        // `key:` with nothing behind it says no more than its absence.
        self.by_key
            .get(key)
            .copied()
            .filter(|value| !matches!(value.value, Value::Null))
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

impl Reader<'_> {
    fn node(&mut self, tree: &Located) -> Option<NodeConfig> {
        // The version comes first: of another version nothing else is known.
        if let Value::Map(entries) = &tree.value
            && let Some((_, version)) = entries.iter().find(|(key, _)| key.value == "version")
            && !matches!(version.value, Value::Number(number) if u64::try_from(number) == Ok(VERSION))
        {
            let message = format!(
                "must be {VERSION}, got {}; this agent knows no other",
                version.value.kind()
            );
            self.fault("version", tree::place(version), message);
            return None;
        }
        let node = self.entries(
            tree,
            "",
            &[
                "version",
                "role",
                "datacenter",
                "consul",
                "nomad",
                "ecr",
                "docker",
            ],
        )?;
        if node.get("version").is_none() {
            self.missing(&node, "version");
        }
        let role = self.role(&node);
        let datacenter = self.text(&node, "datacenter", check::nomad_name);
        let consul = self.consul(&node, role);
        let nomad = self.nomad(&node, role);
        let registries = self.registries(&node);
        let docker_privileged = self.docker(&node, role);
        Some(NodeConfig {
            role: role?,
            datacenter,
            consul: consul?,
            nomad,
            registries,
            docker_privileged: docker_privileged.unwrap_or(false),
        })
    }

    fn role(&mut self, node: &Entries) -> Option<Role> {
        let Some(value) = node.get("role") else {
            self.missing(node, "role");
            return None;
        };
        let role = match &value.value {
            Value::Text(text) => Role::ALL.into_iter().find(|role| role.name() == text),
            _ => None,
        };
        if role.is_none() {
            let names = Role::ALL.map(Role::name);
            let near = match &value.value {
                Value::Text(text) => nearest(text, &names),
                _ => String::new(),
            };
            let message = format!("must be {}, got {}{near}", listed(&names), value.value.kind());
            self.fault("role", tree::place(value), message);
        }
        role
    }

    fn consul(&mut self, node: &Entries, role: Option<Role>) -> Option<ConsulConfig> {
        let Some(value) = node.get("consul") else {
            self.missing(node, "consul");
            return None;
        };
        let consul = self.entries(
            value,
            "consul",
            &["datacenter", "retry_join", "bootstrap_expect", "recursors"],
        )?;
        let datacenter = self.text(&consul, "datacenter", check::consul_datacenter);
        let retry_join = self.retry_join(&consul);
        let bootstrap_expect = self.bootstrap_expect(&consul, role, Role::ConsulServer);
        let mut recursors = Vec::new();
        for (path, value) in self.list(&consul, "recursors") {
            recursors.extend(self.text_of(value, &path, check::address));
        }
        Some(ConsulConfig {
            datacenter,
            retry_join: retry_join?,
            bootstrap_expect,
            recursors,
        })
    }

    fn retry_join(&mut self, consul: &Entries) -> Option<RetryJoin> {
        let Some(value) = consul.get("retry_join") else {
            self.missing(consul, "retry_join");
            return None;
        };
        let path = consul.path_of("retry_join");
        match &value.value {
            Value::Map(_) => {
                let tag = self.entries(value, &path, &["tag_key", "tag_value"])?;
                let key = self.required_text(&tag, "tag_key", |text| check::tag(text, 128));
                let value = self.required_text(&tag, "tag_value", |text| check::tag(text, 256));
                Some(RetryJoin::Tag {
                    key: key?,
                    value: value?,
                })
            }
            Value::List(list) if !list.is_empty() => {
                let mut addresses = Vec::new();
                for (path, value) in self.list(consul, "retry_join") {
                    let address = |text: &str| check::join_address(text).map(|()| text.to_owned());
                    addresses.extend(self.text_of(value, &path, address));
                }
                Some(RetryJoin::Addresses(addresses))
            }
            other => {
                let message = format!(
                    "must be a mapping with tag_key and tag_value, or a list of addresses, got {}",
                    if matches!(other, Value::List(_)) {
                        "an empty list".to_owned()
                    } else {
                        other.kind()
                    }
                );
                self.fault(&path, tree::place(value), message);
                None
            }
        }
    }

    fn nomad(&mut self, node: &Entries, role: Option<Role>) -> NomadConfig {
        let Some(value) = node.get("nomad") else {
            if role == Some(Role::NomadServer) {
                let message = "is missing: role nomad-server needs it";
                self.fault("nomad.bootstrap_expect", node.place, message.to_owned());
            }
            return NomadConfig::default();
        };
        if role == Some(Role::ConsulServer) {
            self.fault(
                "nomad",
                tree::place(value),
                "has no place in role consul-server".to_owned(),
            );
        }
        let Some(nomad) = self.entries(
            value,
            "nomad",
            &["bootstrap_expect", "region", "node_pool", "meta"],
        ) else {
            return NomadConfig::default();
        };
        if role == Some(Role::NomadServer) {
            for key in ["node_pool", "meta"] {
                if let Some(value) = nomad.get(key) {
                    let message = "has no place in role nomad-server: only clients have it";
                    self.fault(&nomad.path_of(key), tree::place(value), message.to_owned());
                }
            }
        }
        NomadConfig {
            bootstrap_expect: self.bootstrap_expect(&nomad, role, Role::NomadServer),
            region: self.text(&nomad, "region", check::nomad_name),
            node_pool: self.text(&nomad, "node_pool", check::node_pool),
            meta: self.meta(&nomad),
        }
    }

    fn meta(&mut self, nomad: &Entries) -> BTreeMap<String, String> {
        let mut meta = BTreeMap::new();
        let Some(value) = nomad.get("meta") else {
            return meta;
        };
        let path = nomad.path_of("meta");
        let Value::Map(entries) = &value.value else {
            self.expected(value, &path, "a mapping of texts");
            return meta;
        };
        for (key, value) in entries {
            let path = join(&path, &key.value);
            if let Err(message) = check::meta_key(&key.value) {
                self.fault(&path, tree::place(key), format!("as a key {message}"));
            }
            let plain = |text: &str| check::plain_text(text).map(|()| text.to_owned());
            if let Some(text) = self.text_of(value, &path, plain) {
                meta.insert(key.value.clone(), text);
            }
        }
        meta
    }

    /// Required for `owner`, refused for every other role, and never assumed: a wrong guess makes two clusters.
    fn bootstrap_expect(&mut self, entries: &Entries, role: Option<Role>, owner: Role) -> Option<u32> {
        let Some(value) = entries.get("bootstrap_expect") else {
            if role == Some(owner) {
                let message = format!("is missing: role {owner} needs it");
                self.fault(&entries.path_of("bootstrap_expect"), entries.place, message);
            }
            return None;
        };
        let path = entries.path_of("bootstrap_expect");
        if let Some(role) = role.filter(|role| *role != owner) {
            let message = format!("has no place in role {role}: only {owner} has it");
            self.fault(&path, tree::place(value), message);
        }
        let Value::Number(number) = value.value else {
            self.expected(value, &path, "a number");
            return None;
        };
        match check::bootstrap_expect(number) {
            Ok(number) => Some(number),
            Err(message) => {
                self.fault(&path, tree::place(value), message);
                None
            }
        }
    }

    fn registries(&mut self, node: &Entries) -> Vec<Registry> {
        let Some(value) = node.get("ecr") else {
            return Vec::new();
        };
        let Some(ecr) = self.entries(value, "ecr", &["registries"]) else {
            return Vec::new();
        };
        let mut registries = Vec::new();
        for (path, value) in self.list(&ecr, "registries") {
            let Some(entry) = self.entries(value, &path, &["account", "region"]) else {
                continue;
            };
            let account = self.text(&entry, "account", check::account);
            let region = self.text(&entry, "region", check::region);
            registries.push(Registry { account, region });
        }
        registries
    }

    fn docker(&mut self, node: &Entries, role: Option<Role>) -> Option<bool> {
        let value = node.get("docker")?;
        if let Some(role) = role.filter(|role| *role != Role::NomadClient) {
            let message = format!("has no place in role {role}: only nomad-client runs Docker");
            self.fault("docker", tree::place(value), message);
        }
        let docker = self.entries(value, "docker", &["privileged"])?;
        let value = docker.get("privileged")?;
        let Value::Boolean(privileged) = value.value else {
            self.expected(value, "docker.privileged", "true or false");
            return None;
        };
        Some(privileged)
    }

    /// The entries of a mapping; keys that it may not have are faults.
    fn entries<'t>(&mut self, value: &'t Located, path: &str, known: &[&str]) -> Option<Entries<'t>> {
        let Value::Map(entries) = &value.value else {
            self.expected(value, path, "a mapping");
            return None;
        };
        let mut by_key = BTreeMap::new();
        for (key, value) in entries {
            if known.contains(&key.value.as_str()) {
                by_key.insert(key.value.as_str(), value);
            } else {
                let near = nearest(&key.value, known);
                let near = if near.is_empty() {
                    format!("; known are {}", known.join(", "))
                } else {
                    near
                };
                self.fault(
                    &join(path, &key.value),
                    tree::place(key),
                    format!("is not a known key{near}"),
                );
            }
        }
        Some(Entries {
            path: path.to_owned(),
            place: tree::place(value),
            by_key,
        })
    }

    fn list<'t>(&mut self, entries: &Entries<'t>, key: &str) -> Vec<(String, &'t Located)> {
        let Some(value) = entries.get(key) else {
            return Vec::new();
        };
        let path = entries.path_of(key);
        let Value::List(list) = &value.value else {
            self.expected(value, &path, "a list");
            return Vec::new();
        };
        list.iter()
            .enumerate()
            .map(|(index, value)| (format!("{path}[{index}]"), value))
            .collect()
    }

    fn text(
        &mut self,
        entries: &Entries,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        let value = entries.get(key)?;
        self.text_of(value, &entries.path_of(key), |text| {
            check(text).map(|()| text.to_owned())
        })
    }

    fn required_text(
        &mut self,
        entries: &Entries,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        if entries.get(key).is_none() {
            self.missing(entries, key);
        }
        self.text(entries, key, check)
    }

    fn text_of<T>(
        &mut self,
        value: &Located,
        path: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Value::Text(text) = &value.value else {
            self.expected(value, path, "a text (put it in quotes)");
            return None;
        };
        match check(text) {
            Ok(checked) => Some(checked),
            Err(message) => {
                self.fault(path, tree::place(value), message);
                None
            }
        }
    }

    fn missing(&mut self, entries: &Entries, key: &str) {
        self.fault(&entries.path_of(key), entries.place, "is missing".to_owned());
    }

    fn expected(&mut self, value: &Located, path: &str, what: &str) {
        self.fault(
            path,
            tree::place(value),
            format!("must be {what}, got {}", value.value.kind()),
        );
    }

    fn fault(&mut self, path: &str, place: Option<(u64, u64)>, message: String) {
        self.faults.push(Fault {
            origin: self.origin.clone(),
            path: path.to_owned(),
            message,
            place,
        });
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `; did you mean …?` for the name with the fewest edits, if they are few for its length.
fn nearest(given: &str, known: &[&str]) -> String {
    let best = known.iter().map(|name| (edits(given, name), name)).min();
    match best {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// How many characters must be put in, taken out or changed (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, character) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..to.len() {
            let change = diagonal + usize::from(character != to[column]);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_counts_what_a_hand_would_change() {
        assert_eq!(edits("datacentre", "datacenter"), 2);
        assert_eq!(edits("", "role"), 4);
        assert_eq!(edits("role", "role"), 0);
    }

    #[test]
    fn a_far_name_is_not_suggested() {
        assert_eq!(nearest("encrypt", &["datacenter", "retry_join"]), "");
        assert_eq!(
            nearest("retry-join", &["datacenter", "retry_join"]),
            "; did you mean retry_join?"
        );
    }
}
