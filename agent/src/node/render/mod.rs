//! Owns how a `NodeSpec` becomes files, directories and units, for what is installed on the machine.
//! Touches nothing: the same spec, machine and secrets give the same bytes.

mod consul;
mod desired;
pub mod dns;
mod docker;
mod drop_in;
mod error;
mod feature;
mod installed;
mod nomad;
mod paths;
mod record;
mod version;

use std::time::Duration;

use serde::Serialize;

use super::accounts::Accounts;
use super::config::{ConsulSpec, KeyPair, NodeSpec, NomadSpec, Role, SecretSource};
use super::disks::nomad_drop_in;
use super::secrets::Fetched;
use desired::{Reads, private, public, running};
use drop_in::Service;

pub(crate) use installed::{FileIdentity, Known, Recognised, known, recognise};

pub(crate) use desired::{Content, digest};
pub use desired::{DesiredDirectory, DesiredFile, DesiredState, DesiredUnit, Reloads, RunsWith, Unit};
pub use error::RenderError;
pub use feature::{Evidence, FEATURES, Feature, Row, versions_document};
pub use paths::*;
pub use record::{ExpectedMount, Record, RecordedDns};
pub use version::{Init, Product, Version, VersionError, Versions};

/// What is on the machine that decides how a spec is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Versions.
    pub versions: Versions,
    /// Users and groups.
    pub accounts: Accounts,
}

/// Renders a node.
pub fn render(
    spec: &NodeSpec,
    installed: &Installed,
    secrets: &Fetched,
) -> Result<DesiredState, RenderError> {
    let mut state = DesiredState::default();
    let mut node = Node {
        spec,
        installed,
        secrets,
        state: &mut state,
    };
    node.consul(&spec.consul)?;
    match &spec.nomad {
        Some(nomad) => node.nomad(nomad)?,
        None => node.no_nomad(),
    }
    if spec.roles.has(Role::NomadClient) {
        // COS writes nothing that Docker reads at its start; the file below is read anew at every pull.
        state.units.insert(Unit::Containerd, DesiredUnit::Running(None));
        state.units.insert(Unit::Docker, DesiredUnit::Running(None));
        let configuration = docker::client_configuration(spec)?;
        for (path, file) in docker::of_users(spec, &installed.accounts, &configuration)? {
            state.files.insert(path, Some(file));
        }
        let shared = Some(public(configuration));
        state.files.insert(DOCKER_CLIENT_CONFIGURATION.to_owned(), shared);
    }
    if let Some(plan) = &spec.dns.plan {
        state.files.extend(plan.files.clone());
        state.units.extend(plan.units.clone());
        state.links.extend(plan.links.clone());
    }
    let record = record::record(spec, &installed.versions)?;
    state.files.insert(RECORD.to_owned(), Some(public(record)));
    state.units.insert(Unit::Watch, watcher(spec, &state));
    Ok(state)
}

/// The watcher reads the record when it starts, and goes on from its journal.
fn watcher(spec: &NodeSpec, state: &DesiredState) -> DesiredUnit {
    match spec.watch {
        Some(_) => running(
            env!("CARGO_PKG_VERSION"),
            &state.files,
            &[(RECORD, Reads::AtStart)],
        ),
        None => DesiredUnit::Stopped,
    }
}

/// Whether jobs wait until the node is ready.
fn held_back(spec: &NodeSpec) -> bool {
    let held = spec.watch.as_ref().is_some_and(|watch| watch.hold_until_ready);
    held && spec.roles.has(Role::NomadClient)
}

/// Files that hold what is secret, or come and go with it.
const CONSUL_SECRETS: [(&str, Reads); 5] = [
    (CONSUL_GOSSIP, Reads::Once),
    (CONSUL_TOKENS, Reads::AtReload),
    (CONSUL_CA, Reads::AtReload),
    (CONSUL_CERTIFICATE, Reads::AtReload),
    (CONSUL_KEY, Reads::AtReload),
];
const NOMAD_TLS_FILES: [&str; 3] = [NOMAD_CA, NOMAD_CERTIFICATE, NOMAD_KEY];

/// A node that is being rendered.
struct Node<'a> {
    spec: &'a NodeSpec,
    installed: &'a Installed,
    secrets: &'a Fetched,
    state: &'a mut DesiredState,
}

