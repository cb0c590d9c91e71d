//! Owns reading a `NodeConfig` from documents: every key known, every fault found, each with its document and place.
//! Touches nothing.

use std::rc::Rc;

use super::VERSION;
use super::fault::{Fault, Faults};
use super::merge::merge;
use super::node_config::NodeConfig;
use super::record::{Read, Reader};
use super::roles::{self, Roles};
use super::rules;
use super::schema::slot;
use super::tree::{self, Entry, Node, Said, Value, join};
use super::values::{ParameterName, SecretSource};
use crate::node::sources::{Document, Origin};

/// Reads what documents say together; later ones win, key by key. All that is wrong with them comes at once.
pub fn read(documents: &[Document]) -> Result<NodeConfig, Faults> {
    let parsed = parsed(documents)?;
    let mut reader = Reader::default();
    // The version comes first: of another version nothing else is known.
    let others: Vec<Fault> = parsed.iter().filter_map(other_version).collect();
    if !others.is_empty() {
        return Err(Faults(others));
    }
    let lone = parsed.len() == 1;
    for node in &parsed {
        // Alone it is a fault like any other key's, told below.
        if !lone && node.said.by.needs_version() && node.get("version").is_none() {
            reader.fault("version", &node.said, "is missing");
        }
        if matches!(*node.said.by, Origin::Parameter(_))
            && let Some(include) = node.get("include")
        {
            let message = "has no place in a parameter, which is included itself";
            reader.fault("include", &include.said, message);
        }
    }
    let root = versioned(merged(parsed));
    let config = NodeConfig::read(&root, "", &mut reader);
    // Its own faults were told above; what follows needs to know only what the node is for.
    if let Some(roles) = root
        .get("role")
        .and_then(|role| Roles::read(role, "role", &mut Reader::default()))
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
    explain_node(&merged(parsed(documents)?), "", &mut all);
    Ok(all)
}

/// What documents say the node is for, whatever else is wrong with them.
pub fn roles(documents: &[Document]) -> Option<Roles> {
    let root = merged(parsed(documents).ok()?);
    Roles::read(root.get("role")?, "role", &mut Reader::default())
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
        // Whoever put the secret itself there sees that in the fault, and nobody sees the secret.
        Value::Text(text) if !SecretSource::is_one(text) && slot(path).is_some_and(|slot| slot.secret) => {
            "(not shown: neither ssm:/name nor file:/path)".to_owned()
        }
        other => other.kind(),
    };
    all.push(Explained {
        path: path.to_owned(),
        value,
        origin: (*node.said.by).clone(),
        place: node.said.at,
    });
}

/// A parameter that documents include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// Name.
    pub name: String,
    /// What is wrong if there is no such parameter.
    pub absent: Fault,
}

/// The parameters that documents include together, each once. Documents that cannot be read, and names that cannot
/// be, include nothing here; [`read`] tells their faults.
pub fn included(documents: &[Document]) -> Vec<Included> {
    let Ok(root) = parsed(documents).map(merged) else {
        return Vec::new();
    };
    let Some(Value::List(list)) = root.get("include").map(|node| &node.value) else {
        return Vec::new();
    };
    let mut all: Vec<Included> = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let path = format!("include[{index}]");
        let Some(name) = ParameterName::read(node, &path, &mut Reader::default()) else {
            continue;
        };
        let name = name.to_string();
        if all.iter().all(|included| included.name != name) {
            let absent = node
                .said
                .fault(&path, format!("names parameter {name}, which does not exist"));
            all.push(Included { name, absent });
        }
    }
    all
}

