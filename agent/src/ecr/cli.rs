//! Owns the protocol of docker-credential-helpers: one action as an argument, a question on standard input, an answer on
//! standard output. Touches the three standard streams.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::error::EcrError;
use super::helper::{DEADLINE, Helper};
use crate::aws::Environment;
use crate::error::chain;
use crate::host::Files;

/// The name under which Docker and Nomad look for the helper.
pub const NAME: &str = "docker-credential-ecr-login";

/// Longest question that is read; a host name has 253 bytes at most.
const LONGEST_QUESTION: u64 = 64 * 1024;

/// Give logins for ECR to Docker and Nomad.
#[derive(Debug, Clone, Args)]
pub struct EcrLoginArguments {
    /// What to do: get, store, erase, list or version.
    pub action: String,
    /// Where logins are kept; default: AWS_ECR_CACHE_DIR, /run/cos-agent/ecr for root, $XDG_RUNTIME_DIR/cos-agent/ecr
    /// for others.
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
}

impl EcrLoginArguments {
    /// Runs it. What Docker reads is written in any case; the error is for people.
    pub fn run(self) -> Result<(), EcrError> {
        let environment = Environment::of_process();
        let folder = self.cache.or_else(|| Helper::usual_folder(&environment));
        serve(&self.action, environment, folder)
    }
}

/// The helper under its own name. Exit code 1 for every failure, as the protocol has it.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let action = match arguments {
        [action] => action.to_string_lossy().into_owned(),
        others => others.join(&OsString::from(" ")).to_string_lossy().into_owned(),
    };
    let environment = Environment::of_process();
    let folder = Helper::usual_folder(&environment);
    match serve(&action, environment, folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::output::talk(&chain(&error));
            if let Some(hint) = error.hint() {
                crate::output::talk(&format!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(action: &str, environment: Environment, folder: Option<PathBuf>) -> Result<(), EcrError> {
    let ignores_store = environment.is_true("AWS_ECR_IGNORE_CREDS_STORAGE");
    let helper = Helper::new(environment, Files::new("/"), folder, DEADLINE);
    let mut out = io::stdout().lock();
    let done = answer(
        &helper,
        action,
        ignores_store,
        &mut io::stdin().lock(),
        &mut out,
        &mut |line| crate::output::talk(&format!("warning: {line}")),
    );
    if let Err(error) = &done {
        // Docker takes the reason from here, as Nomad does up to 1.9.
        writeln!(out, "{}", error.protocol_text())?;
    }
    out.flush()?;
    done
}

/// What the protocol calls credentials.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

fn answer(
    helper: &Helper,
    action: &str,
    ignores_store: bool,
    input: &mut dyn Read,
    out: &mut dyn Write,
    tell: &mut dyn FnMut(&str),
) -> Result<(), EcrError> {
    match action {
        "get" => {
            let server = question(input)?;
            let login = helper.login(&server, tell)?;
            let answer = Answer {
                server_url: server.trim(),
                username: &login.user,
                secret: login.password.expose(),
            };
            serde_json::to_writer(&mut *out, &answer).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        "erase" => helper.erase(&question(input)?)?,
        "store" => {
            // Also where it is refused: who writes into a closed pipe is told of that, and not of the reason.
            question(input)?;
            if !ignores_store {
                return Err(EcrError::Store);
            }
        }
        "list" => {
            let listed: serde_json::Map<_, _> = helper
                .list()
                .into_iter()
                .map(|(registry, user)| (registry, user.into()))
                .collect();
            serde_json::to_writer(&mut *out, &listed).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        "version" | "--version" => writeln!(out, "{NAME} (cos-agent) {}", env!("CARGO_PKG_VERSION"))?,
        other => {
            return Err(EcrError::Usage {
                action: other.to_owned(),
            });
        }
    }
    Ok(())
}

fn question(input: &mut dyn Read) -> Result<String, EcrError> {
    let mut bytes = Vec::new();
    input.take(LONGEST_QUESTION).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(action: &str, input: &str, ignores_store: bool) -> (Result<(), EcrError>, String) {
        let environment: Environment = [("AWS_EC2_METADATA_DISABLED", "true")].into_iter().collect();
        let root = tempfile::tempdir().unwrap();
        let helper = Helper::new(
            environment,
            Files::new(root.path()),
            Some(PathBuf::from("/run/cos-agent/ecr")),
            DEADLINE,
        );
        let mut out = Vec::new();
        let done = answer(
            &helper,
            action,
            ignores_store,
            &mut input.as_bytes(),
            &mut out,
            &mut |_| {},
        );
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn another_registry_is_told_apart_from_a_failure() {
        let (done, out) = ask("get", "https://index.docker.io/v1/", false);
        let error = done.unwrap_err();
        assert_eq!(out, "");
        assert_eq!(error.protocol_text(), "credentials not found in native keychain");

        let (done, _) = ask("get", "123456789012.dkr.ecr.eu-central-1.amazonaws.com", false);
        let error = done.unwrap_err();
        let text = error.protocol_text();
        assert!(
            !text.contains("not found in native keychain") && text.contains("AWS_EC2_METADATA_DISABLED"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
        assert_eq!(
            ask("get", " \n", false).0.unwrap_err().protocol_text(),
            "no credentials server URL"
        );
    }

    #[test]
    fn the_rest_of_the_protocol_is_answered() {
        assert!(
            ask("version", "", false)
                .1
                .starts_with("docker-credential-ecr-login (cos-agent) ")
        );
        assert_eq!(ask("list", "unused", false).1, "{}\n");
        let store = r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#;
        assert!(matches!(ask("store", store, false).0, Err(EcrError::Store)));
        assert!(ask("store", store, true).0.is_ok());
        assert!(
            ask("erase", "123456789012.dkr.ecr.eu-central-1.amazonaws.com", false)
                .0
                .is_ok()
        );
        assert!(matches!(ask("", "", false).0, Err(EcrError::Usage { .. })));
        assert!(matches!(ask("fetch", "", false).0, Err(EcrError::Usage { .. })));
    }
}
