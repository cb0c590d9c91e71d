//! The products' own validators over what each role gets. They are taken from the mirror of real archives
//! (`COS_TESTS_MIRROR`) or from the `PATH`; where neither has them, the test says so and does nothing, and in CI it
//! fails.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cos_agent::host::{Files, Programs, RealPrograms};
use cos_agent::node::config::Role;
use cos_agent::node::render::{Product, Versions};
use cos_agent::node::render_for_validation;
use cos_agent::node::sources::InstanceFacts;

/// Puts the product's binary where an image has it.
fn install(product: Product, files: &Files) -> Option<()> {
    let place = files.locate(product.binary());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let name = product.to_string().to_lowercase();
    if let Some(mirror) = std::env::var_os("COS_TESTS_MIRROR") {
        let archive = archive(&Path::new(&mirror).join("hashicorp").join(&name));
        let mut archive = zip::ZipArchive::new(File::open(archive).unwrap()).unwrap();
        io::copy(
            &mut archive.by_name(&name).unwrap(),
            &mut File::create(&place).unwrap(),
        )
        .unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
        return Some(());
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(&name))
        .find(|path| path.is_file())?;
    std::os::unix::fs::symlink(found, place).unwrap();
    Some(())
}

/// The archive of the newest version that the mirror has.
fn archive(product: &Path) -> PathBuf {
    let folders = fs::read_dir(product).unwrap().flatten().map(|entry| entry.path());
    let mut archives: Vec<PathBuf> = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with("_linux_amd64.zip"))
        .collect();
    archives.sort();
    archives.pop().unwrap()
}

#[test]
fn consul_and_nomad_take_what_each_role_gets() {
    let machine = tempfile::tempdir().unwrap();
    let files = Files::new(machine.path());
    for product in [Product::Consul, Product::Nomad] {
        if install(product, &files).is_none() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have {product}: set COS_TESTS_MIRROR"
            );
            eprintln!(
                "SKIPPED: {product} is not here (COS_TESTS_MIRROR, PATH): nobody judged our configuration"
            );
            return;
        }
    }
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
