//! Owns whose name requests are signed in: the environment's keys first, then the instance's role, kept until they end.
//! Touches the metadata service.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::environment::Environment;
use super::secret::Secret;
use crate::node::sources::{Imds, ImdsError, imds};
use crate::world::World;

/// Keys that sign requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id; no secret.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token of temporary credentials.
    pub session_token: Option<Secret>,
    /// When they end, where that is known.
    pub expires: Option<SystemTime>,
    /// Where they came from.
    pub source: Source,
}

/// Where credentials came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// The instance's role, by name.
    Role(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => formatter.write_str("the environment's credentials"),
            Self::Role(role) => write!(formatter, "the role {role}"),
        }
    }
}

/// There are no credentials.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The environment holds one half of them.
    #[error("{there} is set and {missing} is not")]
    Half {
        /// The variable that is set.
        there: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// The environment forbids the only other source.
    #[error("AWS_EC2_METADATA_DISABLED is true, and the environment holds no credentials")]
    Disabled,
    /// The instance has no role.
    #[error("the instance has no role: the metadata service at {url} lists none")]
    NoRole {
        /// The metadata service.
        url: String,
    },
    /// The metadata service could not be asked.
    #[error(transparent)]
    Imds(#[from] ImdsError),
}

impl CredentialsError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Half { .. } => Some("set both, or neither to use the instance's role".to_owned()),
            Self::Disabled => Some("unset AWS_EC2_METADATA_DISABLED to use the instance's role".to_owned()),
            Self::NoRole { .. } => Some(
                "attach an instance profile: aws ec2 associate-iam-instance-profile --instance-id … \
                 --iam-instance-profile Name=…"
                    .to_owned(),
            ),
            Self::Imds(error) => error.hint(),
        }
    }

    /// Whether the same question may get another answer in a moment: the role of an instance that was just
    /// launched shows up a little later than the instance.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::NoRole { .. })
    }
}

/// Credentials with less time left than this are replaced. The metadata service has new ones five minutes before.
const MARGIN: Duration = Duration::from_mins(4);

/// Finds credentials and keeps them; threads share it.
#[derive(Debug)]
pub(super) struct Provider {
    environment: Environment,
    imds: String,
    world: Option<Arc<dyn World>>,
    held: Mutex<Option<Credentials>>,
}

impl Provider {
    /// `imds` is the metadata service; none leaves it to `AWS_EC2_METADATA_SERVICE_ENDPOINT` and the usual address.
    /// Without a world it is asked over the network.
    pub(super) fn new(environment: Environment, imds: Option<String>, world: Option<Arc<dyn World>>) -> Self {
        let told = environment
            .get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .map(str::to_owned);
        Self {
            imds: imds.or(told).unwrap_or_else(|| imds::DEFAULT_URL.to_owned()),
            environment,
            world,
            held: Mutex::default(),
        }
    }

    /// Credentials that are good for a while, asked for within `budget` if there are none at hand.
    pub(super) fn get(&self, budget: Duration) -> Result<Credentials, CredentialsError> {
        // Held while asking, so that many threads ask once.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = held
            .as_ref()
            .filter(|credentials| self.holds(credentials, MARGIN))
        {
            return Ok(credentials.clone());
        }
        let found = match from_environment(&self.environment)? {
            Some(credentials) => credentials,
            None => match self.ask_role(budget) {
                Ok(credentials) => credentials,
                // Old ones are better than none as long as they hold.
                Err(error) => held
                    .clone()
                    .filter(|credentials| self.holds(credentials, Duration::ZERO))
                    .ok_or(error)?,
            },
        };
        *held = Some(found.clone());
        Ok(found)
    }

    /// Forgets credentials that a service would not take, unless others have replaced them. Says whether there is
    /// a source that may have newer ones.
    pub(super) fn forget(&self, refused: &Credentials) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held
            .as_ref()
            .is_some_and(|credentials| credentials.access_key_id == refused.access_key_id)
        {
            *held = None;
        }
        refused.source != Source::Environment
    }

    /// Whether credentials are good for some time yet.
    fn holds(&self, credentials: &Credentials, margin: Duration) -> bool {
        let now = self
            .world
            .as_ref()
            .map_or_else(SystemTime::now, |world| world.now());
        credentials.expires.is_none_or(|expires| expires > now + margin)
    }

    fn ask_role(&self, budget: Duration) -> Result<Credentials, CredentialsError> {
        if self.environment.is_true("AWS_EC2_METADATA_DISABLED") {
            return Err(CredentialsError::Disabled);
        }
        let mut imds = match &self.world {
            Some(world) => Imds::in_world(&self.imds, budget, Arc::clone(world)),
            None => Imds::new(&self.imds, budget),
        };
        let found = imds.role_credentials()?;
        let found = found.ok_or_else(|| CredentialsError::NoRole {
            url: self.imds.clone(),
        })?;
        Ok(Credentials {
            access_key_id: found.access_key_id,
            secret_access_key: found.secret_access_key,
            session_token: Some(found.session_token),
            expires: Some(found.expires),
            source: Source::Role(found.role),
        })
    }
}

fn from_environment(environment: &Environment) -> Result<Option<Credentials>, CredentialsError> {
    const ID: &str = "AWS_ACCESS_KEY_ID";
    const KEY: &str = "AWS_SECRET_ACCESS_KEY";
    let half = |there, missing| Err(CredentialsError::Half { there, missing });
    match (environment.get(ID), environment.get(KEY)) {
        (None, None) => Ok(None),
        (Some(_), None) => half(ID, KEY),
        (None, Some(_)) => half(KEY, ID),
        (Some(id), Some(key)) => Ok(Some(Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(key.to_owned()),
            session_token: environment
                .get("AWS_SESSION_TOKEN")
                .map(|token| Secret::new(token.to_owned())),
            expires: None,
            source: Source::Environment,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first_and_half_of_it_is_an_error() {
        let both = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "planted")];
        let provider = Provider::new(
            both.into_iter().collect(),
            Some("http://127.0.0.1:1".to_owned()),
            None,
        );
        let found = provider.get(Duration::ZERO).unwrap();
        assert_eq!(found.source, Source::Environment);
        assert!(!format!("{found:?} {provider:?}").contains("planted"));
        for (half, missing) in [(&both[..1], "SECRET_ACCESS_KEY"), (&both[1..], "ACCESS_KEY_ID")] {
            let error = from_environment(&half.iter().copied().collect()).unwrap_err();
            assert!(
                error.to_string().ends_with(&format!("AWS_{missing} is not")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_forbidden_metadata_service_is_not_asked() {
        let environment: Environment = [("AWS_EC2_METADATA_DISABLED", "true")].into_iter().collect();
        let error = Provider::new(environment, None, None)
            .get(Duration::from_secs(30))
            .unwrap_err();
        assert!(matches!(error, CredentialsError::Disabled), "{error}");
    }
}
