//! Owns which versions know which switch: one table, read by everything that renders, judged against real binaries by
//! `tests/node/products.rs`, and shown to people in `_docs/guide/versions.md`. Touches nothing.

use std::fmt::Write;

use super::RenderError;
use super::version::{Product, Version};

/// A switch that only some versions know. An unknown key stops Consul and Nomad, so each has its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Consul: block `ui_config` instead of key `ui`.
    ConsulUiConfig,
    /// Consul: `telemetry.disable_compat_1.9`, which stops metrics under names older than 1.9.
    ConsulDisableCompat19,
    /// Consul: `acl.tokens.initial_management` instead of `master`.
    ConsulInitialManagement,
    /// Consul: block `tls` instead of keys at the top.
    ConsulTlsBlock,
    /// Nomad: `nomad config validate`.
    NomadConfigValidate,
    /// Nomad: servers speak version 3 of the Raft protocol, which autopilot needs, without being told.
    NomadRaftProtocol3,
    /// Nomad: `client.drain_on_shutdown`.
    NomadDrainOnShutdown,
    /// Nomad: `client.node_pool`.
    NomadNodePool,
    /// Nomad: `consul.service_identity` and `task_identity`.
    NomadConsulIdentity,
    /// Nomad: tells systemd when it is ready, so that `Type=notify` works.
    NomadNotify,
    /// Nomad: `keyring "awskms"`.
    NomadKeyring,
    /// Nomad: lives on when it is asked to reload while it tells systemd how it fares.
    NomadNotifyReload,
    /// Nomad: `server.client_introduction`, and a client's `intro_token.jwt`.
    NomadClientIntroduction,
    /// Nomad: `client.default_ineligible`.
    NomadDefaultIneligible,
    /// systemd: `StandardOutput=file:`.
    SystemdFileStream,
    /// systemd: `StandardOutput=append:`.
    SystemdAppendStream,
    /// systemd: `StandardOutput=truncate:`.
    SystemdTruncateStream,
}

/// How far a row is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Tests put the switch before a real binary that must refuse it and before one that must take it. The exact
    /// version in which it came or went is that of the source.
    Run,
    /// Real binaries take it in tests; that older ones refuse it is known from the source alone.
    Taken,
    /// Known from the source alone.
    Documented,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The switch.
    pub feature: Feature,
    /// Who has it.
    pub product: Product,
    /// What it is called there.
    pub name: &'static str,
    /// First version that knows it.
    pub from: Version,
    /// First version that no longer knows it.
    pub until: Option<Version>,
    /// What is written, or happens, on the others.
    pub otherwise: &'static str,
    /// Where the range is from.
    pub source: &'static str,
    /// How far it is proven.
    pub evidence: Evidence,
}

const fn row(feature: Feature, product: Product, from: (u32, u32, u32), name: &'static str) -> Row {
    Row {
        feature,
        product,
        name,
        from: Version::new(from.0, from.1, from.2),
        until: None,
        otherwise: "",
        source: "",
        evidence: Evidence::Documented,
    }
}

impl Row {
    const fn until(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.until = Some(Version::new(major, minor, patch));
        self
    }

    const fn otherwise(mut self, otherwise: &'static str) -> Self {
        self.otherwise = otherwise;
        self
    }

    const fn by(mut self, evidence: Evidence, source: &'static str) -> Self {
        self.evidence = evidence;
        self.source = source;
        self
    }
}

