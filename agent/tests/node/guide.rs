//! The guide says what the code does: the reference is made from it, examples are read, every flag and key is there.
//! `UPDATE_DOCS=1` writes the reference.

use std::fs;
use std::path::PathBuf;

use cos_agent::node::config::{self, Role};
use cos_agent::node::shims::Shim;
use cos_agent::node::sources::{CONFIGURATION, DROP_INS, Document, MEDIA_TYPE, MOST_TAGS, Origin};

fn guide(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../_docs/guide")
        .join(name);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// Texts between fences of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let opening = format!("```{language}\n");
    text.split(opening.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

#[test]
fn the_reference_is_made_from_the_code() {
    const BEGIN: &str = "<!-- reference -->\n";
    const END: &str = "<!-- end of reference -->\n";
    let (path, text) = guide("node-config.md");
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    let now = format!("\n{}\n", config::reference());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{now}{END}{after}")).unwrap();
        return;
    }
    assert!(
        table == now,
        "{} is old: run this test with UPDATE_DOCS=1",
        path.display()
    );
}

#[test]
fn every_example_is_a_document() {
    let mut read = 0;
    for name in ["node-config.md", "from-run-consul.md"] {
        let (path, text) = guide(name);
        for block in blocks(&text, "yaml") {
            let document = Document {
                origin: Origin::File(path.clone()),
                bytes: block.into(),
            };
            let config = config::read(&[document]).unwrap_or_else(|faults| panic!("{faults:?}"));
            assert_eq!(config.role, Role::NomadClient.into());
            read += 1;
        }
    }
    assert_eq!(read, 2);
}

#[test]
fn the_guide_names_what_the_code_has() {
    let (_, text) = guide("node-config.md");
    for word in [CONFIGURATION, DROP_INS, MEDIA_TYPE, "1 MiB", "cos:role"] {
        assert!(text.contains(word), "{word}");
    }
    assert_eq!(MOST_TAGS, 5, "the guide says five");
}

#[test]
fn every_flag_has_its_row_and_every_key_of_it_exists() {
    let (_, text) = guide("from-run-consul.md");
    for (shim, heading) in [
        (Shim::Consul, "\n## run-consul\n"),
        (Shim::Nomad, "\n## run-nomad\n"),
    ] {
        let table = text.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<(&str, &str)> = table
            .lines()
            .filter(|line| line.starts_with("| `--"))
            .map(|line| line.trim_start_matches("| ").split_once(" | ").unwrap())
            .collect();
        for flag in shim.flag_names() {
            let mut found = rows
                .iter()
                .filter(|(flags, _)| flags.split('`').any(|word| word.split(' ').next() == Some(flag)));
            assert!(found.next().is_some(), "{} {flag} has no row", shim.name());
            assert!(found.next().is_none(), "{} {flag} has two rows", shim.name());
        }
        for (_, keys) in rows {
            for code in keys.split('`').skip(1).step_by(2) {
                let path = code.split(':').next().unwrap();
                let is_key =
                    path.contains('.') && !path.contains('/') || ["role", "datacenter"].contains(&path);
                assert!(!is_key || config::slot(path).is_some(), "{path} is no key");
            }
        }
    }
}
