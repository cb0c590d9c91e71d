//! Owns `run-consul` and `run-nomad`, the commands of COS's older images: every flag, with the meaning that it had, as
//! a NodeConfig that is laid over the other sources and applied. Touches what `apply` touches, and keeps its part.
//!
//! The two add up: each keeps what it was told in one drop-in, so that `run-consul --client` and `run-nomad --client`
//! together make a nomad-client, and `apply` at the next boot makes the same node. Other drop-ins win if their names
//! sort after it, now and then.

mod consul;
mod flags;
mod nomad;
mod part;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use self::flags::{Flag, Given};
use self::part::Part;
use super::cli::{ApplyArguments, Arguments};
use super::config::{self, Role, Roles};
use super::error::NodeError;
use super::health;
use super::log::Defaults;
use super::sources::{Document, Gathered, InstanceFacts, Origin, imds};
use crate::host::Files;

/// The drop-in that both commands keep.
pub const KEPT: &str = "/etc/cos/node.d/90-run.json";

/// One of the two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shim {
    /// `run-consul`.
    Consul,
    /// `run-nomad`.
    Nomad,
}

impl Shim {
    /// The name by which it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consul => "run-consul",
            Self::Nomad => "run-nomad",
        }
    }

    fn flags(self) -> &'static [Flag] {
        match self {
            Self::Consul => &consul::FLAGS,
            Self::Nomad => &nomad::FLAGS,
        }
    }

    /// Keys of the document that belong to this command alone.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Consul => &["consul"],
            Self::Nomad => &["datacenter", "nomad", "docker"],
        }
    }

    /// Every flag, for the guide and for tests.
    pub fn flag_names(self) -> Vec<&'static str> {
        self.flags().iter().map(|flag| flag.name).collect()
    }

    /// What `--help` prints.
    pub fn usage(self) -> String {
        let (about, example) = match self {
            Self::Consul => (
                "Configure and start Consul as the command of this name did in older images of COS.",
                "run-consul --client --cluster-tag-key cos:consul --cluster-tag-value main",
            ),
            Self::Nomad => (
                "Configure and start Nomad as the command of this name did in older images of COS.",
                "run-nomad --server --num-servers 3 --datacenter leader",
            ),
        };
        flags::usage(self.name(), about, self.flags(), example)
    }
}

/// Arguments as the command line has them when it is called by the name of one of the two commands: as if they stood
/// behind `cos-agent run-consul`.
pub fn by_name(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    let called = [Shim::Consul, Shim::Nomad].into_iter().find(|shim| {
        let called = name.and_then(|name| name.to_str());
        called == Some(shim.name())
    });
    if let Some(shim) = called {
        arguments.splice(0..1, ["cos-agent".into(), shim.name().into()]);
    }
    arguments
}

/// Arguments of `run-consul` and `run-nomad`, read by a table of their own.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true)]
pub struct ShimArguments {
    /// Flags as they were; --help names them.
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub flags: Vec<String>,
}

impl ShimArguments {
    /// Runs it on this machine.
    pub fn run(self, shim: Shim, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let apply = ApplyArguments {
            dry_run: false,
            config: Vec::new(),
            imds: imds::DEFAULT_URL.to_owned(),
            root: "/".into(),
            deadline: super::cli::DEADLINE,
            consul: health::CONSUL_URL.to_owned(),
            json: false,
        };
        run(shim, &self.flags, apply, out, talk)
    }
}

/// Runs one of the two commands with the arguments of `apply` as they are.
pub fn run(
    shim: Shim,
    arguments: &[String],
    mut apply: ApplyArguments,
    out: &mut dyn Write,
    talk: &mut dyn Write,
) -> Result<(), NodeError> {
    if arguments.iter().any(|argument| argument == "--help") {
        return write!(out, "{}", shim.usage()).map_err(NodeError::Output);
    }
    let files = Files::new(&apply.root);
    let read =
        flags::parse(shim.flags(), arguments).and_then(|given| Ok((part(shim, &given, &files)?, given)));
    let (part, given) = match read {
        Ok(read) => read,
        Err(message) => {
            // The old commands exit with 1; here 2 is what wrong usage is, in every command.
            write!(talk, "{}", shim.usage())?;
            return Err(NodeError::Usage(message));
        }
    };
    if given.has("--print-config") {
        return print(&part, out, talk);
    }
    apply.dry_run |= given.has("--dry-run");
    let kept = RefCell::new(Vec::new());
    let besides = Arguments {
        adapt: &mut |gathered| {
            *kept.borrow_mut() = lay_over(shim, &part, gathered)?;
            Ok(())
        },
        accepted: &mut || keep(&part, &kept.borrow(), &files),
        // The scripts that called the old commands kept a log of their own.
        log: Defaults::Neither,
    };
    apply.run_with(besides, out, talk)
}

fn part(shim: Shim, given: &Given, files: &Files) -> Result<Part, String> {
    match shim {
        Shim::Consul => consul::part(given, files),
        Shim::Nomad => nomad::part(given),
    }
}