/// Every document as a tree. One with nothing in it says nothing; alone it is a fault that `record` tells.
fn parsed(documents: &[Document]) -> Result<Vec<Node>, Faults> {
    let (mut nodes, mut faults) = (Vec::new(), Vec::new());
    for document in documents {
        match tree::parse(document) {
            Ok(node) if matches!(node.value, Value::Null) && documents.len() > 1 => {}
            Ok(node) if !matches!(node.value, Value::Map(_)) && documents.len() > 1 => {
                let message = format!("must be a mapping, got {}", node.value.kind());
                faults.push(node.said.fault("", message));
            }
            Ok(node) => nodes.push(node),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    // All of them are empty: one of them stands for nothing.
    if let (true, Some(last)) = (nodes.is_empty(), documents.last()) {
        nodes.push(tree::parse(last).map_err(|fault| Faults(vec![fault]))?);
    }
    Ok(nodes)
}

fn merged(nodes: Vec<Node>) -> Node {
    let nothing = Node {
        value: Value::Null,
        said: Said {
            by: Rc::new(Origin::Sample),
            at: None,
        },
    };
    nodes.into_iter().reduce(merge).unwrap_or(nothing)
}

/// A document of a version that this agent does not know.
fn other_version(node: &Node) -> Option<Fault> {
    let version = node.get("version")?;
    if matches!(version.value, Value::Number(number) if u64::try_from(number) == Ok(VERSION)) {
        return None;
    }
    let got = version.value.kind();
    let message = format!("must be {VERSION}, got {got}; this agent knows no other");
    Some(version.said.fault("version", message))
}

/// Where only tags and parameters speak, nobody needs to say a version.
fn versioned(mut root: Node) -> Node {
    if root.said.by.needs_version() || root.get("version").is_some() {
        return root;
    }
    if let Value::Map(entries) = &mut root.value {
        let said = root.said.clone();
        let value = Value::Number(i64::try_from(VERSION).unwrap_or_default());
        entries.retain(|entry| entry.key != "version");
        entries.push(Entry {
            key: "version".to_owned(),
            said: said.clone(),
            node: Node { value, said },
        });
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(origin: Origin, text: &str) -> Document {
        let bytes = text.as_bytes().to_vec();
        Document { origin, bytes }
    }

    fn faults(documents: &[Document]) -> Vec<String> {
        let faults = read(documents).unwrap_err().0;
        faults.iter().map(ToString::to_string).collect()
    }

    const CLIENT: &str = "{version: 1, role: nomad-client, consul: {retry_join: [192.0.2.1]}}";

    #[test]
    fn each_document_says_its_version_but_tags_and_parameters() {
        let user_data = document(Origin::UserData, CLIENT);
        let drop_in = |text| document(Origin::DropIn("/d.yaml".into()), text);
        let tag = document(Origin::Tag("cos:datacenter".into()), "{datacenter: x}");
        let parameter = document(Origin::Parameter("/p".into()), "nomad: {region: y}");
        let config = read(&[tag.clone(), parameter.clone(), user_data.clone()]).unwrap();
        assert_eq!(config.datacenter.unwrap().as_str(), "x");
        assert_eq!(
            faults(&[user_data.clone(), drop_in("{datacenter: y}")]),
            ["/d.yaml: version is missing (line 1, column 1)"]
        );
        assert_eq!(
            faults(&[user_data, drop_in("{version: 2, what: ever}")]),
            ["/d.yaml: version must be 1, got 2; this agent knows no other (line 1, column 11)"]
        );
        let whole = document(
            Origin::Parameter("/p".into()),
            "{role: nomad-client, consul: {retry_join: [192.0.2.1]}}",
        );
        assert!(read(&[tag, whole.clone()]).is_ok());
        assert!(read(&[whole]).is_ok());
    }

    #[test]
    fn a_parameter_includes_none() {
        let user_data = document(Origin::UserData, CLIENT);
        let parameter = document(
            Origin::Parameter("/p".into()),
            "
include: [/p]",
        );
        assert_eq!(
            faults(&[parameter, user_data]),
            [
                "parameter /p: include has no place in a parameter, which is included itself (line 2, column 10)"
            ]
        );
    }

    #[test]
    fn a_fault_of_a_tag_names_the_tag() {
        let tag = document(
            Origin::Tag("cos:consul.datacentre".into()),
            r#"{"consul": {"datacentre": "x"}}"#,
        );
        assert_eq!(
            faults(&[tag, document(Origin::UserData, CLIENT)])[0],
            "tag cos:consul.datacentre: consul.datacentre is not a known key; did you mean datacenter?"
        );
    }

    #[test]
    fn what_is_included_is_named_once() {
        let lower = document(Origin::UserData, "include: [/a]");
        let upper = document(
            Origin::File("/f".into()),
            "include: [/b, /c, /b, 'not a name', 1]",
        );
        let names = |documents: &[Document]| {
            let included = included(documents).into_iter();
            included.map(|included| included.name).collect::<Vec<_>>()
        };
        assert_eq!(names(std::slice::from_ref(&lower)), ["/a"]);
        assert_eq!(names(&[lower.clone(), upper]), ["/b", "/c"]);
        assert_eq!(
            names(&[lower, document(Origin::UserData, "[")]),
            Vec::<String>::new()
        );
    }
}
