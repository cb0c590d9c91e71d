//! Owns what systemd must know of a service beside what the image's unit says: drop-ins, with every value escaped.
//! Touches nothing.

use std::fmt::Write;
use std::time::Duration;

use super::version::Init;
use super::{Feature, Product, RenderError, Version, Versions};
use crate::node::accounts::Accounts;
use crate::node::config::{NomadSpec, ServiceSpec};

const HEAD: &str = "# Written by cos-agent; changes are lost.\n[Service]\n";

/// What a drop-in changes of a unit.
pub(super) struct Service<'a> {
    /// What runs.
    pub(super) product: Product,
    /// As whom the image's unit runs.
    pub(super) unit_user: &'static str,
    /// Where the image's unit keeps state.
    pub(super) unit_data_dir: &'static str,
    /// How it should run.
    pub(super) spec: &'a ServiceSpec,
    /// Where state should be.
    pub(super) data_dir: &'a str,
}

impl Service<'_> {
    /// The lines of a drop-in that come from settings; none where the unit of the image does it all.
    pub(super) fn lines(&self, versions: &Versions, accounts: &Accounts) -> Result<String, RenderError> {
        let ServiceSpec {
            user,
            environment,
            standard_output,
            standard_error,
        } = self.spec;
        if versions.init == Init::Scripts {
            return self.lines_of_script();
        }
        let mut lines = String::new();
        if user != self.unit_user {
            let group = group(self.product, user, accounts)?;
            let _ = write!(lines, "User={user}\nGroup={group}\n");
        }
        for (name, value) in environment {
            let _ = writeln!(lines, "Environment={}", quoted(&format!("{name}={value}")));
        }
        let streams = [
            ("StandardOutput", "standard_output", standard_output),
            ("StandardError", "standard_error", standard_error),
        ];
        for (directive, key, stream) in streams {
            if let Some(stream) = stream {
                require_stream(&self.setting(key), stream, versions.init)?;
                let _ = writeln!(lines, "{directive}={stream}");
            }
        }
        if self.data_dir != self.unit_data_dir {
            // The unit of the image names the folder as an argument, which counts more than the configuration.
            let _ = write!(
                lines,
                "ExecStart=\nExecStart={} -data-dir={}\n",
                command(self.product),
                self.data_dir
            );
        }
        Ok(lines)
    }

    /// A script reads no settings. (The script of Nomad runs a server as root too, where its own user is only COS's
    /// choice.)
    fn lines_of_script(&self) -> Result<String, RenderError> {
        let ServiceSpec {
            user,
            environment,
            standard_output,
            standard_error,
        } = self.spec;
        let own = self.product.to_string().to_lowercase();
        let plain = (user == self.unit_user || *user == own)
            && environment.is_empty()
            && standard_output.is_none()
            && standard_error.is_none()
            && self.data_dir == self.unit_data_dir;
        plain.then(String::new).ok_or(RenderError::NoSettings {
            product: self.product,
        })
    }

    fn setting(&self, key: &str) -> String {
        format!("{}.service.{key}", self.product.to_string().to_lowercase())
    }
}

/// What the image's unit runs, but for its last argument.
fn command(product: Product) -> &'static str {
    match product {
        Product::Nomad => {
            "/usr/bin/env -u AWS_CA_BUNDLE /opt/nomad/bin/nomad agent -config=/opt/nomad/config"
        }
        Product::Consul | Product::Systemd => "/opt/consul/bin/consul agent -config-dir=/opt/consul/config",
    }
}

/// Group of a service's user: the product's own if the user is root, else the user's primary group.
pub(super) fn group(product: Product, user: &str, accounts: &Accounts) -> Result<String, RenderError> {
    let own = product.to_string().to_lowercase();
    if user == "root" || user == own {
        return Ok(own);
    }
    let found = accounts.users.get(user);
    let group = found.and_then(|user| accounts.primary_group(user));
    group.map(str::to_owned).ok_or_else(|| RenderError::NoUser {
        setting: format!("{own}.service.user"),
        user: user.to_owned(),
    })
}

/// Consul's drop-in, if there is anything to say.
pub(super) fn consul(lines: &str) -> Option<String> {
    (!lines.is_empty()).then(|| format!("{HEAD}{lines}"))
}

