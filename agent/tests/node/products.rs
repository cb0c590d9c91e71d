//! The products' own validators over what each role gets. They are taken from the mirror of real archives
//! (`COS_TESTS_MIRROR`) or from the `PATH`; where neither has them, the test says so and does nothing, and in CI it
//! fails.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cos_agent::host::{Files, Invocation, ProgramError, Programs, RealPrograms};
use cos_agent::node::config::Role;
use cos_agent::node::render::{Product, Versions};
use cos_agent::node::render_for_validation;
use cos_agent::node::sources::InstanceFacts;
use serde_json::{Value as Json, json};

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

/// Both binaries below `files`, or which one is not here. In CI both must be.
fn both(files: &Files) -> Result<(), Product> {
    for product in [Product::Consul, Product::Nomad] {
        if install(product, files).is_none() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have {product}: set COS_TESTS_MIRROR"
            );
            return Err(product);
        }
    }
    Ok(())
}

#[test]
fn consul_and_nomad_take_what_each_role_gets() {
    let machine = tempfile::tempdir().unwrap();
    let files = Files::new(machine.path());
    if let Err(product) = both(&files) {
        eprintln!("SKIPPED: {product} is not here (COS_TESTS_MIRROR, PATH): nobody judged our configuration");
        return;
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

/// A TCP port that nobody has at the moment.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// An agent that starts on any machine, with one more document beside its own.
fn agent(product: Product, files: &Files, folder: &Path, more: &Json) -> (Invocation, Invocation) {
    let config = folder.join("config");
    fs::create_dir_all(&config).unwrap();
    let own = match product {
        Product::Consul => json!({
            "data_dir": folder.join("data"), "bind_addr": "127.0.0.1", "server": true, "bootstrap_expect": 1,
            "ports": {"http": -1, "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
                "server": port(), "serf_lan": port()},
        }),
        Product::Nomad => json!({
            "data_dir": folder.join("data"), "bind_addr": "127.0.0.1", "server": {"enabled": true, "bootstrap_expect": 1},
            "ports": {"http": port(), "rpc": port(), "serf": port()},
            "advertise": {"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"},
            "consul": {"auto_advertise": false, "server_auto_join": false},
        }),
        Product::Systemd => unreachable!("it has no configuration"),
    };
    fs::write(config.join("a.json"), own.to_string()).unwrap();
    fs::write(config.join("b.json"), more.to_string()).unwrap();
    let binary = files.locate(product.binary());
    let config = format!("{}", config.display());
    let (validate, agent): (Vec<&str>, Vec<&str>) = match product {
        Product::Consul => (vec!["validate", &config], vec!["agent", "-config-dir", &config]),
        Product::Nomad => (
            vec!["config", "validate", &config],
            vec!["agent", "-config", &config],
        ),
        Product::Systemd => unreachable!("it has no configuration"),
    };
    let invocation =
        |words, seconds| Invocation::new(&binary.to_string_lossy(), words, Duration::from_secs(seconds));
    (invocation(validate, 60), invocation(agent, 5))
}

/// On this rests that a product which does not run yet may judge by its start: what its validator refuses never runs.
#[test]
fn what_a_validator_refuses_does_not_start() {
    let machine = tempfile::tempdir().unwrap();
    let files = Files::new(machine.path());
    if let Err(product) = both(&files) {
        eprintln!("SKIPPED: {product} is not here (COS_TESTS_MIRROR, PATH): nobody judged our configuration");
        return;
    }
    let faults = [
        (Product::Consul, json!({"no_such_key": true})),
        (Product::Consul, json!({"bootstrap_expect": "three"})),
        (Product::Consul, json!({"bind_addr": "no address"})),
        (Product::Consul, json!({"retry_interval": "soon"})),
        (Product::Consul, json!({"datacenter": "Not A Name"})),
        (Product::Nomad, json!({"no_such_key": true})),
        (Product::Nomad, json!({"datacenter": "a*"})),
        (Product::Nomad, json!({"client": {"min_dynamic_port": 90000}})),
        (Product::Nomad, json!({"server": {"heartbeat_grace": "soon"}})),
        (Product::Nomad, json!({"plugin_dir": "relative"})),
    ];
    for product in [Product::Consul, Product::Nomad] {
        // What is good is accepted, and runs until it is killed.
        let folder = tempfile::tempdir().unwrap();
        let (validate, agent) = agent(product, &files, folder.path(), &json!({}));
        RealPrograms.check(&validate).unwrap();
        let ended = RealPrograms.run(&agent);
        assert!(
            matches!(ended, Err(ProgramError::Deadline { .. })),
            "{product}: {ended:?}"
        );
    }
    for (product, fault) in faults {
        let folder = tempfile::tempdir().unwrap();
        let (validate, agent) = agent(product, &files, folder.path(), &fault);
        assert!(RealPrograms.check(&validate).is_err(), "{product} takes {fault}");
        let ended = RealPrograms
            .run(&agent)
            .unwrap_or_else(|error| panic!("{product} runs with {fault}: {error}"));
        assert_ne!(ended.status, Some(0), "{product} with {fault}");
    }
}
