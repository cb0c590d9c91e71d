//! Owns NodeConfig as JSON Schema, and the reference for people that is made of it.
//! Touches nothing.

use std::fmt::Write;
use std::sync::OnceLock;

use serde_json::Value as Json;

use super::node_config::NodeConfig;
use super::record::{Read, listed};
use super::roles;
use super::tree::join;
use super::values::SecretSource;

/// JSON Schema of a NodeConfig document, draft 7.
pub fn json_schema() -> Json {
    let mut schema = NodeConfig::schema();
    schema["$schema"] = Json::from("http://json-schema.org/draft-07/schema#");
    schema["title"] = Json::from("NodeConfig of COS, version 1");
    schema
}

/// The schema, made once: a tag or a flag looks into it several times.
pub(super) fn whole() -> &'static Json {
    static WHOLE: OnceLock<Json> = OnceLock::new();
    WHOLE.get_or_init(NodeConfig::schema)
}

/// A place in a NodeConfig, found by its key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The keys that lead there. The last may hold dots where keys are free, as those of metadata are.
    pub keys: Vec<String>,
    /// Whether nothing but a text can stand there.
    pub text: bool,
    /// Whether nothing but more keys can stand there.
    pub section: bool,
    /// Whether what stands there says where a secret is.
    pub secret: bool,
}

/// The place that a path of keys with dots between them leads to; none if there is no such key.
pub fn slot(path: &str) -> Option<Slot> {
    let mut schema = whole();
    let mut keys: Vec<String> = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('.').unwrap_or((rest, ""));
        let choices = schema["anyOf"].as_array().into_iter().flatten();
        let named = [schema]
            .into_iter()
            .chain(choices)
            .find_map(|choice| choice["properties"].get(key));
        if let Some(named) = named {
            keys.push(key.to_owned());
            schema = named;
            rest = behind;
            continue;
        }
        let free = &schema["additionalProperties"];
        if !free.is_object() {
            return None;
        }
        // Keys that lead further have no dots; of others the rest is one.
        let (key, behind) = if free["properties"].is_object() {
            (key, behind)
        } else {
            (rest, "")
        };
        keys.push(key.to_owned());
        schema = free;
        rest = behind;
    }
    Some(Slot {
        keys,
        text: schema["type"] == "string",
        section: schema["type"] == "object",
        secret: schema["pattern"] == SecretSource::schema()["pattern"],
    })
}

/// The keys of the document itself, in the order in which they are documented.
pub fn top_keys() -> Vec<String> {
    let properties = whole()["properties"].as_object();
    properties
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect()
}

/// Every key with what it is, as Markdown.
pub fn reference() -> String {
    let mut text = String::from("| key | holds | |\n|---|---|---|\n");
    rows(whole(), "", &mut text);
    text
}

fn rows(schema: &Json, path: &str, text: &mut String) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let required = |key: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|required| required.iter().any(|name| name == key))
    };
    for (key, value) in properties {
        let path = join(path, key);
        let words = value["description"].as_str().unwrap_or_default();
        let words = words.lines().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let needed = if required(key) { "**needed.** " } else { "" };
        let only = only(&path)
            .map(|roles| format!("*{roles} only.* "))
            .unwrap_or_default();
        // What does nothing yet is refused, and says so.
        let _ = writeln!(text, "| `{path}` | {} | {needed}{only}{words} |", holds(value));
        rows(value, &path, text);
        rows(&value["items"], &format!("{path}[]"), text);
        rows(&value["additionalProperties"], &join(&path, "NAME"), text);
        for choice in value["anyOf"].as_array().into_iter().flatten() {
            rows(choice, &path, text);
        }
    }
}

/// The roles that alone have a key, where not all have it.
fn only(path: &str) -> Option<String> {
    let names: Vec<&str> = roles::only(path)?.iter().map(|role| role.name()).collect();
    Some(listed(&names))
}

/// What a key may hold, in two words.
fn holds(schema: &Json) -> String {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                format!(
                    "`{}`",
                    word.as_str().map_or_else(|| word.to_string(), str::to_owned)
                )
            })
            .collect();
        return words.join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array().filter(|_| schema["type"].is_null()) {
        return choices.iter().map(holds).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", holds(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("mapping of {}", holds(&schema["additionalProperties"]))
        }
        Some("object") => "mapping".to_owned(),
        Some("integer") if schema["minimum"] == schema["maximum"] => schema["minimum"].to_string(),
        Some("integer") => format!("{} to {}", schema["minimum"], schema["maximum"]),
        Some("string") => "text".to_owned(),
        Some(other) => other.to_owned(),
        None => "value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        fn look(schema: &Json, path: &str) {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                let path = join(path, key);
                assert!(
                    value["description"]
                        .as_str()
                        .is_some_and(|words| words.ends_with('.')),
                    "{path}: {value}"
                );
                look(value, &path);
                look(&value["items"], &path);
                look(&value["additionalProperties"], &path);
            }
        }
        look(&json_schema(), "");
    }

    #[test]
    fn the_reference_has_nested_keys() {
        let reference = reference();
        for key in [
            "`consul.retry_join.tag_key`",
            "`disks[].mount`",
            "`nomad.host_volumes.NAME.path`",
        ] {
            assert!(reference.contains(key), "{key} is not in\n{reference}");
        }
    }
}
