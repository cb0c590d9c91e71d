//! Owns the doctor's calls to AWS with the role of the instance, none of which changes anything.
//! Touches AWS and the metadata service.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use super::permissions::{Action, Attempt, CloudProbe};
use crate::aws::{AwsError, Client, Kind};
use crate::node::cloud::client;
use crate::node::sources::Imds;

/// For one call, with what it takes to get credentials.
const PATIENCE: Duration = Duration::from_secs(3);
const HIGHER_THROUGHPUT: &str = "/ssm/parameter-store/high-throughput-enabled";

/// AWS as this instance reaches it.
#[derive(Debug)]
pub(super) struct Cloud {
    imds: String,
    /// Made at the first call: where to ask is known from the metadata service only.
    reached: OnceLock<Result<(Client, String), String>>,
}

impl Cloud {
    pub(super) fn new(imds: &str) -> Self {
        Self {
            imds: imds.to_owned(),
            reached: OnceLock::new(),
        }
    }

    /// The client, and the instance's id.
    fn reach(&self) -> Result<(Client, &str), String> {
        let reached = self.reached.get_or_init(|| {
            let facts = Imds::new(&self.imds, PATIENCE).facts();
            let facts = facts.map_err(|error| error.to_string())?;
            Ok((client(&self.imds, &facts).within(PATIENCE), facts.instance_id))
        });
        match reached {
            Ok((client, instance)) => Ok((client.clone(), instance)),
            Err(reason) => Err(reason.clone()),
        }
    }
}

impl CloudProbe for Cloud {
    fn attempt(&self, action: &Action) -> Attempt {
        let (client, instance) = match self.reach() {
            Ok(reached) => reached,
            Err(reason) => return Attempt::Unknown(reason),
        };
        let done = match action {
            Action::DescribeInstances => client.may_describe_instances(),
            Action::GetAuthorizationToken => client.get_authorization_token().map(drop),
            Action::GetParameters(name) => client.get_parameters([name.as_str()]).map(drop),
            Action::DescribeAutoScalingInstances => client.describe_auto_scaling_instance(instance).map(drop),
        };
        judged(done)
    }

    fn higher_throughput(&self) -> Option<bool> {
        let (client, _) = self.reach().ok()?;
        Some(client.get_service_setting(HIGHER_THROUGHPUT).ok()? == "true")
    }
}

fn judged(done: Result<(), AwsError>) -> Attempt {
    let Err(error) = done else {
        return Attempt::Allowed;
    };
    let said = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    match &error.kind {
        // It was looked for, so it may be; that it is not there is a fault of the configuration.
        Kind::Missing { .. } => Attempt::Missing(said),
        Kind::Denied { missing, .. } => Attempt::Denied {
            // Not always the one that was called: a parameter's key has a permission of its own.
            missing: missing.clone(),
            fix: error.hint().unwrap_or_default(),
            said,
        },
        _ => Attempt::Unknown(said),
    }
}