impl<'a> Node<'a> {
    fn consul(&mut self, consul: &ConsulSpec) -> Result<(), RenderError> {
        let Installed { versions, accounts } = self.installed;
        let service = Service {
            product: Product::Consul,
            unit_user: "consul",
            unit_data_dir: "/opt/consul/data",
            spec: &consul.service,
            data_dir: &consul.data_dir,
        };
        let lines = service.lines(versions, accounts)?;
        let drop_in = drop_in::consul(&lines).map(public);
        self.state.files.insert(CONSUL_DROP_IN.to_owned(), drop_in);
        let user = consul.service.user.as_str();
        let group = drop_in::group(Product::Consul, user, accounts)?;
        self.directory(&consul.data_dir, 0o750, user, &group, Some(Unit::Consul));
        self.directory(CONSUL_FOLDER, 0o750, user, &group, None);
        let mut reads = vec![(CONSUL_DROP_IN, Reads::AtStart)];
        if consul.managed {
            reads.push((CONSUL_CONFIGURATION, Reads::AtStart));
            reads.extend(CONSUL_SECRETS);
            let configuration = consul::render(self.spec, versions.consul)?;
            self.file(CONSUL_CONFIGURATION, Some(configuration), &group);
            let key = self.secret(consul.gossip_key.as_ref())?;
            self.file(CONSUL_GOSSIP, key.map(consul::gossip).transpose()?, &group);
            let tokens = match &consul.acl {
                Some(acl) => consul::tokens(acl, self.secrets, versions.consul)?,
                None => None,
            };
            self.file(CONSUL_TOKENS, tokens, &group);
            if consul.tls.is_some() {
                self.directory(CONSUL_TLS, 0o750, user, &group, None);
            }
            let ca = consul.tls.as_ref().map(|tls| &tls.ca);
            let pair = consul.tls.as_ref().and_then(|tls| tls.pair.as_ref());
            self.certificates([CONSUL_CA, CONSUL_CERTIFICATE, CONSUL_KEY], ca, pair, &group)?;
        }
        let unit = running(versions.consul, &self.state.files, &reads);
        self.state.units.insert(Unit::Consul, unit);
        Ok(())
    }

    fn nomad(&mut self, nomad: &NomadSpec) -> Result<(), RenderError> {
        let Installed { versions, accounts } = self.installed;
        let service = Service {
            product: Product::Nomad,
            unit_user: "root",
            unit_data_dir: "/opt/nomad/data",
            spec: &nomad.service,
            data_dir: &nomad.data_dir,
        };
        let lines = service.lines(versions, accounts)?;
        let drop_in = drop_in::nomad(nomad, versions.nomad, &lines);
        self.state
            .files
            .insert(NOMAD_DROP_IN.to_owned(), Some(public(drop_in)));
        let user = nomad.service.user.as_str();
        let group = drop_in::group(Product::Nomad, user, accounts)?;
        self.nomad_directories(nomad, user, &group);
        let disks = nomad_drop_in(&self.spec.disks).map(|(_, text)| public(text));
        self.state.files.insert(NOMAD_DISKS_DROP_IN.to_owned(), disks);
        let mut reads = [NOMAD_DROP_IN, NOMAD_DISKS_DROP_IN]
            .map(|path| (path, Reads::AtStart))
            .to_vec();
        if nomad.managed {
            let version = versions.nomad;
            reads.extend([NOMAD_CONFIGURATION, NOMAD_TOKENS].map(|path| (path, Reads::AtStart)));
            reads.push((NOMAD_GOSSIP, Reads::Once));
            // Between the two it would be killed by a reload, as long as systemd waits for its word.
            let reloads =
                !Feature::NomadNotify.known_by(version) || Feature::NomadNotifyReload.known_by(version);
            let tls = if reloads { Reads::AtReload } else { Reads::AtStart };
            reads.extend(NOMAD_TLS_FILES.map(|path| (path, tls)));
            let configuration = nomad::render(self.spec, nomad, version)?;
            self.file(NOMAD_CONFIGURATION, Some(configuration), &group);
            let key = nomad
                .server
                .as_ref()
                .and_then(|server| server.gossip_key.as_ref());
            let key = self.secret(key)?;
            self.file(NOMAD_GOSSIP, key.map(nomad::gossip).transpose()?, &group);
            let token = self.secret(nomad.consul_token.as_ref())?;
            self.file(NOMAD_TOKENS, token.map(nomad::tokens).transpose()?, &group);
            let (ca, pair) = nomad.tls.as_ref().map(|tls| (&tls.ca, &tls.pair)).unzip();
            self.certificates(NOMAD_TLS_FILES, ca, pair, &group)?;
            self.introduction(nomad)?;
        }
        let unit = running(versions.nomad, &self.state.files, &reads);
        self.state.units.insert(Unit::Nomad, unit);
        Ok(())
    }

