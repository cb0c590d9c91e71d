//! Owns what is wrong with a node's configuration: each fault with its document, key path and place.
//! Touches nothing.

use std::fmt;

use thiserror::Error;

use crate::node::sources::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Document.
    pub origin: Origin,
    /// Keys that lead to the value, such as `nomad.bootstrap_expect`; empty for the document itself.
    pub path: String,
    /// What is wrong, as the rest of a sentence that begins with the path.
    pub message: String,
    /// Line and column, both from 1, where they are known.
    pub place: Option<(u64, u64)>,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        };
        write!(formatter, "{}: {path} {}", self.origin, self.message)?;
        match self.place {
            Some((line, column)) => write!(formatter, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with one document, in the order of the document; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the node configuration has {}", match .0.as_slice() { [_] => "a fault".to_owned(), all => format!("{} faults", all.len()) })]
pub struct Faults(pub Vec<Fault>);
