//! Owns what tags of the instance say about the node: `cos:role`, `cos:consul.bootstrap_expect` and the like, each a
//! document of one value. Touches nothing.

use serde_json::{Map, Value as Json};

use super::{Document, Origin};
use crate::node::config::{self, Fault};

/// Tags whose keys begin with this are settings; the rest of the key is a key path of NodeConfig.
pub const PREFIX: &str = "cos:";

/// The metadata service gives one tag for each request, and a boot has twelve requests: token, identity, user-data,
/// list of tags; token, role and credentials for the API of AWS; the rest for these.
pub const MOST_TAGS: usize = 5;

/// Marks that cos-bake puts on what it makes; they say nothing of a node.
const OF_A_BAKE: [&str; 6] = ["bake-id", "base", "bundle", "expires-at", "payload", "purpose"];

/// Keys of the tags that are settings. A tag named after a whole section, such as `cos:consul`, is none: it is free
/// to mark the instances that `consul.retry_join` looks for.
pub(super) fn settings(keys: &[String]) -> Result<Vec<&str>, Fault> {
    let mut settings = Vec::new();
    for key in keys {
        let Some(path) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let section = !path.is_empty() && config::slot(path).is_some_and(|slot| slot.section);
        if OF_A_BAKE.contains(&path) || section {
            continue;
        }
        let served = |byte: u8| byte.is_ascii_alphanumeric() || b"+-=.,_:@".contains(&byte);
        if path.is_empty() || !key.bytes().all(served) {
            return Err(fault(key, "", "names no key of NodeConfig"));
        }
        settings.push(key.as_str());
    }
    if settings.len() > MOST_TAGS {
        let message = format!(
            "is one too many: an instance may have {MOST_TAGS} tags that begin with {PREFIX}; user-data or a parameter \
             named by include has room for more"
        );
        return Err(fault(settings[MOST_TAGS], "", &message));
    }
    Ok(settings)
}

/// What one tag says. Where NodeConfig holds a text the value is that text; elsewhere it is read as YAML reads a
/// scalar.
pub(super) fn document(key: &str, value: &str) -> Result<Document, Fault> {
    let path = key.strip_prefix(PREFIX).unwrap_or(key);
    let slot = config::slot(path);
    let text = || Json::String(value.to_owned());
    let value = match &slot {
        Some(slot) if slot.text => text(),
        _ => match config::plain(value.as_bytes()) {
            Ok(scalar @ (Json::Bool(_) | Json::Number(_) | Json::String(_))) => scalar,
            Ok(Json::Null) => return Err(fault(key, path, "must have a value, got nothing")),
            _ => text(),
        },
    };
    let keys = slot.map_or_else(|| path.split('.').map(str::to_owned).collect(), |slot| slot.keys);
    let nested = keys
        .into_iter()
        .rev()
        .fold(value, |value, key| Json::Object(Map::from_iter([(key, value)])));
    Ok(Document {
        origin: Origin::Tag(key.to_owned()),
        bytes: nested.to_string().into_bytes(),
    })
}

fn fault(key: &str, path: &str, message: &str) -> Fault {
    Fault {
        origin: Origin::Tag(key.to_owned()),
        path: path.to_owned(),
        message: message.to_owned(),
        place: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(key: &str, value: &str) -> String {
        String::from_utf8(document(key, value).unwrap().bytes).unwrap()
    }

    #[test]
    fn a_value_is_what_the_key_holds() {
        for (key, value, expected) in [
            ("cos:role", "nomad-client", r#"{"role":"nomad-client"}"#),
            ("cos:datacenter", "1", r#"{"datacenter":"1"}"#),
            (
                "cos:consul.bootstrap_expect",
                "3",
                r#"{"consul":{"bootstrap_expect":3}}"#,
            ),
            (
                "cos:consul.bootstrap_expect",
                "auto-scaling-group",
                r#"{"consul":{"bootstrap_expect":"auto-scaling-group"}}"#,
            ),
            (
                "cos:consul.retry_join.tag_value",
                "2024",
                r#"{"consul":{"retry_join":{"tag_value":"2024"}}}"#,
            ),
            (
                "cos:docker.privileged",
                "true",
                r#"{"docker":{"privileged":true}}"#,
            ),
            ("cos:nomad.meta.team", "7", r#"{"nomad":{"meta":{"team":"7"}}}"#),
            // A key of metadata may hold dots.
            (
                "cos:nomad.meta.org.unit",
                "x",
                r#"{"nomad":{"meta":{"org.unit":"x"}}}"#,
            ),
            (
                "cos:nomad.host_volumes.data.read_only",
                "false",
                r#"{"nomad":{"host_volumes":{"data":{"read_only":false}}}}"#,
            ),
            (
                "cos:watch.drain_deadline",
                "15m",
                r#"{"watch":{"drain_deadline":"15m"}}"#,
            ),
            // Not for us to say that it is wrong: the reader does, and names the tag.
            ("cos:consul.datacentre", "x", r#"{"consul":{"datacentre":"x"}}"#),
            ("cos:role", "[a, b]", r#"{"role":"[a, b]"}"#),
        ] {
            assert_eq!(says(key, value), expected, "{key}");
        }
        let nothing = document("cos:docker.privileged", "").unwrap_err();
        assert_eq!(
            nothing.to_string(),
            "tag cos:docker.privileged: docker.privileged must have a value, got nothing"
        );
    }

    #[test]
    fn marks_are_no_settings() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let some = keys(&["Name", "cos:consul", "cos:bake-id", "cos:role", "aws:x", "cos"]);
        assert_eq!(settings(&some).unwrap(), ["cos:role"]);
        let many: Vec<String> = (0..=MOST_TAGS).map(|n| format!("cos:nomad.meta.m{n}")).collect();
        let said = settings(&many).unwrap_err().to_string();
        assert!(
            said.starts_with("tag cos:nomad.meta.m5: the document is one too many"),
            "{said}"
        );
        for none in ["cos:", "cos:a b", "cos:a/b"] {
            assert!(settings(&keys(&[none])).is_err(), "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_tag_is_one_document_or_a_fault(path in "\\PC{0,40}", value in "\\PC{0,256}") {
            let key = format!("cos:a{path}");
            let _ = settings(std::slice::from_ref(&key));
            if let Ok(document) = document(&key, &value) {
                prop_assert!(serde_json::from_slice::<Json>(&document.bytes).unwrap().is_object());
            }
        }
    }
}
