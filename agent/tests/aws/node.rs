//! Owns a node as the credential helper sees it: its name in a folder, a metadata service and an ECR that count.
//! Touches loopback, child processes and one temporary folder.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cos_agent::ecr::NAME;
use serde_json::Value;

use crate::fake;
use crate::server::{Request, Response, Server};

pub(crate) const HOST: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";

/// A node: a link of the helper's name, a folder for its cache, a metadata service, an ECR.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) imds: Server,
    pub(crate) ecr: Server,
}

/// What a call of the helper came to.
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) talk: String,
    pub(crate) took: Duration,
}

impl Told {
    pub(crate) fn password(&self) -> String {
        assert_eq!(self.code, 0, "{}", self.talk);
        let answer: Value = serde_json::from_str(&self.out).unwrap();
        // Nomad takes an object of strings only.
        assert!(
            answer.as_object().unwrap().values().all(Value::is_string),
            "{answer}"
        );
        assert_eq!(answer["Username"], "AWS");
        assert!(
            !self.talk.contains(answer["Secret"].as_str().unwrap()),
            "{}",
            self.talk
        );
        answer["Secret"].as_str().unwrap().to_owned()
    }
}

impl Node {
    pub(crate) fn new(ecr: impl FnMut(&Request) -> Response + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_cos-agent"), folder.path().join(NAME)).unwrap();
        Self {
            folder,
            imds: fake::imds(),
            ecr: Server::start(ecr),
        }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("run/ecr")
    }

    /// No HOME, no PATH: what a service has, and less.
    pub(crate) fn command(&self, action: &str) -> Command {
        let mut command = Command::new(self.folder.path().join(NAME));
        command
            .arg(action)
            .env_clear()
            .env("AWS_ENDPOINT_URL", &self.ecr.url)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.imds.url)
            .env("AWS_ECR_CACHE_DIR", self.cache())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn get(&self, server: &str) -> Told {
        finish(ask(self.command("get"), server))
    }

    /// Many at once.
    pub(crate) fn storm(&self, processes: usize) -> Vec<Told> {
        let asked: Vec<_> = (0..processes).map(|_| ask(self.command("get"), HOST)).collect();
        let waiting: Vec<_> = asked
            .into_iter()
            .map(|asked| thread::spawn(move || finish(asked)))
            .collect();
        waiting.into_iter().map(|told| told.join().unwrap()).collect()
    }

    /// Makes the kept login older.
    pub(crate) fn age(&self, by: Duration) {
        self.change(|entry| {
            for time in ["received", "expires"] {
                entry[time] = (entry[time].as_u64().unwrap() - u64::try_from(by.as_millis()).unwrap()).into();
            }
        });
    }

    pub(crate) fn change(&self, change: impl Fn(&mut Value)) {
        let path = self.kept();
        let mut entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut entry);
        std::fs::write(&path, entry.to_string()).unwrap();
    }

    pub(crate) fn kept(&self) -> PathBuf {
        let kept: Vec<PathBuf> = std::fs::read_dir(self.cache())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        kept[0].clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.ecr.asked().len()
    }
}

pub(crate) fn ask(mut command: Command, question: &str) -> (Child, Instant) {
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    // Dropped at once, so that the helper sees the end.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(question.as_bytes())
        .unwrap();
    (child, start)
}

pub(crate) fn finish((child, start): (Child, Instant)) -> Told {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Told {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        talk: String::from_utf8(stderr).unwrap(),
        took: start.elapsed(),
    }
}
