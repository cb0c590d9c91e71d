//! Owns how several documents about one node become one: later ones win, key by key.
//! Touches nothing.

use super::tree::{Entry, Node, Value};

/// Lays `upper` over `lower`. Mappings are merged key by key; a list or a single value replaces what was there as a
/// whole; a key with nothing behind it takes away what lower documents say, so that the default holds again.
pub(super) fn merge(lower: Node, upper: Node) -> Node {
    match (lower.value, upper.value) {
        (Value::Map(lower_entries), Value::Map(upper_entries)) => Node {
            value: Value::Map(merge_entries(lower_entries, upper_entries)),
            said: upper.said,
        },
        (_, value) => Node {
            value,
            said: upper.said,
        },
    }
}

fn merge_entries(mut merged: Vec<Entry>, upper: Vec<Entry>) -> Vec<Entry> {
    for entry in upper {
        match merged.iter_mut().find(|lower| lower.key == entry.key) {
            Some(lower) => {
                // A mapping from below must go on by value; nothing reads what stands there meanwhile.
                let below = std::mem::replace(&mut lower.node.value, Value::Null);
                let below = Node {
                    value: below,
                    said: lower.node.said.clone(),
                };
                *lower = Entry {
                    node: merge(below, entry.node),
                    ..entry
                };
            }
            None => merged.push(entry),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;
    use crate::node::sources::{Document, Origin};

    fn node(origin: Origin, text: &str) -> Node {
        let bytes = text.as_bytes().to_vec();
        parse(&Document { origin, bytes }).unwrap()
    }

    fn plain(node: &Node) -> String {
        match &node.value {
            Value::List(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|entry| format!("{}:{}", entry.key, plain(&entry.node)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
            other => other.kind(),
        }
    }

    #[test]
    fn later_wins_key_by_key_and_each_value_keeps_its_origin() {
        let file = Origin::File("/etc/cos/node.yaml".into());
        let lower = node(Origin::UserData, "{a: {b: 1, c: [1, 2]}, d: x, e: {f: 1}}");
        let upper = node(file.clone(), "{a: {c: [3]}, d: z, e: , g: {h: 1}}");
        let merged = merge(lower, upper);
        assert_eq!(plain(&merged), r#"{a:{b:1 c:[3]} d:"z" e:nothing g:{h:1}}"#);
        assert_eq!(*merged.at("a.b").unwrap().said.by, Origin::UserData);
        assert_eq!(*merged.at("a.c").unwrap().said.by, file);
        assert!(merged.at("e").is_none(), "nothing takes away what was said below");
    }
}
