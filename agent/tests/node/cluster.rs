//! A real cluster of two nodes, with all its secrets, made by `apply`: a server and a client, encrypted, with access
//! control on both products and clients that introduce themselves. Then its certificates change, without a restart
//! where the products can do without.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cos_agent::node::apply::Change;
use cos_agent::node::render::{Feature, Product, Version};
use cos_agent::node::secrets::Fetched;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value as Json;

use crate::binaries::{self, at_hand};
use crate::machine::Store;
use crate::nodes::{Node, eventually, possible};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const MANAGEMENT: &str = "5ec2e700-0000-4000-8000-00000000ab1e";

const SERVER_DOCUMENT: &str = r#"
version: 1
role: [consul-server, nomad-server]
datacenter: leader
watch: {enabled: false}
consul:
  datacenter: main
  bootstrap_expect: 1
  retry_join: [192.0.2.10]
  gossip_key: ssm:/consul/gossip
  tls: {ca: "ssm:/consul/ca", certificate: "ssm:/consul/certificate", key: "ssm:/consul/key", auto_encrypt: true}
  acl: {enabled: true, agent_token: "ssm:/management", initial_management_token: "ssm:/management"}
  autopilot: {min_quorum: 1}
nomad:
  region: global
  bootstrap_expect: 1
  gossip_key: ssm:/nomad/gossip
  tls: {ca: "ssm:/nomad/ca", certificate: "ssm:/nomad/certificate", key: "ssm:/nomad/key"}
  acl: true
  consul_token: ssm:/management
  client_introduction: strict
  autopilot: {min_quorum: 1}
"#;

const CLIENT_DOCUMENT: &str = r#"
version: 1
role: nomad-client
datacenter: public-services
watch: {enabled: false}
consul:
  datacenter: main
  retry_join: [192.0.2.10]
  gossip_key: ssm:/consul/gossip
  tls: {ca: "ssm:/consul/ca", auto_encrypt: true}
  acl: {enabled: true, agent_token: "ssm:/management"}
nomad:
  region: global
  tls: {ca: "ssm:/nomad/ca", certificate: "ssm:/nomad/client-certificate", key: "ssm:/nomad/client-key"}
  acl: true
  consul_token: ssm:/management
  introduction_token: ssm:/nomad/introduction
"#;

/// Certificates and keys, by the products' own tools.
struct Authority {
    folder: tempfile::TempDir,
    consul: PathBuf,
    nomad: PathBuf,
}

