//! Owns which files a `#cloud-config` writes to the places where a node's configuration is read, so that user-data
//! can be checked before there is an instance. Touches nothing.

use std::path::Path;

use super::{CONFIGURATION, DROP_INS, Document, Origin, user_data};
use crate::node::config;

/// Documents that a cloud-config would write, in the order in which the node would read them; none if these bytes are
/// no cloud-config, or one of another form than its module `write_files` describes.
pub fn written(bytes: &[u8]) -> Vec<Document> {
    if !bytes.trim_ascii_start().starts_with(b"#cloud-config\n") && !bytes.starts_with(b"#cloud-config\r\n") {
        return Vec::new();
    }
    let read = config::plain(bytes).unwrap_or_default();
    let mut documents: Vec<Document> = Vec::new();
    for file in read["write_files"].as_array().into_iter().flatten() {
        let text = |key: &str| file[key].as_str().unwrap_or_default();
        let path = Path::new(text("path"));
        let origin = if path == Path::new(CONFIGURATION) {
            Origin::File(path.to_owned())
        } else if path.parent() == Some(Path::new(DROP_INS)) {
            Origin::DropIn(path.to_owned())
        } else {
            continue;
        };
        let content = text("content").as_bytes().to_vec();
        // `gzip`, `base64` and their kin: how it is packed is seen by its bytes.
        let bytes = if matches!(text("encoding"), "" | "text/plain") {
            content
        } else {
            user_data::unpacked(content).unwrap_or_default()
        };
        documents.push(Document { origin, bytes });
    }
    let place = |document: &Document| match &document.origin {
        Origin::DropIn(path) => Some(path.clone()),
        _ => None,
    };
    documents.sort_by_key(place);
    documents
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    #[test]
    fn files_are_found_in_the_order_in_which_they_count() {
        let packed = base64::engine::general_purpose::STANDARD.encode("version: 1\nrole: x\n");
        let text = format!(
            "#cloud-config\nwrite_files:\n- {{path: /etc/cos/node.d/b.yaml, encoding: b64, content: {packed}}}\n\
             - {{path: /etc/motd, content: hello}}\n- path: /etc/cos/node.yaml\n  content: |\n    version: 1\n\
             - {{path: /etc/cos/node.d/a.yaml, content: 'version: 1'}}\nruncmd: [[cos-agent, apply]]\n"
        );
        let told: Vec<String> = written(text.as_bytes())
            .iter()
            .map(|document| {
                format!(
                    "{}: {}",
                    document.origin,
                    String::from_utf8_lossy(&document.bytes)
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "/etc/cos/node.yaml: version: 1\n",
                "/etc/cos/node.d/a.yaml: version: 1",
                "/etc/cos/node.d/b.yaml: version: 1\nrole: x\n",
            ]
        );
        for none in [
            "version: 1",
            "#cloud-config\n[",
            "#cloud-config\nwrite_files: 3",
            "#!/bin/sh",
            "",
        ] {
            assert_eq!(written(none.as_bytes()), []);
        }
    }
}
