//! What operators write: NodeConfig, user-data in every packing, tables of mounts, and secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cos_agent::host::Files;
use cos_agent::node::config::{self, ParameterName};
use cos_agent::node::secrets::{FetchError, Fetched, Secret, Secrets};
use cos_agent::node::sources::{Document, InstanceFacts, LARGEST, Origin, read_user_data};

use crate::target::{TEXT, Target, YAML};

/// The configurations of the case folders: every key that there is, and every fault. Those without one come thrice.
fn configurations() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let cases = fs::read_dir(folder).unwrap().flatten();
    let mut paths: Vec<_> = cases.map(|case| case.path().join("node.yaml")).collect();
    paths.sort();
    let mut samples = Vec::new();
    for path in paths {
        let content = fs::read(&path).unwrap();
        let times = if node(&content) { 3 } else { 1 };
        samples.extend(vec![content; times]);
    }
    samples
}

fn document(input: &[u8]) -> Document {
    Document {
        origin: Origin::UserData,
        bytes: input.to_vec(),
    }
}

/// Reads a configuration and, if it is one, makes a node of it.
fn node(input: &[u8]) -> bool {
    let documents = [document(input)];
    let _ = (config::included(&documents), config::explain(&documents));
    match config::read(&documents) {
        Ok(read) => config::resolve(&read, &InstanceFacts::sample(), Some(3)).is_ok(),
        Err(faults) => {
            assert!(!faults.0.is_empty(), "a fault without a word");
            false
        }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn user_data_samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let bare = "version: 1\nrole: consul-client\nconsul: {retry_join: [192.0.2.1]}\n";
    let message = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\nContent-Type: \
         application/vnd.cos.node+yaml\nContent-Disposition: attachment; filename=\"n\\\"\"\n\n{bare}\n--B\n\
         Content-Type: multipart/digest; boundary=C\n\n--C\n\nSubject: x\n\nrole: y\n--C--\n--B\n\
         Content-Transfer-Encoding: quoted-printable\n\nrole:=20x=\n\n--B--\n"
    );
    let archive = "#cloud-config-archive\n- type: application/vnd.cos.node+yaml\n  content: |\n    version: 1\n- '#!/bin/sh'\n";
    let messages: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../mime/messages.json")).unwrap();
    let decoded = |message: &serde_json::Value| {
        BASE64_STANDARD
            .decode(message["message"].as_str().unwrap())
            .unwrap()
    };
    let mut plain: Vec<Vec<u8>> = messages.iter().map(decoded).collect();
    // Half of all begins with what is ours.
    for _ in 0..plain.len() / 3 {
        plain.extend([bare.into(), message.clone().into_bytes(), archive.into()]);
    }
    let packed = vec![
        gzip(message.as_bytes()),
        BASE64_STANDARD.encode(gzip(message.as_bytes())).into_bytes(),
        BASE64_STANDARD.encode(bare).into_bytes(),
        gzip(&gzip(bare.as_bytes())),
    ];
    (plain, packed)
}

/// User-data with at least one document of ours, and no more than it may come to.
fn user_data(input: &[u8]) -> bool {
    let found = read_user_data(input);
    let size: usize = found.documents.iter().map(|document| document.bytes.len()).sum();
    assert!(size <= LARGEST, "{size} bytes");
    !found.documents.is_empty()
}

/// Parameter Store with good values, and the input as one of them.
struct Store(BTreeMap<&'static str, Secret>);

impl Secrets for Store {
    fn fetch(&self, names: &BTreeSet<ParameterName>) -> Result<BTreeMap<ParameterName, Secret>, FetchError> {
        let value = |name: &ParameterName| Some((name.clone(), self.0.get(name.as_str())?.clone()));
        Ok(names.iter().filter_map(value).collect())
    }
}

const SECRETS: [(&str, &str); 5] = [
    ("/gossip", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
    ("/token", "5ec2e701-0000-4000-8000-000000000000"),
    (
        "/ca",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ),
    (
        "/certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ),
    (
        "/key",
        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
    ),
];

/// A node all of whose secrets are good but one, which is the input.
fn secrets(damaged: &'static str) -> Target {
    let text = "version: 1\nrole: consul-server\nconsul:\n  bootstrap_expect: 1\n  retry_join: [192.0.2.1]\n  \
                gossip_key: ssm:/gossip\n  acl: {enabled: true, agent_token: ssm:/token}\n  \
                tls: {ca: ssm:/ca, certificate: ssm:/certificate, key: ssm:/key}\n";
    let read = config::read(&[document(text.as_bytes())]).unwrap();
    let spec = config::resolve(&read, &InstanceFacts::sample(), None).unwrap();
    let good = SECRETS.map(|(name, value)| (name, Secret::new(value.to_owned())));
    let mut store = Store(BTreeMap::from(good));
    let sample = SECRETS.iter().find(|(name, _)| *name == damaged).unwrap().1;
    Target::new(format!("secret {damaged}"), [sample], TEXT, move |input| {
        let value = Secret::new(String::from_utf8_lossy(input).into_owned());
        store.0.insert(damaged, value);
        Fetched::fetch(&spec, &store, &Files::new("/nonexistent")).is_ok()
    })
}

pub(crate) fn targets() -> Vec<Target> {
    let (plain, packed) = user_data_samples();
    vec![
        Target::new("NodeConfig", configurations(), YAML, node).weighing(30),
        Target::new("user-data", plain, TEXT, user_data).weighing(10),
        Target::new("user-data, packed", packed, &[], user_data).weighing(10),
        secrets("/gossip"),
        secrets("/token"),
        secrets("/certificate"),
        secrets("/key"),
    ]
}
