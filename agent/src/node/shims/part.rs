//! Owns what one of the old commands says of a node: its part of a NodeConfig, and what must be kept for it.
//! Touches nothing.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::flags::Given;
use crate::node::config::Role;

/// A part of a NodeConfig, from flags.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// What the node is for, as far as this command says.
    pub(super) roles: Vec<Role>,
    /// Keys and values, without version and role.
    pub(super) says: Map<String, Json>,
    /// What holds if no other source says it: key path and value.
    pub(super) otherwise: Vec<(&'static str, Json)>,
    /// Whether the Consul agent is to join nobody, unless another source says whom.
    pub(super) joins_nobody: bool,
    /// Files to keep: path, permission bits, content.
    pub(super) files: Vec<(&'static str, u32, Vec<u8>)>,
    /// What the caller should know.
    pub(super) notes: Vec<String>,
}

impl Part {
    /// Says a value at a path of keys with dots between them.
    pub(super) fn say(&mut self, path: &str, value: Json) {
        let keys: Vec<&str> = path.split('.').collect();
        put(&mut self.says, &keys, value);
    }

    /// Says a value under a key that may hold anything, in the mapping at `path`.
    pub(super) fn say_free(&mut self, path: &str, key: &str, value: &str) {
        let keys: Vec<&str> = path.split('.').chain([key]).collect();
        put(&mut self.says, &keys, Json::String(value.to_owned()));
    }

    /// Says a value that gives way to every other source.
    pub(super) fn unless_said(&mut self, path: &'static str, value: Json) {
        self.otherwise.push((path, value));
    }
}

fn put(map: &mut Map<String, Json>, keys: &[&str], value: Json) {
    match keys {
        [] => {}
        [last] => {
            map.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let below = map.entry(*first).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

/// A note for each of some flags that were given and have no effect.
pub(super) fn without_effect(given: &Given, flags: &[&'static str], because: &str) -> Vec<String> {
    let note = |name: &str| format!("{name} has no effect {because}");
    given.among(flags).into_iter().map(note).collect()
}

/// A path without what makes no difference: a slash at its end, doubled ones, `.`.
pub(super) fn absolute(path: &str) -> String {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    if path.starts_with('/') {
        format!("/{}", names.join("/"))
    } else {
        path.to_owned()
    }
}

/// A flag that names a folder of the image, which is where it is.
pub(super) fn folder(given: &Given, flag: &str, only: &str) -> Result<(), String> {
    match given.value(flag) {
        Some(path) if absolute(path) != only => Err(format!(
            "{flag} can only be {only}, where the image has it and its units look for it, got {path}"
        )),
        _ => Ok(()),
    }
}

/// Text for people: a document as YAML.
pub(super) fn yaml(map: &Map<String, Json>, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for (key, value) in map {
        // A word stands for itself; whatever else a key is, JSON's quotes are YAML's.
        let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let plain = key.chars().all(word) && key.starts_with(|first: char| first.is_ascii_alphabetic());
        let key = if plain {
            key.clone()
        } else {
            Json::String(key.clone()).to_string()
        };
        match value {
            Json::Object(map) if !map.is_empty() => {
                let _ = writeln!(text, "{indent}{key}:");
                yaml(map, depth + 1, text);
            }
            other => {
                let _ = writeln!(text, "{indent}{key}: {other}");
            }
        }
    }
}
