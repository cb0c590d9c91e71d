//! Owns what is installed: versions of Consul, Nomad and systemd, and which of them COS knows.
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
    /// systemd, which comes with the base.
    Systemd,
}

impl Product {
    /// Where the image keeps its binary; a name without a path is looked for.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Consul => "/opt/consul/bin/consul",
            Self::Nomad => "/opt/nomad/bin/nomad",
            Self::Systemd => "systemctl",
        }
    }

    /// The oldest version that COS renders for: the oldest whose keys were looked through.
    pub const fn oldest(self) -> Version {
        match self {
            Self::Consul => Version::new(1, 8, 0),
            Self::Nomad => Version::new(1, 0, 0),
            Self::Systemd => Version::new(219, 0, 0),
        }
    }

    /// A version as the product itself writes it.
    pub fn write(self, version: Version) -> String {
        match self {
            Self::Consul | Self::Nomad => version.to_string(),
            Self::Systemd => version.major.to_string(),
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
            Self::Systemd => "systemd",
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

    /// The first number, which is all of systemd's.
    pub(crate) const fn major(self) -> u32 {
        self.major
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
    #[error(
        "{product} {} is older than {}, the oldest that COS configures",
        product.write(*installed),
        product.write(product.oldest())
    )]
    TooOld {
        /// Product.
        product: Product,
        /// What is installed.
        installed: Version,
    },
}

/// What starts services on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// systemd of this version.
    Systemd(Version),
    /// System V scripts, which have no settings.
    Scripts,
    /// It is not to be seen: this is a folder with files, no machine that runs.
    Unknown,
}

/// What is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Consul.
    pub consul: Version,
    /// Nomad.
    pub nomad: Version,
    /// What starts services.
    pub init: Init,
}

impl Versions {
    /// Asks the binaries, side by side: on a fresh volume each takes its time to be read.
    pub fn detect(files: &Files, programs: &(dyn Programs + Sync)) -> Result<Self, VersionError> {
        thread::scope(|scope| {
            let nomad = scope.spawn(|| ask(Product::Nomad, files, programs));
            let init = scope.spawn(|| init(files, programs));
            let consul = ask(Product::Consul, files, programs);
            Ok(Self {
                consul: consul?,
                nomad: join(nomad)?,
                init: join(init)?,
            })
        })
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// By the same signs as `services::detect`.
pub(super) fn init(files: &Files, programs: &dyn Programs) -> Result<Init, VersionError> {
    if files.locate("/run/systemd/system").is_dir() {
        return ask(Product::Systemd, files, programs).map(Init::Systemd);
    }
    if files.locate("/sbin/chkconfig").is_file() {
        return Ok(Init::Scripts);
    }
    Ok(Init::Unknown)
}

fn ask(product: Product, files: &Files, programs: &dyn Programs) -> Result<Version, VersionError> {
    let (program, argument) = match product {
        Product::Systemd => (product.binary().to_owned(), "--version"),
        Product::Consul | Product::Nomad => {
            let binary = files.locate(product.binary());
            (binary.to_string_lossy().into_owned(), "version")
        }
    };
    let invocation = Invocation::new(&program, [argument], Duration::from_mins(1));
    let output = programs
        .check(&invocation)
        .map_err(|source| VersionError::Ask { product, source })?;
    parse(product, &output.stdout)
}

/// Reads `Consul v1.21.5`, `Nomad v1.11.0-dev (…)`, `systemd 252 (252.39-1~deb12u1)` and the like.
fn parse(product: Product, answer: &str) -> Result<Version, VersionError> {
    let line = answer.lines().next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let named = words.next() == Some(product.to_string().as_str());
    let version = words.next().and_then(|word| match product {
        Product::Systemd => {
            let digits = word.split(|character: char| !character.is_ascii_digit()).next()?;
            Some(Version::new(digits.parse().ok()?, 0, 0))
        }
        Product::Consul | Product::Nomad => word.parse().ok(),
    });
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
    fn versions_are_read_from_what_the_binaries_say() {
        let consul = parse(Product::Consul, "Consul v1.21.5\nRevision 1234\n").unwrap();
        assert_eq!(consul, Version::new(1, 21, 5));
        let nomad = parse(Product::Nomad, "Nomad v1.11.0-dev (abc)\n").unwrap();
        assert_eq!(nomad, Version::new(1, 11, 0));
        let error = parse(Product::Nomad, "Nomad v0.12.6 (x)").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Nomad 0.12.6 is older than 1.0.0, the oldest that COS configures"
        );
        for (answer, major) in [
            ("systemd 219\n+PAM +AUDIT", 219),
            ("systemd 252 (252.39-1~deb12u1)\n+PAM", 252),
            ("systemd 257~rc2-1 (x)", 257),
        ] {
            let version = parse(Product::Systemd, answer).unwrap();
            assert_eq!(Product::Systemd.write(version), major.to_string());
        }
        assert!(matches!(
            parse(Product::Nomad, "Consul v1.21.5"),
            Err(VersionError::Unreadable { .. })
        ));
        assert!(matches!(
            parse(Product::Nomad, ""),
            Err(VersionError::Unreadable { .. })
        ));
    }
}
