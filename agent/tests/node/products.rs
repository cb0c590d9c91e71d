//! The products' own validators over what each role gets. They are asked where they are installed (`COS_CONSUL` and
//! `COS_NOMAD`, or the `PATH`); where they are not, the test says so and does nothing, and in CI it fails.

use std::path::{Path, PathBuf};

use cos_agent::host::{Files, Programs, RealPrograms};
use cos_agent::node::config::Role;
use cos_agent::node::render::Versions;
use cos_agent::node::render_for_validation;
use cos_agent::node::sources::InstanceFacts;

fn binary(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[test]
fn consul_and_nomad_take_what_each_role_gets() {
    let found = (binary("COS_CONSUL", "consul"), binary("COS_NOMAD", "nomad"));
    let (Some(consul), Some(nomad)) = found else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have Consul and Nomad: {found:?}"
        );
        eprintln!("SKIPPED: Consul or Nomad is not here, so neither judged our configuration: {found:?}");
        return;
    };
    let machine = tempfile::tempdir().unwrap();
    for (folder, binary) in [("opt/consul/bin", &consul), ("opt/nomad/bin", &nomad)] {
        let folder = machine.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let name = if folder.ends_with("opt/consul/bin") {
            "consul"
        } else {
            "nomad"
        };
        std::os::unix::fs::symlink(binary, folder.join(name)).unwrap();
    }
    let files = Files::new(machine.path());
    let versions = Versions::detect(&files, &RealPrograms).unwrap();
    eprintln!(
        "judged by Consul {} and Nomad {}",
        versions.consul, versions.nomad
    );
    for role in Role::ALL {
        let rendered = tempfile::tempdir().unwrap();
        let validators =
            render_for_validation(role, &InstanceFacts::sample(), &versions, &files, rendered.path())
                .unwrap();
        assert_eq!(validators.len(), if role.has_nomad() { 2 } else { 1 });
        for validator in validators {
            let output = RealPrograms
                .check(&validator)
                .unwrap_or_else(|error| panic!("{role}: {error}"));
            eprintln!("{role}: {validator}: {}", output.stdout.trim());
        }
        refuses_an_unknown_key(role, rendered.path(), &versions, &files);
    }
}

/// The validators do judge: one key too many, and they refuse.
fn refuses_an_unknown_key(role: Role, rendered: &Path, versions: &Versions, files: &Files) {
    let facts = InstanceFacts::sample();
    for validator in render_for_validation(role, &facts, versions, files, rendered).unwrap() {
        let folder = validator.arguments.last().unwrap();
        std::fs::write(
            Path::new(folder).join("zz.json"),
            r#"{"no_such_key_of_any_version": true}"#,
        )
        .unwrap();
        assert!(
            RealPrograms.check(&validator).is_err(),
            "{role}: {validator} judges nothing"
        );
    }
}
