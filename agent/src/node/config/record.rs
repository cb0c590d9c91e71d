//! Owns how a type says what it may be read from: one definition gives the reader, the faults, the JSON Schema and
//! the reference. Touches nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::check;
use super::fault::Fault;
use super::tree::{self, Node, Said, Value};

/// A value that a document may hold.
pub(super) trait Read: Sized {
    /// Reads it; each fault goes to `reader`, and none is returned then.
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self>;

    /// What stands for a key that is absent; none if the key must be there.
    fn absent() -> Option<Self> {
        None
    }

    /// What it may be, as JSON Schema (draft 7, which the usual editors read).
    fn schema() -> Json;
}

/// Collects faults while a tree is read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn fault(&mut self, path: &str, said: &Said, message: impl Into<String>) {
        self.faults.push(said.fault(path, message));
    }

    /// The value is of another kind.
    pub(super) fn expected(&mut self, node: &Node, path: &str, what: &str) {
        let message = format!("must be {what}, got {}", node.value.kind());
        self.fault(path, &node.said, message);
    }

    /// Checks that `node` is a mapping of no other keys than `known`.
    pub(super) fn record(&mut self, node: &Node, path: &str, known: &[&str]) -> Option<()> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, path, "a mapping");
            return None;
        };
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
        {
            let near =
                nearest(&entry.key, known).unwrap_or_else(|| format!("; known are {}", known.join(", ")));
            let path = tree::join(path, &entry.key);
            self.fault(&path, &entry.said, format!("is not a known key{near}"));
        }
        Some(())
    }

    /// Reads one key of a mapping.
    pub(super) fn field<T: Read>(&mut self, node: &Node, path: &str, key: &str) -> Option<T> {
        let path = tree::join(path, key);
        match node.get(key) {
            Some(value) => T::read(value, &path, self),
            None => T::absent().or_else(|| {
                self.fault(&path, &node.said, "is missing");
                None
            }),
        }
    }

    /// Reads a text that `check` takes.
    pub(super) fn text<T>(
        &mut self,
        node: &Node,
        path: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Value::Text(text) = &node.value else {
            self.expected(node, path, "a text (put it in quotes)");
            return None;
        };
        match check(text) {
            Ok(checked) => Some(checked),
            Err(message) => {
                self.fault(path, &node.said, message);
                None
            }
        }
    }

    /// Reads a whole number of a range.
    pub(super) fn number(&mut self, node: &Node, path: &str, range: RangeInclusive<i64>) -> Option<i64> {
        match node.value {
            Value::Number(number) if range.contains(&number) => Some(number),
            _ => {
                let what = format!("a whole number from {} to {}", range.start(), range.end());
                self.expected(node, path, &what);
                None
            }
        }
    }
}

/// Defines a struct of named keys together with everything that reads and describes it.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident $(derives $extra:ident)? {
            $( $(#[doc = $field_doc:literal])* $field:ident : $type:ty ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq $(, $extra)?)]
        pub struct $name {
            $( $(#[doc = $field_doc])* pub $field: $type ),*
        }

        impl $crate::node::config::record::Read for $name {
            fn read(
                node: &$crate::node::config::tree::Node,
                path: &str,
                reader: &mut $crate::node::config::record::Reader,
            ) -> Option<Self> {
                reader.record(node, path, &[$( stringify!($field) ),*])?;
                // All of them before the first `?`, so that every fault is found.
                $( let $field = reader.field::<$type>(node, path, stringify!($field)); )*
                Some(Self { $( $field: $field? ),* })
            }

            fn absent() -> Option<Self> {
                Some(Self {
                    $( $field: <$type as $crate::node::config::record::Read>::absent()? ),*
                })
            }

            fn schema() -> serde_json::Value {
                use $crate::node::config::record::{Key, Read, record_schema};
                record_schema(
                    concat!($($doc, "\n"),*),
                    &[$( Key {
                        name: stringify!($field),
                        description: concat!($($field_doc, "\n"),*),
                        required: <$type as Read>::absent().is_none(),
                        schema: <$type as Read>::schema(),
                    } ),*],
                )
            }
        }
    };
}
pub(super) use record;

/// Defines a type for texts of one form.
macro_rules! texts {
    ($( $(#[doc = $doc:literal])* $name:ident: $check:expr, $pattern:literal; )*) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Takes a text of the right form; the error is the rest of a sentence that says what it must be.
            pub fn new(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl $crate::node::config::record::Read for $name {
            fn read(
                node: &$crate::node::config::tree::Node,
                path: &str,
                reader: &mut $crate::node::config::record::Reader,
            ) -> Option<Self> {
                reader.text(node, path, Self::new)
            }

            fn schema() -> serde_json::Value {
                let description = concat!($($doc, "\n"),*).trim();
                serde_json::json!({ "type": "string", "pattern": $pattern, "description": description })
            }
        }

        impl $crate::node::config::record::KeyText for $name {
            fn from_key(text: &str) -> Result<Self, String> {
                Self::new(text)
            }
            const PATTERN: &'static str = $pattern;
        }
    )*

        /// Each pattern beside the check that it stands for.
        #[cfg(test)]
        pub(super) const TEXTS: &[(&str, &str, fn(&str) -> Result<(), String>)] =
            &[$( (stringify!($name), $pattern, $check) ),*];
    };
}
pub(super) use texts;

/// Defines an enum of a few words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $word_doc])* #[serde(rename = $word)] $variant ),* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The word in documents and messages.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.name())
            }
        }

        impl $crate::node::config::record::Read for $name {
            fn read(
                node: &$crate::node::config::tree::Node,
                path: &str,
                reader: &mut $crate::node::config::record::Reader,
            ) -> Option<Self> {
                let names = [$( $word ),*];
                let index = reader.word(node, path, &names)?;
                Self::ALL.get(index).copied()
            }

            fn schema() -> serde_json::Value {
                let description = concat!($($doc, "\n"),* $( , "- `", $word, "`:", $($word_doc),*, "\n" )*).trim();
                serde_json::json!({ "enum": [$( $word ),*], "description": description })
            }
        }
    };
}
pub(super) use words;

