//! Owns where releases come from and why their bytes are trusted: upstreams, downloads, signatures, versions.
//! Touches the network (downloads only) and the cache folder of archives.
//!
//! The chain of trust begins here: pinned key → signature → `SHA256SUMS` → [`crate::lock`] → archive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod cache;
mod error;
mod fetch;
mod listing;
#[cfg(test)]
pub(crate) mod sample;
pub mod signature;
mod upstream;

pub use cache::ArchiveCache;
pub(crate) use cache::remove_remains;
pub use error::{FailureClass, ReleaseError};
pub(crate) use fetch::PART_PREFIX;
pub use fetch::{Downloaded, FetchEvent, Fetcher, Observer};
pub use listing::{Checksums, version_is_plain};
pub(crate) use listing::{docker_versions, newest_github, newest_hashicorp};
pub use upstream::Upstream;

/// A product whose releases COS downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// The reference plug-ins of the Container Network Interface.
    Cni,
    /// HashiCorp Consul.
    Consul,
    /// Docker's static engine: dockerd, containerd, runc and their helpers.
    Docker,
    /// HashiCorp Nomad.
    Nomad,
}

impl Product {
    /// All products, in the order of names.
    pub const ALL: [Self; 4] = [Self::Cni, Self::Consul, Self::Docker, Self::Nomad];

    /// The name in `cos.lock` and in the bundle's manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Consul => "consul",
            Self::Docker => "docker",
            Self::Nomad => "nomad",
        }
    }

    /// Whether HashiCorp publishes it, and so signs it.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Consul | Self::Nomad)
    }

    /// File name of an archive as upstream spells it.
    pub fn archive_name(self, version: &str, arch: Arch) -> String {
        let arch = match (self, arch) {
            (Self::Docker, _) => return format!("docker-{version}.tgz"),
            (_, Arch::X86_64) => "amd64",
            (_, Arch::Arm64) => "arm64",
        };
        match self {
            Self::Cni => format!("cni-plugins-linux-{arch}-v{version}.tgz"),
            _ => format!("{}_{version}_linux_{arch}.zip", self.name()),
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A machine architecture, in EC2's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit ARM (Graviton).
    #[serde(rename = "arm64")]
    Arm64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Arch {
    /// All architectures, in the order of names.
    pub const ALL: [Self; 2] = [Self::Arm64, Self::X86_64];

    /// The name in `cos.lock`, in the manifest and at EC2.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// An architecture that COS does not know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown architecture `{0}`; known are x86_64 and arm64")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(text: &str) -> Result<Self, UnknownArch> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.name() == text)
            .ok_or_else(|| UnknownArch(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_names_are_upstreams() {
        for (product, version, arch, name) in [
            (
                Product::Nomad,
                "1.11.0",
                Arch::X86_64,
                "nomad_1.11.0_linux_amd64.zip",
            ),
            (
                Product::Consul,
                "1.22.0",
                Arch::Arm64,
                "consul_1.22.0_linux_arm64.zip",
            ),
            (Product::Docker, "29.0.1", Arch::Arm64, "docker-29.0.1.tgz"),
            (
                Product::Cni,
                "1.8.0",
                Arch::X86_64,
                "cni-plugins-linux-amd64-v1.8.0.tgz",
            ),
            (
                Product::Cni,
                "1.8.0",
                Arch::Arm64,
                "cni-plugins-linux-arm64-v1.8.0.tgz",
            ),
        ] {
            assert_eq!(product.archive_name(version, arch), name);
        }
    }

    #[test]
    fn arch_reads_what_it_writes() {
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse(), Ok(arch));
        }
        assert!("amd64".parse::<Arch>().is_err());
    }
}
