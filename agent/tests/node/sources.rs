//! Every source at once: a metadata service with tags and user-data, files and drop-ins, parameters; what wins, what
//! it costs, and what is told when something is wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use cos_agent::host::Files;
use cos_agent::node::config::{self, Explained};
use cos_agent::node::sources::{
    FileParameters, Gathered, Imds, InstanceFacts, MOST_TAGS, Parameters, ParametersError, SourceError,
    Sources, gather,
};

use crate::imds::service;
use crate::server::{Request, Response, Server};

/// A metadata service with tags and user-data.
fn server(tags: &'static [(&'static str, &'static str)], user_data: &'static str) -> Server {
    Server::start(move |request: &Request| {
        let list = "/latest/meta-data/tags/instance";
        if request.header("X-aws-ec2-metadata-token") != Some("token-1") {
            return service(request);
        }
        if request.path == list && !tags.is_empty() {
            let keys: Vec<&str> = tags.iter().map(|(key, _)| *key).collect();
            return Response::new(200, keys.join("\n"));
        }
        let key = request
            .path
            .strip_prefix(list)
            .and_then(|rest| rest.strip_prefix('/'));
        match tags.iter().find(|(tag, _)| Some(*tag) == key) {
            Some((_, value)) => Response::new(200, *value),
            None if request.path == "/latest/user-data" && !user_data.is_empty() => {
                Response::new(200, user_data)
            }
            None if request.path == "/latest/user-data" => Response::new(404, ""),
            None => service(request),
        }
    })
}

/// Parameters in memory, with a record of each question.
#[derive(Default)]
struct Memory {
    values: BTreeMap<&'static str, &'static str>,
    asked: Mutex<Vec<Vec<String>>>,
}

impl Parameters for Memory {
    fn get(
        &self,
        names: &[&str],
        facts: &InstanceFacts,
    ) -> Result<BTreeMap<String, String>, ParametersError> {
        assert_eq!(facts.region, "eu-central-1");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.asked.lock().unwrap().push(names.clone());
        let value = |name: String| Some((name.clone(), (*self.values.get(name.as_str())?).to_owned()));
        Ok(names.into_iter().filter_map(value).collect())
    }
}

struct Node {
    files: Files,
    parameters: Memory,
    _folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            files: Files::new(folder.path()),
            parameters: Memory::default(),
            _folder: folder,
        }
    }

    fn write(&self, path: &str, content: &str) {
        self.files.write_atomic(path, content.as_bytes(), 0o644).unwrap();
    }

    fn gather(&self, server: &Server) -> Result<Gathered, SourceError> {
        gather(&Sources {
            files: &self.files,
            named: &[],
            imds: Some(&Imds::new(&server.url, Duration::from_secs(10))),
            parameters: Some(&self.parameters),
        })
    }
}

/// `path = value (origin)` of each value that `path` begins.
fn said(gathered: &Gathered, path: &str) -> Vec<String> {
    let explained = config::explain(&gathered.documents).unwrap();
    let line = |said: &Explained| format!("{} = {} ({})", said.path, said.value, said.origin);
    explained
        .iter()
        .filter(|said| said.path.starts_with(path))
        .map(line)
        .collect()
}

