//! The premise of a first start without a verdict, with the real products.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use cos_agent::host::{Files, Invocation, ProgramError, Programs, RealPrograms};
use cos_agent::node::render::Product;
use serde_json::{Value as Json, json};

use crate::binaries::{install, pair};

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
    let Some([(_, consul), (_, nomad)]) = pair() else {
        eprintln!("SKIPPED: what_a_validator_refuses_does_not_start needs both products");
        return;
    };
    install(Product::Consul, &consul, &files);
    install(Product::Nomad, &nomad, &files);
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
