//! Owns where facts come from: documents with their origin, and what the metadata service says of this machine.
//! Touches files (reading) and the metadata service.

mod cloud_config;
mod document;
mod gather;
pub mod imds;
mod mime;
mod parameters;
pub mod resolver;
mod role;
mod tags;
mod user_data;

use serde::{Deserialize, Serialize};

pub use cloud_config::written;
pub use document::{Document, Origin};
pub use gather::{CONFIGURATION, DROP_INS, Gathered, SourceError, Sources, gather, include, named};
pub use imds::{BUDGET, Imds, ImdsError};
pub use mime::{Part, parts as mime_parts};
pub use parameters::{FileParameters, Parameters, ParametersError};
pub use role::RoleCredentials;
pub use tags::{MOST_TAGS, PREFIX as TAG_PREFIX};
pub use user_data::{LARGEST, MEDIA_TYPE, UserData, read as read_user_data};

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