impl Reader {
    /// Reads one of a few words; its index among them.
    pub(super) fn word(&mut self, node: &Node, path: &str, words: &[&str]) -> Option<usize> {
        let text = match &node.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        let index = words.iter().position(|word| *word == text);
        if index.is_none() {
            let near = nearest(text, words).unwrap_or_default();
            let message = format!("must be {}, got {}{near}", listed(words), node.value.kind());
            self.fault(path, &node.said, message);
        }
        index
    }
}

/// A text that may be the key of a mapping with free keys.
pub(super) trait KeyText: Sized + Ord {
    const PATTERN: &'static str;
    fn from_key(text: &str) -> Result<Self, String>;
}

/// One key of a record, for its schema.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) required: bool,
    pub(super) schema: Json,
}

/// The schema of a record.
pub(super) fn record_schema(description: &str, keys: &[Key]) -> Json {
    let mut properties = serde_json::Map::new();
    for key in keys {
        let mut schema = key.schema.clone();
        // What the key is for comes before what its type is.
        let of_type = schema["description"].as_str().unwrap_or_default().to_owned();
        let own = tidy(key.description);
        let both = if of_type.is_empty() || schema["type"] == "object" {
            own
        } else {
            format!("{own}\n{of_type}")
        };
        schema["description"] = Json::String(both);
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": tidy(description),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Documentation comments as one text: each line without the space that rustfmt puts before it.
fn tidy(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

impl<T: Read> Read for Option<T> {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        T::read(node, path, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Value::List(list) = &node.value else {
            reader.expected(node, path, "a list");
            return None;
        };
        let read = |(index, node)| T::read(node, &format!("{path}[{index}]"), reader);
        let values: Vec<Option<T>> = list.iter().enumerate().map(read).collect();
        values.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

impl<K: KeyText, T: Read> Read for BTreeMap<K, T> {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            reader.expected(node, path, "a mapping");
            return None;
        };
        let mut map = Some(Self::new());
        for entry in entries {
            let path = tree::join(path, &entry.key);
            let key = K::from_key(&entry.key)
                .map_err(|message| reader.fault(&path, &entry.said, format!("as a key {message}")));
            let value = T::read(&entry.node, &path, reader);
            match (&mut map, key, value) {
                (Some(map), Ok(key), Some(value)) => {
                    map.insert(key, value);
                }
                _ => map = None,
            }
        }
        map
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": K::PATTERN },
            "additionalProperties": T::schema(),
        })
    }
}

impl Read for bool {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Value::Boolean(value) = node.value else {
            reader.expected(node, path, "true or false");
            return None;
        };
        Some(value)
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number from `LOWEST` to `HIGHEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const LOWEST: i64, const HIGHEST: i64>(i64);

impl<const LOWEST: i64, const HIGHEST: i64> Number<LOWEST, HIGHEST> {
    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<const LOWEST: i64, const HIGHEST: i64> Read for Number<LOWEST, HIGHEST> {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        reader.number(node, path, LOWEST..=HIGHEST).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": LOWEST, "maximum": HIGHEST })
    }
}

impl Read for Duration {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        reader.text(node, path, check::duration)
    }

    fn schema() -> Json {
        json!({
            "type": "string",
            "pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$",
            "description": "A time such as 90s, 5m or 1h30m.",
        })
    }
}

/// `a, b or c`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `; did you mean …?` for the name with the fewest edits, if they are few for its length.
fn nearest(given: &str, known: &[&str]) -> Option<String> {
    let (distance, name) = known.iter().map(|name| (edits(given, name), name)).min()?;
    (!given.is_empty() && distance <= 1 + name.len() / 4).then(|| format!("; did you mean {name}?"))
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
        assert_eq!(nearest("encrypt", &["datacenter", "retry_join"]), None);
        assert_eq!(
            nearest("retry-join", &["datacenter", "retry_join"]).unwrap(),
            "; did you mean retry_join?"
        );
    }
}
