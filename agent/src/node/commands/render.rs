//! Owns the arguments of `render` and what it prints: the files of a node, for versions and an instance that are
//! here or only named. Touches what the sources touch, for reading, and the products' binaries to ask for versions.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::dry_run::shown;
use super::{SourceArguments, told};
use crate::host::{Files, RealPrograms};
use crate::node::accounts::Accounts;
use crate::node::config;
use crate::node::error::NodeError;
use crate::node::render::{self, Init, Installed, Version, Versions};
use crate::node::secrets::Fetched;
use crate::node::sources::InstanceFacts;

/// Print what a node's files would hold.
#[derive(Debug, Clone, Args)]
pub struct RenderArguments {
    /// The file, such as /opt/consul/config/cos.json; or `all`.
    #[arg(value_name = "PATH|all")]
    pub path: String,
    /// Versions to render for, instead of those that are installed.
    #[arg(long, value_name = "consul=VERSION,nomad=VERSION[,systemd=VERSION]", value_parser = versions)]
    pub versions: Option<Versions>,
    /// How many instances the Auto Scaling group should have, where the configuration asks for that.
    #[arg(long, value_name = "NUMBER")]
    pub group: Option<u32>,
    /// Where to look.
    #[command(flatten)]
    pub sources: SourceArguments,
}

/// Versions by product; what starts services is not known unless `systemd` is among them.
fn versions(text: &str) -> Result<Versions, String> {
    let wrong = || format!("must be consul=1.2.3,nomad=1.2.3 and perhaps systemd=252, got \"{text}\"");
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in text.split(',') {
        let (product, version) = pair.split_once('=').ok_or_else(wrong)?;
        given.insert(product.trim(), version.trim());
    }
    let mut product = |name: &str| {
        given
            .remove(name)
            .map(|version| version.parse().map_err(|()| wrong()))
    };
    let (consul, nomad) = (
        product("consul").ok_or_else(wrong)??,
        product("nomad").ok_or_else(wrong)??,
    );
    let init = match given.remove("systemd").map(str::parse) {
        None => Init::Unknown,
        Some(Ok(version)) => Init::Systemd(Version::new(version, 0, 0)),
        Some(Err(_)) => return Err(wrong()),
    };
    if given.is_empty() {
        Ok(Versions { consul, nomad, init })
    } else {
        Err(wrong())
    }
}

impl RenderArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let gathered = self.sources.gather().map_err(|error| told(error, talk))?;
        let config = config::read(&gathered.documents).map_err(|faults| told(faults.into(), talk))?;
        let facts = gathered.facts.unwrap_or_else(InstanceFacts::sample);
        let spec = config::resolve(&config, &facts, self.group)?;
        let machine = Files::new(&self.sources.root);
        let versions = match self.versions {
            Some(versions) => versions,
            None => Versions::detect(&machine, &RealPrograms)?,
        };
        let accounts = Accounts::read(&machine)?;
        // Nobody is asked for a secret to print a file.
        let secrets = Fetched::placeholders(&spec);
        let desired = render::render(&spec, &Installed { versions, accounts }, &secrets)?;
        let files: BTreeMap<&String, _> = desired
            .files
            .iter()
            .filter_map(|(path, file)| Some((path, file.as_ref()?)))
            .collect();
        if self.path != "all" {
            let Some(file) = files.get(&self.path) else {
                let paths: Vec<&str> = files.keys().map(|path| path.as_str()).collect();
                let message = format!("this node has no file {}; it has {}", self.path, paths.join(", "));
                return Err(NodeError::Usage(message));
            };
            let content = shown(&self.path, file.mode, &file.content);
            return write!(out, "{content}").map_err(NodeError::Output);
        }
        for (index, (path, file)) in files.into_iter().enumerate() {
            let space = if index == 0 { "" } else { "\n" };
            writeln!(
                out,
                "{space}==> {path} ({:04o} {}:{})",
                file.mode, file.user, file.group
            )?;
            write!(out, "{}", shown(path, file.mode, &file.content))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_needed_and_nothing_else() {
        let read = versions("nomad=1.11.0, consul=v1.21.5").unwrap();
        assert_eq!(
            (read.consul, read.nomad),
            (Version::new(1, 21, 5), Version::new(1, 11, 0))
        );
        assert_eq!(read.init, Init::Unknown);
        let read = versions("consul=1.21.5,nomad=1.11.0,systemd=252").unwrap();
        assert_eq!(read.init, Init::Systemd(Version::new(252, 0, 0)));
        for wrong in [
            "",
            "consul=1.21.5",
            "consul=1.21,nomad=1.11.0",
            "consul=1.21.5,nomad=1.11.0,docker=1.0.0",
        ] {
            assert!(versions(wrong).is_err(), "{wrong}");
        }
    }
}
