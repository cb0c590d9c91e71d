//! Owns a document as values that know where they were said, so that a fault can name document, line and column.
//! Touches nothing.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::{DuplicateKeyPolicy, Options, Spanned};

use super::fault::Fault;
use crate::node::sources::{Document, Origin};

/// The largest document that is read, in bytes. A parameter has 8 KiB, user-data 16 KiB.
const LARGEST: usize = 1024 * 1024;

/// Where something was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Document.
    pub(super) by: Rc<Origin>,
    /// Line and column, both from 1, where the parser knew them.
    pub(super) at: Option<(u64, u64)>,
}

impl Said {
    /// A fault of what was said here.
    pub(super) fn fault(&self, path: &str, message: impl Into<String>) -> Fault {
        Fault {
            origin: (*self.by).clone(),
            path: path.to_owned(),
            message: message.into(),
            place: self.at,
        }
    }
}

/// A value and where it was said.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) said: Said,
}

/// A value of YAML or JSON.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(i64),
    /// A number that is not a whole one, or too large.
    OtherNumber(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key was said.
    pub(super) said: Said,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for a message that says what it should be.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Boolean(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::OtherNumber(value) => value.to_string(),
            Self::Text(value) => format!("\"{value}\""),
            Self::List(list) if list.is_empty() => "an empty list".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl Node {
    /// The value of a key; none if this is no mapping, has no such key, or has nothing behind it, which says no more
    /// than its absence.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    /// The value at a path of keys with dots between them.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }
}

/// `path.key`, or the key alone at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// YAML as JSON, for documents that are not NodeConfig; the error says what is wrong. There is one instance of the
/// parser in the agent, and this uses it: each further type to parse into would add a hundred kilobytes.
pub(crate) fn plain(bytes: &[u8]) -> Result<Json, String> {
    let document = Document {
        origin: Origin::Sample,
        bytes: bytes.to_vec(),
    };
    parse(&document).map(json).map_err(|fault| fault.message)
}

fn json(node: Node) -> Json {
    match node.value {
        Value::Null => Json::Null,
        Value::Boolean(value) => Json::Bool(value),
        Value::Number(value) => Json::from(value),
        Value::OtherNumber(value) => Json::from(value),
        Value::Text(text) => Json::String(text),
        Value::List(list) => list.into_iter().map(json).collect(),
        Value::Map(entries) => {
            let entry = |entry: Entry| (entry.key, json(entry.node));
            Json::Object(entries.into_iter().map(entry).collect())
        }
    }
}

/// How YAML is read: a key only once; `yes`, `on` and `y` are texts as in YAML 1.2, and as editors and Terraform see
/// them; aliases only as many as people write, so that no document grows beyond what can be held.
fn yaml() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 50_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            // NodeConfig is five deep. The parser's own limit of 64 overflows a thread's stack in a debug build.
            max_depth: 20,
            flow_nesting_limit: 20,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
    }
}

/// Parses a document; YAML and JSON are both fine. A key given twice is a fault.
pub(super) fn parse(document: &Document) -> Result<Node, Fault> {
    let by = Rc::new(document.origin.clone());
    let fault = |message: String, at| Said { by: by.clone(), at }.fault("", message);
    if document.bytes.len() > LARGEST {
        return Err(fault("is larger than 1 MiB".to_owned(), None));
    }
    let text = std::str::from_utf8(&document.bytes)
        .map_err(|error| fault(format!("is not UTF-8 text: {error}"), None))?;
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, yaml()).map_err(|error| {
        let place = error.location().filter(|location| location.line() > 0);
        let said = error.without_snippet().to_string();
        // The place is told in our own words, and the parser's options are not the user's business.
        let said = said.lines().next().unwrap_or_default();
        let said = said.split(" at line ").next().unwrap_or(said);
        let said = said.split(", set DuplicateKeyPolicy").next().unwrap_or(said);
        fault(
            format!("is not readable: {said}"),
            place.map(|location| (location.line(), location.column())),
        )
    })?;
    Ok(located(raw, &by))
}

/// What the parser makes; places are taken over by [`located`].
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn said<T>(spanned: &Spanned<T>, by: &Rc<Origin>) -> Said {
    let location = spanned.referenced;
    let at = (location.line() > 0 && by.has_places()).then(|| (location.line(), location.column()));
    Said { by: by.clone(), at }
}

fn located(raw: Spanned<Raw>, by: &Rc<Origin>) -> Node {
    let place = said(&raw, by);
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(list) => Value::List(list.into_iter().map(|raw| located(raw, by)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, raw): (Spanned<String>, Spanned<Raw>)| Entry {
                said: said(&key, by),
                key: key.value,
                node: located(raw, by),
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { value, said: place }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Number(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "only shown in a message that refuses it"
        )]
        let number = i64::try_from(value).map_or(Value::OtherNumber(value as f64), Value::Number);
        Ok(Raw::Scalar(number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::OtherNumber(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn fault(text: impl Into<Vec<u8>>) -> String {
        let bytes = text.into();
        let origin = Origin::UserData;
        parse(&Document { origin, bytes })
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let document = |text: &str| Document {
            origin: Origin::UserData,
            bytes: text.into(),
        };
        for (text, kind) in [
            ("y", "\"y\""),
            ("no", "\"no\""),
            ("on", "\"on\""),
            ("true", "true"),
        ] {
            assert_eq!(parse(&document(text)).unwrap().value.kind(), kind);
        }
    }

    #[test]
    fn what_grows_without_measure_is_refused_soon() {
        let start = Instant::now();
        let steps =
            |with: &str| (0..1_000).fold(String::new(), |text, n| text + &" ".repeat(n) + with + "\n");
        let laughs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let below = n - 1;
            text + &format!("a{n}: &a{n} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
        });
        for (index, text) in [
            laughs,
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            "- ? ".repeat(40),
            steps("-"),
            steps("a:"),
            format!("[{}]", "x,".repeat(100_000)),
        ]
        .into_iter()
        .enumerate()
        {
            let told = fault(text.as_bytes());
            assert!(told.contains("is not readable"), "{index}: {told}");
        }
        assert!(fault(vec![b' '; LARGEST + 1]).ends_with("is larger than 1 MiB"));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes_are_a_tree_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&Document { origin: Origin::UserData, bytes });
        }

        #[test]
        fn any_text_is_a_tree_or_a_fault(text in "[-a-z0-9:,{}\\[\\]\"'#&*!|>%@` \n\\\\]{0,80}") {
            let _ = parse(&Document { origin: Origin::UserData, bytes: text.into_bytes() });
        }
    }
}
