//! Owns which versions of Consul and Nomad know which switch: one table, read by everything that renders.
//! Touches the products' binaries, to ask for their version.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::host::{Files, Invocation, ProgramError, Programs};

/// A product whose version decides what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Product {
    /// HashiCorp Consul.
    Consul,
    /// HashiCorp Nomad.
    Nomad,
}

impl Product {
    /// Where the image keeps its binary.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Consul => "/opt/consul/bin/consul",
            Self::Nomad => "/opt/nomad/bin/nomad",
        }
    }

    /// The oldest version that COS renders for. Older Nomads cannot judge a configuration (`nomad config
    /// validate` came with 1.3); Consul 1.8 is the oldest whose keys were looked through.
    pub const fn oldest(self) -> Version {
        match self {
            Self::Consul => Version::new(1, 8, 0),
            Self::Nomad => Version::new(1, 3, 0),
        }
    }

    /// Refuses a version that is older than [`Product::oldest`].
    pub(super) fn admit(self, installed: Version) -> Result<Version, VersionError> {
        if installed < self.oldest() {
            let product = self;
            return Err(VersionError::TooOld { product, installed });
        }
        Ok(installed)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Consul => "Consul",
            Self::Nomad => "Nomad",
        })
    }
}

/// A release. What follows the third number (`-dev`, `+ent`) decides nothing here and is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// A release by its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let release = text
            .trim_start_matches('v')
            .split(['-', '+'])
            .next()
            .unwrap_or_default();
        let mut numbers = release.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(()),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|()| serde::de::Error::custom(format!("{text} is not a version")))
    }
}

/// A switch that only some versions know. An unknown key stops either product, so each has its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Consul: block `ui_config` instead of key `ui`.
    ConsulUiConfig,
    /// Consul: `telemetry.disable_compat_1.9`, which stops metrics under names older than 1.9.
    ConsulDisableCompat19,
    /// Nomad: `client.drain_on_shutdown`.
    NomadDrainOnShutdown,
    /// Nomad: `client.node_pool`.
    NomadNodePool,
    /// Nomad: tells systemd when it is ready, so that `Type=notify` works.
    NomadNotify,
}

/// The table: feature, product, first version, first version that no longer has it.
/// Sources: the products' changelogs and `agent/config` folders.
const FEATURES: [(Feature, Product, Version, Option<Version>); 5] = [
    (
        Feature::ConsulUiConfig,
        Product::Consul,
        Version::new(1, 9, 0),
        None,
    ),
    (
        Feature::ConsulDisableCompat19,
        Product::Consul,
        Version::new(1, 9, 0),
        Some(Version::new(1, 13, 0)),
    ),
    (
        Feature::NomadDrainOnShutdown,
        Product::Nomad,
        Version::new(1, 5, 4),
        None,
    ),
    (
        Feature::NomadNodePool,
        Product::Nomad,
        Version::new(1, 6, 0),
        None,
    ),
    (Feature::NomadNotify, Product::Nomad, Version::new(1, 8, 0), None),
];

impl Feature {
    /// First version that has it.
    pub fn since(self) -> Version {
        self.row().2
    }

    /// Whether this version of its product has it.
    pub fn known_by(self, version: Version) -> bool {
        let (_, _, since, until) = self.row();
        version >= since && until.is_none_or(|until| version < until)
    }

    fn row(self) -> (Self, Product, Version, Option<Version>) {
        // The test below proves that each feature has its row at its own index.
        FEATURES[self as usize]
    }
}

/// The installed versions cannot be told, or are too old.
#[derive(Debug, Error)]
pub enum VersionError {
    /// The binary does not run.
    #[error("the version of {product} could not be asked")]
    Ask {
        /// Product.
        product: Product,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// The binary answered something else.
    #[error("{product} did not tell its version but \"{answer}\"")]
    Unreadable {
        /// Product.
        product: Product,
        /// First line of its answer.
        answer: String,
    },
    /// COS does not know this version.
    #[error("{product} {installed} is older than {}, the oldest that COS configures", product.oldest())]
    TooOld {
        /// Product.
        product: Product,
        /// What is installed.
        installed: Version,
    },
}

/// What is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Consul.
    pub consul: Version,
    /// Nomad.
    pub nomad: Version,
}

impl Versions {
    /// Asks both binaries, side by side: on a fresh volume each takes its time to be read.
    pub fn detect(files: &Files, programs: &(dyn Programs + Sync)) -> Result<Self, VersionError> {
        thread::scope(|scope| {
            let nomad = scope.spawn(|| ask(Product::Nomad, files, programs));
            let consul = ask(Product::Consul, files, programs);
            let nomad = nomad
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(Self {
                consul: consul?,
                nomad: nomad?,
            })
        })
    }
}

fn ask(product: Product, files: &Files, programs: &dyn Programs) -> Result<Version, VersionError> {
    let binary = files.locate(product.binary());
    let invocation = Invocation::new(&binary.to_string_lossy(), ["version"], Duration::from_mins(1));
    let output = programs
        .check(&invocation)
        .map_err(|source| VersionError::Ask { product, source })?;
    parse(product, &output.stdout)
}

/// Reads `Consul v1.21.5`, `Nomad v1.11.0-dev (…)` and the like.
fn parse(product: Product, answer: &str) -> Result<Version, VersionError> {
    let line = answer.lines().next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let named = words.next() == Some(product.to_string().as_str());
    let version = words.next().and_then(|word| word.parse().ok());
    let Some(installed) = version.filter(|_| named) else {
        return Err(VersionError::Unreadable {
            product,
            answer: line.to_owned(),
        });
    };
    product.admit(installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_its_own_row() {
        for (index, (feature, ..)) in FEATURES.iter().enumerate() {
            assert_eq!(*feature as usize, index);
        }
    }

    #[test]
    fn versions_are_read_from_what_the_binaries_say() {
        let consul = parse(Product::Consul, "Consul v1.21.5\nRevision 1234\n").unwrap();
        assert_eq!(consul, Version::new(1, 21, 5));
        let nomad = parse(Product::Nomad, "Nomad v1.11.0-dev (abc)\n").unwrap();
        assert_eq!(nomad, Version::new(1, 11, 0));
        assert!(matches!(
            parse(Product::Nomad, "Nomad v1.2.6 (x)"),
            Err(VersionError::TooOld { .. })
        ));
        assert!(matches!(
            parse(Product::Nomad, "Consul v1.21.5"),
            Err(VersionError::Unreadable { .. })
        ));
        assert!(matches!(
            parse(Product::Nomad, ""),
            Err(VersionError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_range_ends_before_its_last_version() {
        let compat = Feature::ConsulDisableCompat19;
        let known = [(1, 8, 9), (1, 9, 0), (1, 12, 9), (1, 13, 0)]
            .map(|(major, minor, patch)| compat.known_by(Version::new(major, minor, patch)));
        assert_eq!(known, [false, true, true, false]);
    }
}
