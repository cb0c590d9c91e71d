//! Owns what the Docker client and Nomad's Docker driver read to find registry credentials.
//! Touches nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{RenderError, json};
use crate::node::config::NodeSpec;

/// Keys as Docker names them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfiguration<'a> {
    cred_helpers: BTreeMap<&'a str, &'static str>,
}

/// One credential helper for each ECR registry; every other registry stays as it is. (A helper for all of them,
/// `auth.helper` of Nomad's driver, would be asked for docker.io too.)
pub(super) fn client_configuration(spec: &NodeSpec) -> Result<String, RenderError> {
    let cred_helpers = spec
        .registries
        .iter()
        .map(|host| (host.as_str(), "ecr-login"))
        .collect();
    json(&ClientConfiguration { cred_helpers })
}