    /// The image made its own for the user `nomad`; root needs no permission to use them.
    fn nomad_directories(&mut self, nomad: &NomadSpec, user: &str, group: &str) {
        let own = |path: &str| path == "/opt/nomad/data" && user == "root";
        if !own(&nomad.data_dir) {
            self.directory(&nomad.data_dir, 0o700, user, group, None);
        }
        if user != "root" {
            self.directory(NOMAD_FOLDER, 0o750, user, group, None);
        }
        // Only a server's own state changes hands: what is in a client's belongs to its jobs.
        if nomad.server.is_some() && nomad.client.is_none() {
            let state = format!("{}/server", nomad.data_dir);
            self.directory(&state, 0o700, user, group, Some(Unit::Nomad));
        }
        if let Some(folder) = &nomad.log_dir {
            self.directory(folder, 0o755, user, group, None);
        }
        if nomad.tls.is_some() {
            self.directory(NOMAD_TLS, 0o750, user, group, None);
        }
    }

    /// Nomad looks for the token in the client's state when it starts, until it is registered. Its unit does not run
    /// with the file: a token lives for minutes, and a new one must not restart clients that have long been let in.
    fn introduction(&mut self, nomad: &NomadSpec) -> Result<(), RenderError> {
        let Some(client) = &nomad.client else {
            return Ok(());
        };
        let token = self.secret(client.introduction_token.as_ref())?;
        let path = format!("{}{INTRODUCTION_TOKEN}", nomad.data_dir);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if token.is_some() {
            self.directory(folder, 0o700, &nomad.service.user, "root", None);
        }
        let file = token.map(|token| DesiredFile {
            mode: 0o600,
            user: nomad.service.user.clone(),
            ..private(format!("{token}\n"), "root")
        });
        self.state.files.insert(path, file);
        Ok(())
    }

    fn no_nomad(&mut self) {
        let files = [
            NOMAD_CONFIGURATION,
            NOMAD_DROP_IN,
            NOMAD_DISKS_DROP_IN,
            NOMAD_GOSSIP,
            NOMAD_TOKENS,
        ];
        for path in files.into_iter().chain(NOMAD_TLS_FILES) {
            self.state.files.insert(path.to_owned(), None);
        }
        self.state.units.insert(Unit::Nomad, DesiredUnit::Stopped);
    }

    /// Authority, certificate and key; none of a file that must not be there.
    fn certificates(
        &mut self,
        [ca_path, certificate_path, key_path]: [&str; 3],
        ca: Option<&SecretSource>,
        pair: Option<&KeyPair>,
        group: &str,
    ) -> Result<(), RenderError> {
        let (certificate, key) = pair.map(|pair| (&pair.certificate, &pair.key)).unzip();
        for (path, source) in [(ca_path, ca), (certificate_path, certificate), (key_path, key)] {
            let content = self.secret(source)?.map(str::to_owned);
            self.file(path, content, group);
        }
        Ok(())
    }

    fn secret(&self, source: Option<&SecretSource>) -> Result<Option<&'a str>, RenderError> {
        source.map(|source| secret(self.secrets, source)).transpose()
    }

    fn file(&mut self, path: &str, content: Option<String>, group: &str) {
        let file = content.map(|content| private(content, group));
        self.state.files.insert(path.to_owned(), file);
    }

    fn directory(&mut self, path: &str, mode: u32, user: &str, group: &str, state_of: Option<Unit>) {
        let directory = DesiredDirectory {
            mode,
            user: user.to_owned(),
            group: group.to_owned(),
            state_of,
        };
        self.state.directories.insert(path.to_owned(), directory);
    }
}

fn secret<'a>(secrets: &'a Fetched, source: &SecretSource) -> Result<&'a str, RenderError> {
    secrets
        .get(source)
        .ok_or_else(|| RenderError::Secret(source.to_string()))
}

/// A time as Go reads it, exact, in the largest unit that needs no fraction.
fn duration(time: Duration) -> String {
    let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
    if nanoseconds % 1_000_000 != 0 {
        return format!("{}ns", time.as_nanos());
    }
    if nanoseconds != 0 {
        return format!("{}ms", time.as_millis());
    }
    match seconds {
        0 => "0s".to_owned(),
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

fn json(value: &impl Serialize) -> Result<String, RenderError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| RenderError::Json(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_exactly() {
        for (milliseconds, written) in [
            (0, "0s"),
            (200, "200ms"),
            (10_000, "10s"),
            (90_000, "90s"),
            (300_000, "5m"),
            (7_200_000, "2h"),
            (1_500, "1500ms"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), written);
        }
        assert_eq!(duration(Duration::from_nanos(1_000_001)), "1000001ns");
    }
}
