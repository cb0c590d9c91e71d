//! What users copy must work: the user-data of `templates/` writes a document that this agent reads.

use std::fs;
use std::path::Path;

use cos_agent::node::config::{self, Role};
use cos_agent::node::sources::{CONFIGURATION, Document, Origin};
use serde::Deserialize;

/// The part of cloud-config that the templates use; another key would be a typing error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudConfig {
    write_files: Vec<WriteFile>,
    runcmd: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteFile {
    path: String,
    permissions: String,
    content: String,
}

#[test]
fn the_user_data_of_each_role_writes_a_document_of_that_role() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/user-data");
    for role in Role::ALL {
        let text = fs::read_to_string(folder.join(format!("{role}.yaml"))).unwrap();
        // cloud-init looks at the very first line.
        assert!(text.starts_with("#cloud-config\n"), "{role}");
        // EC2 takes 16 KiB before base64.
        assert!(text.len() < 16 * 1024, "{role}");
        let CloudConfig { write_files, runcmd } = serde_saphyr::from_str(&text).unwrap();
        let [file] = write_files.as_slice() else {
            panic!("{role} writes {} files", write_files.len())
        };
        assert_eq!(file.path, CONFIGURATION);
        assert_eq!(file.permissions, "0644");
        let origin = Origin::File(file.path.clone().into());
        let document = Document {
            origin,
            bytes: file.content.clone().into_bytes(),
        };
        let config = config::read(&[document]).unwrap_or_else(|faults| panic!("{role}: {faults:?}"));
        assert_eq!(config.role, role.into());
        assert_eq!(runcmd, [["cos-agent", "apply"]]);
    }
}

#[test]
fn the_shell_variant_writes_a_document_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/user-data");
    let text = fs::read_to_string(folder.join("README.md")).unwrap();
    let script = text.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(script.starts_with("#!/bin/sh\n"));
    let document = script
        .split("<<'EOF'\n")
        .nth(1)
        .unwrap()
        .split("\nEOF\n")
        .next()
        .unwrap();
    let document = Document {
        origin: Origin::UserData,
        bytes: document.into(),
    };
    assert_eq!(config::read(&[document]).unwrap().role, Role::NomadClient.into());
    assert!(
        script.ends_with("\ncos-agent apply --config /etc/cos-node.yaml\n"),
        "{script}"
    );
}

#[test]
fn all_keys_of_the_guide_are_keys() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/user-data");
    let text = fs::read_to_string(folder.join("README.md")).unwrap();
    let document = text
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let document = Document {
        origin: Origin::UserData,
        bytes: document.into(),
    };
    // It shows the keys of every role at once, which no role may have: that, and nothing else, is wrong with it.
    let faults = config::read(&[document]).unwrap_err().0;
    assert!(
        faults
            .iter()
            .all(|fault| fault.message.contains("has no place in role")),
        "{faults:?}"
    );
    assert_eq!(faults.len(), 2);
}