/// The table. A feature's row stands at its own index.
pub const FEATURES: [Row; 17] = {
    use Evidence::{Documented, Run, Taken};
    use Product::{Consul, Nomad, Systemd};
    const REFUSED: &str = "refused if asked for";
    [
        row(
            Feature::ConsulUiConfig,
            Consul,
            (1, 9, 0),
            "`ui_config { enabled }`",
        )
        .otherwise("`ui`")
        .by(Run, "changelog 1.9.0, GH-8694"),
        row(
            Feature::ConsulDisableCompat19,
            Consul,
            (1, 9, 0),
            "`telemetry { disable_compat_1.9 }`",
        )
        .until(1, 13, 0)
        .otherwise("not written: 1.8 has the old metrics only, 1.13 the new")
        .by(Run, "changelog 1.9.0, GH-8877; 1.13.0, GH-13532"),
        row(
            Feature::ConsulInitialManagement,
            Consul,
            (1, 11, 0),
            "`acl { tokens { initial_management } }`",
        )
        .otherwise("`master`")
        .by(Run, "changelog 1.11.0, GH-11665"),
        row(
            Feature::ConsulTlsBlock,
            Consul,
            (1, 12, 0),
            "`tls { defaults, internal_rpc, grpc }`",
        )
        .otherwise("`ca_file`, `cert_file`, `key_file`, `verify_…` at the top")
        .by(Run, "changelog 1.12.0, GH-12504"),
        row(
            Feature::NomadConfigValidate,
            Nomad,
            (1, 3, 0),
            "`nomad config validate`",
        )
        .otherwise("nobody judges the configuration before the restart; `apply` says so")
        .by(Taken, "changelog 1.3.0, GH-9198"),
        row(
            Feature::NomadRaftProtocol3,
            Nomad,
            (1, 3, 0),
            "Raft protocol 3 by default",
        )
        .otherwise("`server { raft_protocol = 3 }`")
        .by(Documented, "changelog 1.3.0, GH-11572"),
        row(
            Feature::NomadDrainOnShutdown,
            Nomad,
            (1, 5, 4),
            "`client { drain_on_shutdown { deadline } }`",
        )
        .otherwise("`nomad.drain_deadline` is refused if asked for; else nothing is written")
        .by(Taken, "changelog 1.5.4, GH-16827; source of 1.5.0 and 1.5.4"),
        row(Feature::NomadNodePool, Nomad, (1, 6, 0), "`client { node_pool }`")
            .otherwise(REFUSED)
            .by(Taken, "changelog 1.6.0, GH-11041; source of 1.5.4 and 1.6.0"),
        row(
            Feature::NomadConsulIdentity,
            Nomad,
            (1, 7, 0),
            "`consul { service_identity, task_identity }`",
        )
        .otherwise("not written: servers hand jobs tokens that they make with their own")
        .by(Taken, "changelog 1.7.0, GH-15618; source of 1.6.0 and 1.7.0"),
        row(
            Feature::NomadNotify,
            Nomad,
            (1, 8, 0),
            "readiness told to systemd (`Type=notify`)",
        )
        .otherwise("`Type=simple`")
        .by(Documented, "changelog 1.8.0, GH-20528"),
        row(
            Feature::NomadKeyring,
            Nomad,
            (1, 8, 4),
            "`keyring \"awskms\" { kms_key_id }`",
        )
        .otherwise(REFUSED)
        .by(Taken, "changelog 1.8.4; documentation of the keyring block"),
        row(
            Feature::NomadNotifyReload,
            Nomad,
            (1, 10, 1),
            "reload by SIGHUP as a unit of `Type=notify`",
        )
        .otherwise("from 1.8.0: restart instead of reload, for systemd would kill it")
        .by(Documented, "changelog 1.10.1, GH-25636"),
        row(
            Feature::NomadClientIntroduction,
            Nomad,
            (1, 11, 0),
            "`server { client_introduction }`, `intro_token.jwt`",
        )
        .otherwise(REFUSED)
        .by(Run, "changelog 1.11.0, GH-26430"),
        row(
            Feature::NomadDefaultIneligible,
            Nomad,
            (2, 0, 3),
            "`client { default_ineligible }`",
        )
        .otherwise("the watcher makes a new client ineligible as soon as its API answers")
        .by(Documented, "documentation of the client block, 2.0.3"),
        row(
            Feature::SystemdFileStream,
            Systemd,
            (236, 0, 0),
            "`StandardOutput=file:PATH`",
        )
        .otherwise(REFUSED)
        .by(Documented, "NEWS of systemd 236"),
        row(
            Feature::SystemdAppendStream,
            Systemd,
            (240, 0, 0),
            "`StandardOutput=append:PATH`",
        )
        .otherwise(REFUSED)
        .by(Documented, "NEWS of systemd 240"),
        row(
            Feature::SystemdTruncateStream,
            Systemd,
            (248, 0, 0),
            "`StandardOutput=truncate:PATH`",
        )
        .otherwise(REFUSED)
        .by(Documented, "NEWS of systemd 248"),
    ]
};

