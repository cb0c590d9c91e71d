//! Owns where facts come from: documents with their origin, and what the metadata service says of this machine.
//! Touches files (reading) and the metadata service.

pub mod imds;
mod role;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{FileError, Files};

pub use imds::{Imds, ImdsError};
pub use role::RoleCredentials;

/// Where cloud-init puts the node's configuration.
pub const CONFIGURATION: &str = "/etc/cos/node.yaml";

/// Where a document came from; every message about it begins with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file on this machine.
    File(PathBuf),
    /// The instance's user-data, read from the metadata service.
    UserData,
    /// COS's own example of a node, which the boot test has judged.
    Sample,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::UserData => formatter.write_str("user-data"),
            Self::Sample => formatter.write_str("the sample"),
        }
    }
}

/// Bytes and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it came from.
    pub origin: Origin,
    /// What it says, uninterpreted.
    pub bytes: Vec<u8>,
}

impl Document {
    /// A file below the root; none if it does not exist.
    pub fn from_file(files: &Files, path: &Path) -> Result<Option<Self>, FileError> {
        let origin = Origin::File(path.to_owned());
        Ok(files.read(path)?.map(|bytes| Self { origin, bytes }))
    }

    /// User-data, if it is a bare NodeConfig document: it starts with `version:`, with `---` or with `{`.
    /// A `#cloud-config` or a script is cloud-init's business and gives none.
    pub fn from_user_data(bytes: Vec<u8>) -> Option<Self> {
        let start = bytes.trim_ascii_start();
        let bare = [&b"version:"[..], b"---", b"{"]
            .iter()
            .any(|opening| start.starts_with(opening));
        bare.then_some(Self {
            origin: Origin::UserData,
            bytes,
        })
    }
}

/// What the metadata service says of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceFacts {
    /// Instance id, `i-…`.
    pub instance_id: String,
    /// Region, such as `eu-central-1`.
    pub region: String,
    /// Availability zone, such as `eu-central-1a`.
    pub zone: String,
    /// Account that owns the instance, twelve digits.
    pub account: String,
    /// Primary private IPv4 address.
    pub private_ipv4: std::net::Ipv4Addr,
    /// Instance type, such as `m6i.large`.
    pub instance_type: String,
    /// Architecture in EC2's words: `x86_64` or `arm64`.
    pub architecture: String,
    /// Domain of AWS services in this partition, such as `amazonaws.com`.
    pub domain: String,
    /// Partition, such as `aws` or `aws-cn`.
    pub partition: String,
}

impl InstanceFacts {
    /// A machine that does not exist, with addresses of the documentation ranges: to render a sample node
    /// whose configuration the products' own validators then judge.
    pub fn sample() -> Self {
        Self {
            instance_id: "i-0123456789abcdef0".to_owned(),
            region: "eu-central-1".to_owned(),
            zone: "eu-central-1a".to_owned(),
            account: "123456789012".to_owned(),
            private_ipv4: std::net::Ipv4Addr::new(192, 0, 2, 10),
            instance_type: "m6i.large".to_owned(),
            architecture: "x86_64".to_owned(),
            domain: "amazonaws.com".to_owned(),
            partition: "aws".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_document_in_user_data_is_ours() {
        for ours in ["version: 1\n", "\n{\"version\":1}", "---\nversion: 1\n"] {
            assert!(Document::from_user_data(ours.into()).is_some(), "{ours}");
        }
        for not_ours in [
            "",
            "#cloud-config\nruncmd: []",
            "#!/bin/sh\ncos-agent apply",
            "hello",
        ] {
            assert!(Document::from_user_data(not_ours.into()).is_none(), "{not_ours}");
        }
    }
}
