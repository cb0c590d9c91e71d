//! Owns proving that images can be pulled: a login for each of the node's own registries, as Docker will ask for it.
//! Touches the cache of logins, and ECR where that holds none.

use std::time::Duration;

use super::RegistryTokens;
use super::failure::Failure;
use crate::aws::Environment;
use crate::ecr::{EcrError, Helper};
use crate::error::one_line;
use crate::host::Files;

/// Within this a login comes, from the cache at once; the helper itself gives Docker ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// ECR, by the helper that Docker calls, with the same cache: what is proven here is there when Docker asks.
#[derive(Debug, Clone)]
pub struct Ecr {
    helper: Helper,
}

impl Ecr {
    /// ECR with the credentials of this process or of the instance.
    pub fn new(files: &Files) -> Self {
        let environment = Environment::of_process();
        let folder = Helper::usual_folder(&environment);
        Self {
            helper: Helper::new(environment, files.clone(), folder, PATIENCE),
        }
    }
}

impl RegistryTokens for Ecr {
    fn obtainable(&self, hosts: &[String]) -> Result<String, Failure> {
        for host in hosts {
            // That a login is old and was not renewed is told in the journal by the helper itself.
            self.helper
                .login(host, &mut |_| {})
                .map_err(|error| failure(&error))?;
        }
        Ok(match hosts {
            [one] => format!("a login for {one}"),
            many => format!("logins for {} registries", many.len()),
        })
    }
}

/// A permission may come: IAM tells its services of a new role within seconds.
fn failure(error: &EcrError) -> Failure {
    let failure = Failure::passing(one_line(error));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