impl Authority {
    fn new(consul: &Path, nomad: &Path) -> Self {
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
            consul: consul.to_owned(),
            nomad: nomad.to_owned(),
        };
        authority.run(&authority.consul, "", &["tls", "ca", "create"]);
        authority.run(&authority.nomad, "", &["tls", "ca", "create"]);
        authority
    }

    fn run(&self, binary: &Path, generation: &str, words: &[&str]) {
        let output = Command::new(binary)
            .args(words)
            .current_dir(self.folder.path().join(generation))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    /// Puts a new generation of certificates into the store.
    fn issue(&self, generation: &str, store: &mut Store) {
        let folder = self.folder.path().join(generation);
        fs::create_dir(&folder).unwrap();
        for file in ["consul-agent-ca", "nomad-agent-ca"]
            .iter()
            .flat_map(|name| [format!("{name}.pem"), format!("{name}-key.pem")])
        {
            fs::copy(self.folder.path().join(&file), folder.join(&file)).unwrap();
        }
        let address = format!("-additional-ipaddress={SERVER}");
        self.run(
            &self.consul,
            generation,
            &["tls", "cert", "create", "-server", "-dc=main", &address],
        );
        self.run(
            &self.nomad,
            generation,
            &["tls", "cert", "create", "-server", "-region=global", &address],
        );
        self.run(
            &self.nomad,
            generation,
            &["tls", "cert", "create", "-client", "-region=global"],
        );
        let rows = [
            ("/consul/ca", "consul-agent-ca"),
            ("/consul/certificate", "main-server-consul-0"),
            ("/consul/key", "main-server-consul-0-key"),
            ("/nomad/ca", "nomad-agent-ca"),
            ("/nomad/certificate", "global-server-nomad"),
            ("/nomad/key", "global-server-nomad-key"),
            ("/nomad/client-certificate", "global-client-nomad"),
            ("/nomad/client-key", "global-client-nomad-key"),
        ];
        for (parameter, file) in rows {
            store
                .parameters
                .insert(parameter, self.read(&format!("{generation}/{file}.pem")));
        }
    }

    fn gossip_keys(&self, store: &mut Store) {
        let make = |binary: &Path, words: &[&str]| {
            let output = Command::new(binary).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        store
            .parameters
            .insert("/consul/gossip", make(&self.consul, &["keygen"]));
        let words = ["operator", "gossip", "keyring", "generate"];
        store
            .parameters
            .insert("/nomad/gossip", make(&self.nomad, &words));
    }
}

/// The certificate that a server shows; it must be signed by the authority, and of that name.
fn certificate(address: Ipv4Addr, port: u16, name: &str, authority: &str) -> Result<Vec<u8>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots
            .add(certificate.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let mut connection =
        rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut stream = connect(address, port)?;
    while connection.is_handshaking() {
        connection
            .complete_io(&mut stream)
            .map_err(|error| error.to_string())?;
    }
    let shown = connection.peer_certificates().and_then(|shown| shown.first());
    shown
        .map(|shown| shown.to_vec())
        .ok_or_else(|| "no certificate was shown".to_owned())
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn connect(address: Ipv4Addr, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(5))
        .map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Ok(stream)
}

/// Whether a port ends a conversation that begins in the clear, by the first byte of the products' own protocol.
fn refuses_plain_rpc(address: Ipv4Addr, port: u16) -> bool {
    let mut stream = connect(address, port).unwrap();
    stream.write_all(&[1, 0x81, 0xa3, b'S', b'e', b'q', 0]).unwrap();
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn consul(node: &Node, path: &str) -> Result<Json, String> {
    node.within(|| {
        let request = ureq::get(format!("http://127.0.0.1:8500{path}")).header("X-Consul-Token", MANAGEMENT);
        let mut answer = request.call().map_err(|error| error.to_string())?;
        let body = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&body).map_err(|error| error.to_string())
    })
}

fn nomad(node: &Node, words: &[&str], token: &str) -> Result<String, String> {
    let all = [&["/opt/nomad/bin/nomad"], words].concat();
    let variables = [
        ("NOMAD_ADDR", "https://127.0.0.1:4646"),
        ("NOMAD_CACERT", "/opt/nomad/tls/cos-ca.pem"),
        ("NOMAD_TOKEN", token),
    ];
    node.ask(&all, &variables)
}

fn json(text: &str) -> Result<Json, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

/// Starts the server and waits until both products have a leader; returns Nomad's management token.
fn start_server(server: &Node, document: &str, store: &Store) -> String {
    server.apply("i-server", document, store);
    eventually("Consul's leader", || match consul(server, "/v1/status/leader")? {
        Json::String(leader) if !leader.is_empty() => Ok(()),
        other => Err(format!("{other}\n{}", server.logs())),
    });
    let token = eventually("Nomad's access control", || {
        let said = nomad(server, &["acl", "bootstrap", "-json"], "")
            .map_err(|error| format!("{error}\n{}", server.logs()))?;
        Ok(json(&said)?["SecretID"].as_str().unwrap().to_owned())
    });
    eventually("the Nomad server", || {
        let said = nomad(server, &["server", "members", "-json"], &token)?;
        (json(&said)?[0]["Status"] == "alive").then_some(()).ok_or(said)
    });
    token
}

#[test]
fn the_newest_talk_encrypted_and_take_new_certificates_without_a_restart() {
    let Some([(_, consul), (nomad_version, nomad)]) = binaries::pair() else {
        eprintln!("SKIPPED: a cluster of two nodes needs both products");
        return;
    };
    if possible("a cluster of two nodes") {
        story(&consul, &nomad, nomad_version);
    }
}

#[test]
fn older_ones_talk_encrypted_too() {
    let (consuls, nomads) = (at_hand(Product::Consul), at_hand(Product::Nomad));
    let Some((nomad_version, nomad)) = nomads.first_key_value() else {
        return;
    };
    if !possible("a cluster of two nodes") {
        return;
    }
    for (version, consul) in consuls.iter().rev().skip(1) {
        eprintln!("Consul {version} and Nomad {nomad_version}");
        story(consul, nomad, *nomad_version);
    }
}

/// From nothing to a cluster, and to its second certificates.
fn story(consul_binary: &Path, nomad_binary: &Path, nomad_version: Version) {
    let introduces = Feature::NomadClientIntroduction.known_by(nomad_version);
    let without = |document: &str| {
        let lines = document
            .lines()
            .filter(|line| introduces || !line.contains("introduction"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let (server_document, client_document) = (without(SERVER_DOCUMENT), without(CLIENT_DOCUMENT));
    let authority = Authority::new(consul_binary, nomad_binary);
    let mut store = Store::default();
    authority.issue("first", &mut store);
    authority.gossip_keys(&mut store);
    store.parameters.insert("/management", MANAGEMENT.to_owned());

    let binaries = [(Product::Consul, consul_binary), (Product::Nomad, nomad_binary)];
    let server = Node::new(SERVER, &binaries);
    let client = Node::new(CLIENT, &binaries);
    server.connect(&client);
    let token = start_server(&server, &server_document, &store);
    if introduces {
        // Such a token comes from the servers and lives for minutes.
        let words = ["node", "intro", "create", "-json", "-node-name=i-client"];
        let introduction = json(&nomad(&server, &words, &token).unwrap()).unwrap();
        let introduction = introduction["JWT"].as_str().unwrap().to_owned();
        store.parameters.insert("/nomad/introduction", introduction);
    }
    client.apply("i-client", &client_document, &store);
    eventually("the Nomad client", || client_is_ready(&server, &client, &token));
    talk_is_encrypted(&server, &client, &store, &token);

    // New certificates: the agents show them, and are the same processes as before, if they can be.
    let mut half = store.clone();
    authority.issue("second", &mut store);
    // A new certificate whose key has yet to change stops at the door.
    let certificate_of_two = store.parameters["/consul/certificate"].clone();
    half.parameters.insert("/consul/certificate", certificate_of_two);
    let refused = Fetched::fetch(&crate::converge::spec(&server_document), &half, &server.files());
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("is not the key of ssm:/consul/certificate"),
        "{refused}"
    );
    let reloads =
        !Feature::NomadNotify.known_by(nomad_version) || Feature::NomadNotifyReload.known_by(nomad_version);
    let nomad_act = if reloads { "reload nomad" } else { "restart nomad" };
    let processes = |node: &Node| {
        let number = |name: &str| fs::read(node.files().locate(format!("/opt/{name}.pid"))).unwrap();
        let of_nomad = reloads.then(|| number("nomad"));
        (number("consul"), of_nomad)
    };
    let before = [processes(&server), processes(&client)];
    for (node, name, document, expected) in [
        (
            &server,
            "i-server",
            &server_document,
            &["reload consul", nomad_act][..],
        ),
        // Its Consul gets its certificate from the server.
        (&client, "i-client", &client_document, &[nomad_act]),
    ] {
        let applied = node.apply(name, document, &store);
        let act = |change: &&Change| {
            matches!(
                change,
                Change::Reload { .. } | Change::Restart { .. } | Change::Start { .. } | Change::Stop { .. }
            )
        };
        let acts: Vec<String> = applied
            .changes
            .0
            .iter()
            .filter(act)
            .map(ToString::to_string)
            .collect();
        assert_eq!(acts, expected, "{name}");
    }
    for (address, port, name, shown, authority) in [
        (
            SERVER,
            8501,
            "server.main.consul",
            "/consul/certificate",
            "/consul/ca",
        ),
        (
            SERVER,
            4646,
            "server.global.nomad",
            "/nomad/certificate",
            "/nomad/ca",
        ),
        (
            CLIENT,
            4646,
            "client.global.nomad",
            "/nomad/client-certificate",
            "/nomad/ca",
        ),
    ] {
        let (expected, authority) = (der(&store.parameters[shown]), &store.parameters[authority]);
        eventually("the new certificate", || {
            let shown = client.within(|| certificate(address, port, name, authority))?;
            let told = || format!("{address}:{port} shows the old one\n{}", server.logs());
            (shown == expected).then_some(()).ok_or_else(told)
        });
    }
    assert_eq!([processes(&server), processes(&client)], before);
    eventually("the Nomad client", || client_is_ready(&server, &client, &token));
    talk_is_encrypted(&server, &client, &store, &token);

    // Nothing secret was said by any agent.
    for node in [&server, &client] {
        let logs = node.all_logs();
        assert!(logs.len() > 1000, "the agents said something");
        for (name, secret) in &store.parameters {
            let secrets = secret
                .lines()
                .filter(|line| !line.starts_with("-----") && line.len() > 8);
            for line in secrets {
                assert!(!logs.contains(line), "{name} is in the logs of an agent");
            }
        }
    }
}

fn client_is_ready(server: &Node, client: &Node, token: &str) -> Result<(), String> {
    let nodes = json(&nomad(server, &["node", "status", "-json"], token)?)?;
    let ready = nodes.as_array().is_some_and(|nodes| {
        nodes
            .iter()
            .any(|node| node["Name"] == "i-client" && node["Status"] == "ready")
    });
    ready
        .then_some(())
        .ok_or_else(|| format!("{nodes}\n{}", client.logs()))
}

fn talk_is_encrypted(server: &Node, client: &Node, store: &Store, token: &str) {
    // Gossip, by the agents' own account.
    for node in [server, client] {
        let myself = eventually("Consul's account of itself", || consul(node, "/v1/agent/self"));
        assert_eq!(myself["Stats"]["serf_lan"]["encrypted"], "true");
        let members = consul(node, "/v1/agent/members").unwrap();
        let alive = members
            .as_array()
            .unwrap()
            .iter()
            .filter(|member| member["Status"] == 1);
        assert_eq!(alive.count(), 2, "{members}");
    }
    let information = nomad(server, &["agent-info", "-json"], token).unwrap();
    assert_eq!(json(&information).unwrap()["stats"]["serf"]["encrypted"], "true");
    // RPC in the clear is not answered.
    for port in [8300, 4647] {
        assert!(
            client.within(|| refuses_plain_rpc(SERVER, port)),
            "{port} talks in the clear"
        );
    }
    // The API in the clear is for the node itself; to others it is HTTPS, with the right name.
    assert!(client.within(|| connect(SERVER, 8500)).is_err());
    for (port, name, product) in [
        (8501, "server.main.consul", "/consul"),
        (4646, "server.global.nomad", "/nomad"),
    ] {
        let ca = &store.parameters[format!("{product}/ca").as_str()];
        eventually("the certificate", || {
            client.within(|| certificate(SERVER, port, name, ca))
        });
        let wrong = client.within(|| certificate(SERVER, port, "another.name", ca));
        assert!(wrong.is_err(), "{port} passes for another");
    }
    // Who brings no token learns nothing.
    let anonymous = nomad(server, &["node", "status"], "").unwrap_err();
    assert!(
        anonymous.contains("403") || anonymous.contains("Permission denied"),
        "{anonymous}"
    );
}