/// Nomad's drop-in: what depends on version and role, then the settings.
pub(super) fn nomad(spec: &NomadSpec, version: Version, lines: &str) -> String {
    let (kind, reason) = if Feature::NomadNotify.known_by(version) {
        ("notify", "This Nomad tells when it is ready.")
    } else {
        (
            "simple",
            "Nomad before 1.8 never tells that it is ready; systemd would wait for it in vain.",
        )
    };
    let mut text = format!(
        "{HEAD}# {reason}\n\
         Type={kind}\n\
         # A restart must not send the jobs away: see leave_on_interrupt in the configuration.\n\
         KillSignal=SIGINT\n"
    );
    let drains = Feature::NomadDrainOnShutdown.known_by(version) && spec.managed;
    if let Some(client) = spec.client.as_ref().filter(|_| drains) {
        let longest = client.drain_deadline + STOP_MARGIN;
        let _ = write!(
            text,
            "# Longer than drain_on_shutdown in the configuration: jobs that move away are not cut off.\n\
             TimeoutStopSec={}\n",
            longest.as_secs()
        );
    }
    text + lines
}

/// What Nomad may take to stop after its jobs have gone.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// One word as systemd's configuration files read it (systemd.syntax(7)): in double quotes, `\` and `"` behind a
/// backslash, `%` twice, because `%` begins a specifier. The value has no control characters (see `PlainText`).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '%' => quoted.push_str("%%"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn require_stream(setting: &str, stream: &str, init: Init) -> Result<(), RenderError> {
    let Init::Systemd(installed) = init else {
        return Ok(());
    };
    let feature = match stream.split_once(':') {
        Some(("file", _)) => Feature::SystemdFileStream,
        Some(("append", _)) => Feature::SystemdAppendStream,
        Some(("truncate", _)) => Feature::SystemdTruncateStream,
        _ => return Ok(()),
    };
    feature.require(setting, installed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The reading side, written after systemd's `extract_first_word` with unquoting and C unescaping, and its
    /// specifiers: only what `quoted` may have written is accepted.
    fn systemd_reads(line: &str) -> Option<String> {
        let inner = line.strip_prefix('"')?.strip_suffix('"')?;
        let mut read = String::new();
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => read.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
                '%' => read.push(characters.next().filter(|next| *next == '%')?),
                '"' => return None,
                other => read.push(other),
            }
        }
        Some(read)
    }

    proptest! {
        #[test]
        fn what_systemd_reads_is_what_was_meant(value in r"[ -~äé€]{0,60}") {
            prop_assert_eq!(systemd_reads(&quoted(&value)), Some(value));
        }
    }

    fn service(spec: &ServiceSpec) -> Service<'_> {
        Service {
            product: Product::Consul,
            unit_user: "consul",
            unit_data_dir: "/opt/consul/data",
            spec,
            data_dir: "/opt/consul/data",
        }
    }

    fn versions(init: Init) -> Versions {
        Versions {
            consul: Version::new(1, 21, 0),
            nomad: Version::new(1, 11, 0),
            init,
        }
    }

    #[test]
    fn a_stream_that_systemd_does_not_know_is_refused() {
        let mut spec = ServiceSpec {
            user: "consul".to_owned(),
            environment: BTreeMap::new(),
            standard_output: Some("append:/var/log/consul.log".to_owned()),
            standard_error: None,
        };
        let old = versions(Init::Systemd(Version::new(219, 0, 0)));
        let said = |spec: &ServiceSpec, versions: &Versions| {
            service(spec)
                .lines(versions, &Accounts::default())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            said(&spec, &old).unwrap_err(),
            "consul.service.standard_output needs systemd 240, installed is 219"
        );
        let new = versions(Init::Systemd(Version::new(252, 0, 0)));
        assert_eq!(
            said(&spec, &new).unwrap(),
            "StandardOutput=append:/var/log/consul.log\n"
        );
        assert_eq!(
            said(&spec, &versions(Init::Scripts)).unwrap_err(),
            "the service of Consul cannot have settings of its own here: this machine runs System V scripts"
        );
        spec.standard_output = Some("journal+console".to_owned());
        assert_eq!(said(&spec, &old).unwrap(), "StandardOutput=journal+console\n");
        spec.user = "nobody-here".to_owned();
        assert_eq!(
            said(&spec, &new).unwrap_err(),
            "consul.service.user is nobody-here, and this machine has no such user with a group"
        );
    }

    #[test]
    fn the_command_is_that_of_the_units() {
        for (product, folder) in [
            (Product::Consul, "/opt/consul/data"),
            (Product::Nomad, "/opt/nomad/data"),
        ] {
            let name = product.to_string().to_lowercase();
            let unit = format!("{}/../systemd/{name}.service", env!("CARGO_MANIFEST_DIR"));
            let unit = std::fs::read_to_string(unit).unwrap();
            let line = format!("\nExecStart={} -data-dir={folder}\n", command(product));
            assert!(unit.contains(&line), "{name}.service has not: {line}");
            assert!(unit.contains(if name == "consul" {
                "\nUser=consul\n"
            } else {
                "\nUser=root\n"
            }));
        }
    }
}
