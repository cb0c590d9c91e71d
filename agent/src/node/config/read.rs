//! Owns reading a `NodeConfig` from documents: every key known, every fault found, each with its document and place.
//! Touches nothing.

use super::VERSION;
use super::fault::Faults;
use super::merge::merge;
use super::node_config::NodeConfig;
use super::record::{Read, Reader};
use super::roles;
use super::rules;
use super::tree::{self, Node, Value, join};
use crate::node::sources::{Document, Origin};

/// Reads what documents say together; later ones win, key by key. All that is wrong with them comes at once.
pub fn read(documents: &[Document]) -> Result<NodeConfig, Faults> {
    let root = merged(documents)?;
    let mut reader = Reader::default();
    // The version comes first: of another version nothing else is known.
    if let Some(version) = root.get("version")
        && !matches!(version.value, Value::Number(number) if u64::try_from(number) == Ok(VERSION))
    {
        let got = version.value.kind();
        let message = format!("must be {VERSION}, got {got}; this agent knows no other");
        return Err(Faults(vec![version.said.fault("version", message)]));
    }
    let config = NodeConfig::read(&root, "", &mut reader);
    // Its own faults were told above; what follows needs to know only what the node is for.
    if let Some(roles) = root
        .get("role")
        .and_then(|role| roles::Roles::read(role, "role", &mut Reader::default()))
    {
        roles::check(&root, &roles, &mut reader);
    }
    if let Some(config) = &config {
        rules::check(&root, config, &mut reader);
    }
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        _ => {
            let order = |origin: &Origin| documents.iter().position(|document| document.origin == *origin);
            reader
                .faults
                .sort_by_key(|fault| (order(&fault.origin), fault.place));
            Err(Faults(reader.faults))
        }
    }
}

/// One value that documents say together, with the document that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Key path.
    pub path: String,
    /// The value, as JSON.
    pub value: String,
    /// Document.
    pub origin: Origin,
    /// Line and column, both from 1, where they are known.
    pub place: Option<(u64, u64)>,
}

/// What documents say together, value by value, faults or not; what they leave open is not in it.
pub fn explain(documents: &[Document]) -> Result<Vec<Explained>, Faults> {
    let mut all = Vec::new();
    explain_node(&merged(documents)?, "", &mut all);
    Ok(all)
}

fn explain_node(node: &Node, path: &str, all: &mut Vec<Explained>) {
    let value = match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                explain_node(&entry.node, &join(path, &entry.key), all);
            }
            return;
        }
        Value::List(list) if !list.is_empty() => {
            for (index, node) in list.iter().enumerate() {
                explain_node(node, &format!("{path}[{index}]"), all);
            }
            return;
        }
        Value::Null => return,
        other => other.kind(),
    };
    all.push(Explained {
        path: path.to_owned(),
        value,
        origin: (*node.said.by).clone(),
        place: node.said.at,
    });
}

fn merged(documents: &[Document]) -> Result<Node, Faults> {
    let mut faults = Vec::new();
    let mut root: Option<Node> = None;
    for document in documents {
        match tree::parse(document) {
            // A document with nothing in it says nothing; alone it is a fault that `record` tells.
            Ok(node) if matches!(node.value, Value::Null) && documents.len() > 1 => {}
            Ok(node) => {
                root = Some(match root {
                    Some(lower) if matches!(node.value, Value::Map(_)) => merge(lower, node),
                    Some(lower) => {
                        let message = format!("must be a mapping, got {}", node.value.kind());
                        faults.push(node.said.fault("", message));
                        lower
                    }
                    None => node,
                });
            }
            Err(fault) => faults.push(fault),
        }
    }
    match root {
        Some(root) if faults.is_empty() => Ok(root),
        _ => Err(Faults(faults)),
    }
}
