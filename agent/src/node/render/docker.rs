//! Owns what the Docker client and Nomad's Docker driver read to find registry credentials.
//! Touches nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DesiredFile, RenderError, json};
use crate::node::accounts::Accounts;
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

/// The same in the home of each user who pulls by hand, where `docker` looks for it. Docker keeps credentials in that
/// file, so only its user may read it.
pub(super) fn of_users(
    spec: &NodeSpec,
    accounts: &Accounts,
    configuration: &str,
) -> Result<Vec<(String, DesiredFile)>, RenderError> {
    let file = |name: &String| {
        let user = accounts.users.get(name);
        let home = user.map(|user| user.home.trim_end_matches('/'));
        let group = user.and_then(|user| accounts.primary_group(user));
        match (home.filter(|home| home.starts_with('/')), group) {
            (Some(home), Some(group)) => Ok((
                format!("{home}/.docker/config.json"),
                DesiredFile {
                    content: configuration.as_bytes().to_vec(),
                    mode: 0o600,
                    user: name.clone(),
                    group: group.to_owned(),
                },
            )),
            _ => Err(RenderError::NoUser {
                setting: "ecr.users".to_owned(),
                user: name.clone(),
            }),
        }
    };
    spec.registry_users.iter().map(file).collect()
}