impl Feature {
    /// Its row in the table.
    pub const fn row(self) -> &'static Row {
        // A test proves that each feature has its row at its own index.
        &FEATURES[self as usize]
    }

    /// Whether this version of its product has it.
    pub fn known_by(self, version: Version) -> bool {
        let Row { from, until, .. } = self.row();
        version >= *from && until.is_none_or(|until| version < until)
    }

    /// Refuses a setting, named in the user's words, that needs what this version does not have.
    pub(super) fn require(self, setting: &str, installed: Version) -> Result<(), RenderError> {
        let Row {
            product, from, until, ..
        } = *self.row();
        let setting = setting.to_owned();
        if installed < from {
            return Err(RenderError::TooOld {
                setting,
                product,
                needed: from,
                installed,
            });
        }
        match until {
            Some(removed) if installed >= removed => Err(RenderError::RemovedIn {
                setting,
                product,
                removed,
                installed,
            }),
            _ => Ok(()),
        }
    }
}

/// The table as the guide has it, Markdown.
pub fn versions_document() -> String {
    let mut text = format!(
        "# What depends on the installed version\n\n\
         An unknown key stops Consul and Nomad, so what COS writes depends on what the image has: Consul {} to 2.x, \
         Nomad {} to 2.x.\nA setting that an installed version cannot follow is refused by name, with the version \
         that it needs; nothing is\nleft out in silence. This page is made from the table in \
         `agent/src/node/render/feature.rs`, and a test keeps it true.\n\n\
         | product | switch | from | until | otherwise | evidence | source |\n|---|---|---|---|---|---|---|\n",
        Product::Consul.write(Product::Consul.oldest()),
        Product::Nomad.write(Product::Nomad.oldest()),
    );
    for row in &FEATURES {
        let until = row
            .until
            .map(|until| row.product.write(until))
            .unwrap_or_default();
        let evidence = match row.evidence {
            Evidence::Run => "run",
            Evidence::Taken => "taken",
            Evidence::Documented => "documented",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {until} | {} | {evidence} | {} |",
            row.product,
            row.name,
            row.product.write(row.from),
            row.otherwise,
            row.source
        );
    }
    text + "\n\
        `until` is the first version that no longer has it. Evidence: **run**, a real binary refuses it in tests and \
        another\ntakes it; **taken**, real binaries take it, that older ones would refuse it is known from the source; \
        **documented**,\nknown from the source alone. Tests run Consul 1.8.7, 1.11.4 and 1.21.0, Nomad 1.10.0 and \
        1.11.0. What is newer\n(Consul 1.22 and 2.x, Nomad 2.x) rests on changelogs and documentation.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_its_own_row() {
        for (index, row) in FEATURES.iter().enumerate() {
            assert_eq!(row.feature as usize, index, "{:?}", row.feature);
            assert!(
                row.from > row.product.oldest(),
                "{:?} is always there",
                row.feature
            );
            assert!(
                !row.otherwise.is_empty() && !row.source.is_empty(),
                "{:?}",
                row.feature
            );
        }
    }

    #[test]
    fn a_range_ends_before_its_last_version() {
        let compat = Feature::ConsulDisableCompat19;
        let known = [(1, 8, 9), (1, 9, 0), (1, 12, 9), (1, 13, 0)]
            .map(|(major, minor, patch)| compat.known_by(Version::new(major, minor, patch)));
        assert_eq!(known, [false, true, true, false]);
    }

    #[test]
    fn what_a_version_lacks_is_refused_with_both_versions() {
        let said = |feature: Feature, setting, version: (u32, u32, u32)| {
            let refused = feature.require(setting, Version::new(version.0, version.1, version.2));
            refused.err().map(|error| error.to_string())
        };
        let compat = Feature::ConsulDisableCompat19;
        assert_eq!(said(compat, "consul.telemetry.x", (1, 12, 0)), None);
        assert_eq!(
            said(compat, "consul.telemetry.x", (1, 8, 7)).unwrap(),
            "consul.telemetry.x needs Consul 1.9.0, installed is 1.8.7"
        );
        assert_eq!(
            said(compat, "consul.telemetry.x", (1, 21, 0)).unwrap(),
            "consul.telemetry.x was removed from Consul in 1.13.0, installed is 1.21.0"
        );
        assert_eq!(
            said(
                Feature::SystemdAppendStream,
                "consul.service.standard_output",
                (219, 0, 0)
            )
            .unwrap(),
            "consul.service.standard_output needs systemd 240, installed is 219"
        );
    }

    #[test]
    fn the_guide_has_the_table() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../_docs/guide/versions.md");
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../_docs/guide")).unwrap();
            std::fs::write(place, versions_document()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(place).unwrap(), versions_document());
    }
}