/// Lays a command's part over what the sources say, where the drop-in of both commands has its place; gives the new
/// content of that drop-in.
fn lay_over(shim: Shim, part: &Part, gathered: &mut Gathered) -> Result<Vec<u8>, NodeError> {
    let documents = &mut gathered.documents;
    let is_kept = |document: &Document| document.origin == Origin::DropIn(KEPT.into());
    let later = |document: &Document| matches!(&document.origin, Origin::DropIn(path) if path.as_path() > Path::new(KEPT));
    let mut before = Map::new();
    if let Some(at) = documents.iter().position(is_kept) {
        before = serde_json::from_slice(&documents.remove(at).bytes).map_err(NodeError::Kept)?;
    }
    let place = documents.iter().position(later).unwrap_or(documents.len());
    let said = config::explain(documents)?;
    let is_said = |path: &str| {
        let below = |said: &str| {
            said.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        said.iter().any(|said| below(&said.path))
    };
    gathered.notes.extend(part.notes.iter().cloned());
    let roles = roles(shim, part, &before);
    for key in ["version", "role"].iter().chain(shim.keys()) {
        before.remove(*key);
    }
    let mut says = Part {
        says: part.says.clone(),
        ..Part::default()
    };
    for (path, value) in part.otherwise.iter().filter(|(path, _)| !is_said(path)) {
        says.say(path, value.clone());
    }
    if part.joins_nobody && !is_said("consul.retry_join") {
        let own = gathered
            .facts
            .clone()
            .unwrap_or_else(InstanceFacts::sample)
            .private_ipv4;
        says.say("consul.retry_join", json!([own]));
        let note = "without --cluster-tag-key and --cluster-tag-value this agent joins nobody by itself";
        gathered.notes.push(note.to_owned());
    }
    if shim == Shim::Nomad && !before.contains_key("consul") && !is_said("consul") {
        let note =
            "run-consul was never called on this machine, and no other source says how Consul is joined";
        gathered.notes.push(note.to_owned());
    }
    let document = |origin, parts: &[&Map<String, Json>], roles: Option<&[Role]>| {
        let mut whole = Map::from_iter([("version".to_owned(), json!(config::VERSION))]);
        whole.extend(roles.map(|roles| ("role".to_owned(), json!(roles))));
        whole.extend(parts.iter().flat_map(|part| (*part).clone()));
        let bytes = format!("{:#}\n", Json::Object(whole)).into_bytes();
        Document { origin, bytes }
    };
    let origin = Origin::DropIn(KEPT.into());
    let all = document(origin.clone(), &[&before, &says.says], Some(&roles));
    let command = document(Origin::CommandLine(shim.name()), &[&says.says], Some(&roles));
    documents.insert(place, command);
    if !before.is_empty() {
        documents.insert(place, document(origin, &[&before], None));
    }
    Ok(all.bytes)
}

/// What the node is for, by what both commands said.
fn roles(shim: Shim, part: &Part, before: &Map<String, Json>) -> Vec<Role> {
    let before: Option<Roles> = before
        .get("role")
        .cloned()
        .and_then(|roles| serde_json::from_value(roles).ok());
    let of_other = |role: &Role| match shim {
        Shim::Consul => role.has_nomad(),
        Shim::Nomad => *role == Role::ConsulServer,
    };
    let kept = Role::ALL
        .into_iter()
        .filter(|role| before.as_ref().is_some_and(|before| before.has(*role)))
        .filter(of_other);
    let mut roles: Vec<Role> = kept.chain(part.roles.iter().copied()).collect();
    if roles.is_empty() {
        roles.push(Role::ConsulClient);
    }
    roles.sort();
    roles.dedup();
    roles
}

/// Keeps what was accepted: what the document refers to before the document.
fn keep(part: &Part, document: &[u8], files: &Files) -> Result<(), NodeError> {
    for (path, mode, content) in &part.files {
        if let Some(folder) = Path::new(path).parent().filter(|_| *mode == 0o600) {
            files.make_directory(folder, 0o700)?;
        }
        files.write_atomic(path, content, *mode)?;
    }
    Ok(files.write_atomic(KEPT, document, 0o644)?)
}

/// Prints the NodeConfig that says the same.
fn print(part: &Part, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
    for note in &part.notes {
        writeln!(talk, "note: {note}")?;
    }
    let mut whole = Part {
        says: part.says.clone(),
        ..Part::default()
    };
    for (path, value) in &part.otherwise {
        whole.say(path, value.clone());
    }
    if part.joins_nobody {
        let note = "nothing here says how Consul is joined: add consul.retry_join";
        writeln!(talk, "note: {note}")?;
    }
    let role = match part.roles.as_slice() {
        [] => json!(Role::ConsulClient),
        [one] => json!(one),
        several => json!(several),
    };
    let mut document = Map::from_iter([
        ("version".to_owned(), json!(config::VERSION)),
        ("role".to_owned(), role),
    ]);
    document.extend(whole.says);
    let mut text = String::new();
    part::yaml(&document, 0, &mut text);
    write!(out, "{text}").map_err(NodeError::Output)
}

#[cfg(test)]
mod tests;