fn faults(result: Result<Gathered, SourceError>) -> Vec<String> {
    match result {
        Err(SourceError::Faults(faults)) => faults.0.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_source_wins_over_those_before_it() {
    let mut node = Node::new();
    let meta = |who: &str, from: usize| {
        let keys = ["a", "b", "c", "d", "e", "f"];
        let lines: Vec<String> = keys[from..]
            .iter()
            .map(|key| format!("    {key}: {who}\n"))
            .collect();
        format!("nomad:\n  meta:\n{}", lines.concat())
    };
    let parameter: &'static str = Box::leak(meta("parameter", 1).into_boxed_str());
    node.parameters.values.insert("/cos/base", parameter);
    let user_data: &'static str = Box::leak(
        format!(
            "version: 1\nrole: nomad-client\ninclude: [/cos/base]\nconsul: {{retry_join: [192.0.2.1]}}\n{}",
            meta("user-data", 2)
        )
        .into_boxed_str(),
    );
    let server = server(
        &[
            ("Name", "web"),
            ("cos:consul", "main"),
            ("cos:nomad.meta.a", "tag"),
            ("cos:nomad.meta.b", "tag"),
        ],
        user_data,
    );
    node.write("/etc/cos/node.yaml", &format!("version: 1\n{}", meta("file", 3)));
    // The order is that of the names, whatever their endings.
    node.write(
        "/etc/cos/node.d/10-first.json",
        r#"{"version": 1, "nomad": {"meta": {"e": "10", "f": "10"}}}"#,
    );
    node.write(
        "/etc/cos/node.d/20-second.yaml",
        "version: 1\nnomad: {meta: {f: '20'}}",
    );
    for not_read in [".hidden.yaml", "30-kept.yaml.bak", "README"] {
        node.write(&format!("/etc/cos/node.d/{not_read}"), "what: ever");
    }
    let gathered = node.gather(&server).unwrap();
    assert_eq!(
        said(&gathered, "nomad.meta"),
        [
            r#"nomad.meta.a = "tag" (tag cos:nomad.meta.a)"#,
            r#"nomad.meta.b = "parameter" (parameter /cos/base)"#,
            r#"nomad.meta.c = "user-data" (user-data)"#,
            r#"nomad.meta.d = "file" (/etc/cos/node.yaml)"#,
            r#"nomad.meta.e = "10" (/etc/cos/node.d/10-first.json)"#,
            r#"nomad.meta.f = "20" (/etc/cos/node.d/20-second.yaml)"#,
        ]
    );
    assert_eq!(gathered.facts, Some(InstanceFacts::sample()));
    assert!(config::read(&gathered.documents).is_ok());
    assert_eq!(*node.parameters.asked.lock().unwrap(), [["/cos/base"]]);
}

#[test]
fn a_boot_with_as_many_tags_as_can_be_costs_nine_requests_and_one_token() {
    let server = server(
        &[
            ("cos:role", "nomad-client"),
            ("cos:datacenter", "1"),
            ("cos:consul.retry_join.tag_key", "cos:consul"),
            ("cos:consul.retry_join.tag_value", "main"),
            ("cos:docker.privileged", "true"),
            ("cos:consul", "main"),
            ("Name", "x"),
        ],
        "#!/bin/sh\ncos-agent apply\n",
    );
    let gathered = Node::new().gather(&server).unwrap();
    // Tags alone make a node.
    let config = config::read(&gathered.documents).unwrap();
    assert_eq!(config.datacenter.unwrap().as_str(), "1");
    assert_eq!(config.docker.privileged, Some(true));
    assert_eq!(gathered.others, ["a script"]);
    assert_eq!(server.count("PUT /latest/api/token"), 1);
    let asked = server.asked();
    assert_eq!(asked.len(), 4 + MOST_TAGS, "{asked:?}");
    assert!(
        asked.len() <= 12 - 3,
        "credentials for the API of AWS take three more"
    );
}

#[test]
fn without_tags_and_user_data_a_boot_costs_four_requests() {
    let server = server(&[], "");
    let node = Node::new();
    node.write("/etc/cos/node.yaml", "version: 1");
    let gathered = node.gather(&server).unwrap();
    assert_eq!(gathered.documents.len(), 1);
    assert_eq!(server.asked().len(), 4, "{:?}", server.asked());
}

#[test]
fn a_named_file_speaks_alone() {
    let server = server(&[("cos:datacenter", "tag")], "version: 1\n");
    let node = Node::new();
    node.write("/etc/cos/node.yaml", "what: ever");
    node.write("/etc/cos/node.d/a.yaml", "what: ever");
    node.write(
        "/tmp/one.yaml",
        "version: 1\nrole: nomad-client\ndatacenter: one\n",
    );
    node.write("/tmp/two.yaml", "version: 1\ndatacenter: two\n");
    let named: Vec<PathBuf> = ["/tmp/one.yaml", "/tmp/two.yaml"]
        .map(|path| node.files.locate(path))
        .to_vec();
    let imds = Imds::new(&server.url, Duration::from_secs(10));
    let sources = Sources {
        files: &node.files,
        named: &named,
        imds: Some(&imds),
        parameters: None,
    };
    let gathered = gather(&sources).unwrap();
    let expected = format!("datacenter = \"two\" ({})", named[1].display());
    assert_eq!(said(&gathered, "datacenter"), [expected]);
    assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
}

#[test]
fn every_fault_of_every_source_comes_at_once() {
    let server = server(
        &[("cos:consul.datacentre", "x"), ("cos:docker.privileged", "")],
        "Content-Type: multipart/mixed; boundary=B\n\n\
         --B\nContent-Type: application/vnd.cos.node+yaml\n\nversion: 1\nrole: nomad-clint\n\
         --B\nContent-Type: application/gzip\n\nnot gzip\n\
         --B\nContent-Type: application/vnd.cos.node+yaml\nContent-Transfer-Encoding: base64\n\nbm8=\n--B--\n",
    );
    let node = Node::new();
    node.write("/etc/cos/node.yaml", "version: 1\ninclude: [/cos/none]\n");
    let told = faults(node.gather(&server));
    assert_eq!(
        told,
        [
            "tag cos:docker.privileged: docker.privileged must have a value, got nothing",
            "user-data part 2: the document is said to be application/gzip and is no gzip",
            "user-data part 3: the document must be a mapping, got \"no\" (line 1, column 1)",
        ],
        "a document that is none is told first"
    );
    let server = self::server(
        &[("cos:consul.datacentre", "x")],
        "version: 1\nrole: nomad-clint\nconsul: {retry_join: [192.0.2.1]}\n",
    );
    let told = faults(node.gather(&server));
    assert_eq!(
        told,
        [
            "/etc/cos/node.yaml: include[0] names parameter /cos/none, which does not exist (line 2, column 11)",
            "tag cos:consul.datacentre: consul.datacentre is not a known key; did you mean datacenter?",
            "user-data: role must be consul-client, consul-server, nomad-server or nomad-client, got \"nomad-clint\"; \
             did you mean nomad-client? (line 2, column 7)",
        ]
    );
}

#[test]
fn include_where_nobody_can_be_asked_is_no_silent_loss() {
    let server = server(&[], "version: 1\ninclude: [/cos/base]\n");
    let files = Files::new("/nonexistent");
    let imds = Imds::new(&server.url, Duration::from_secs(10));
    let sources = Sources {
        files: &files,
        named: &[],
        imds: Some(&imds),
        parameters: None,
    };
    let error = gather(&sources).unwrap_err();
    assert_eq!(
        error.to_string(),
        "include names parameter /cos/base, and Systems Manager cannot be asked here"
    );
    let broken = FileParameters(BTreeMap::from([(
        "/cos/base".to_owned(),
        PathBuf::from("/nonexistent"),
    )]));
    let sources = Sources {
        parameters: Some(&broken),
        ..sources
    };
    assert!(matches!(gather(&sources), Err(SourceError::Parameters(_))));
}

#[test]
fn tags_that_cannot_be_had_end_the_boot() {
    let refusals = RefCell::new(0);
    let server = Server::start(move |request| match request.path.as_str() {
        "/latest/meta-data/tags/instance" if *refusals.borrow() < 1 => {
            *refusals.borrow_mut() += 1;
            Response::new(503, "")
        }
        "/latest/meta-data/tags/instance" => Response::new(200, "cos:role"),
        "/latest/meta-data/tags/instance/cos:role" => Response::new(418, ""),
        _ => service(request),
    });
    let error = Node::new().gather(&server).unwrap_err();
    assert!(error.to_string().ends_with("cos:role answered 418"), "{error}");
}
