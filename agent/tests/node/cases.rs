//! Case folders: what a user says and what an instance is, beside the files that come of it, or the faults that are
//! told. A new case is a new folder. `UPDATE_CASES=1` writes what came out, to be read and committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cos_agent::node::accounts::{Accounts, User};
use cos_agent::node::config;
use cos_agent::node::render::{self, DesiredState, Init, Installed, Version, Versions};
use cos_agent::node::secrets::Fetched;
use cos_agent::node::sources::{Document, InstanceFacts, Origin};

fn folders(reject: bool) -> Vec<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = fs::read_dir(cases).unwrap().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("reject-") == reject);
    folders.sort();
    assert!(folders.len() > 2, "the cases are not where they should be");
    folders
}

fn document(folder: &Path) -> Document {
    let origin = Origin::File("/etc/cos/node.yaml".into());
    Document {
        origin,
        bytes: fs::read(folder.join("node.yaml")).unwrap(),
    }
}

fn updating() -> bool {
    std::env::var_os("UPDATE_CASES").is_some()
}

/// Versions of the case, on a machine with the usual users.
fn installed(folder: &Path) -> Installed {
    let versions: BTreeMap<String, Version> =
        serde_json::from_slice(&fs::read(folder.join("versions.json")).unwrap()).unwrap();
    let users = [
        ("root", 0, "/root"),
        ("consul", 990, "/opt/consul"),
        ("nomad", 991, "/opt/nomad"),
        ("hashi", 992, "/home/hashi"),
        ("ec2-user", 1000, "/home/ec2-user"),
    ];
    let user = |(name, number, home): (&str, u32, &str)| {
        let home = home.to_owned();
        let user = User {
            uid: number,
            gid: number,
            home,
        };
        (name.to_owned(), user)
    };
    Installed {
        versions: Versions {
            consul: versions["consul"],
            nomad: versions["nomad"],
            init: versions
                .get("systemd")
                .map_or(Init::Unknown, |version| Init::Systemd(*version)),
        },
        accounts: Accounts {
            users: users.map(user).into(),
            groups: users.map(|(name, number, _)| (name.to_owned(), number)).into(),
        },
    }
}

/// Who owns what, and what must not be there.
fn owners(desired: &DesiredState) -> String {
    let mut lines = Vec::new();
    for (path, directory) in &desired.directories {
        lines.push(format!(
            "{:04o} {}:{} {path}/",
            directory.mode, directory.user, directory.group
        ));
    }
    for (path, file) in &desired.files {
        lines.push(match file {
            Some(file) => format!("{:04o} {}:{} {path}", file.mode, file.user, file.group),
            None => format!("absent {path}"),
        });
    }
    lines.join("\n") + "\n"
}

#[test]
fn a_case_renders_exactly_what_is_expected() {
    for folder in folders(false) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let facts: InstanceFacts = match fs::read(folder.join("imds.json")) {
            Ok(json) => serde_json::from_slice(&json).unwrap(),
            Err(_) => InstanceFacts::sample(),
        };
        let config = config::read(&[document(&folder)]).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        let spec = config::resolve(&config, &facts, None).unwrap();
        let desired = render::render(&spec, &installed(&folder), &Fetched::placeholders(&spec)).unwrap();
        let mut rendered = BTreeMap::new();
        for (path, file) in &desired.files {
            if let Some(file) = file {
                rendered.insert(path.trim_start_matches('/').to_owned(), file.content.clone());
            }
        }
        let expected = folder.join("expected");
        let owners = owners(&desired);
        if updating() {
            let _ = fs::remove_dir_all(&expected);
            fs::write(folder.join("owners.txt"), &owners).unwrap();
            for (path, content) in &rendered {
                fs::create_dir_all(expected.join(path).parent().unwrap()).unwrap();
                fs::write(expected.join(path), content).unwrap();
            }
        }
        assert_eq!(
            owners,
            fs::read_to_string(folder.join("owners.txt")).unwrap(),
            "{name}"
        );
        let stored = tree(&expected);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&rendered), names(&stored), "{name}");
        for (path, content) in &rendered {
            let (content, stored) = (
                String::from_utf8_lossy(content),
                String::from_utf8_lossy(&stored[path]),
            );
            assert_eq!(content, stored, "{name}: {path}");
        }
    }
}

#[test]
fn a_rejected_case_tells_exactly_these_faults() {
    for folder in folders(true) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let told = match config::read(&[document(&folder)]) {
            Err(faults) => faults
                .0
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
            // What a document may say, and these versions cannot do.
            Ok(config) => {
                let spec = config::resolve(&config, &InstanceFacts::sample(), None).unwrap();
                let rendered = render::render(&spec, &installed(&folder), &Fetched::placeholders(&spec));
                rendered.expect_err(&name).to_string()
            }
        } + "\n";
        let expected = folder.join("expected-error.txt");
        if updating() {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap(), "{name}");
    }
}

fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
