//! Owns a document as values that know their place, so that a fault can name line and column.
//! Touches nothing.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::fault::Fault;
use crate::node::sources::Document;

/// A value of YAML or JSON.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(i64),
    /// A number that is not a whole one, or too large.
    OtherNumber(f64),
    Text(String),
    List(Vec<Spanned<Value>>),
    Map(Vec<(Spanned<String>, Spanned<Value>)>),
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
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Line and column, if the parser knew them.
pub(super) fn place<T>(value: &Spanned<T>) -> Option<(u64, u64)> {
    let location = value.referenced;
    (location.line() > 0).then(|| (location.line(), location.column()))
}

/// Parses a document; YAML and JSON are both fine. A key given twice is a fault.
pub(super) fn parse(document: &Document) -> Result<Spanned<Value>, Fault> {
    let fault = |message: String, place| Fault {
        origin: document.origin.clone(),
        path: String::new(),
        message,
        place,
    };
    let text = std::str::from_utf8(&document.bytes)
        .map_err(|error| fault(format!("is not UTF-8 text: {error}"), None))?;
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::Error, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
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
    })
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "only shown in a message that refuses it"
        )]
        Ok(i64::try_from(value).map_or(Value::OtherNumber(value as f64), Value::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
