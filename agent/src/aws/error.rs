//! Owns what a failed call says: the action, the reason, how long it was tried, and the way out.
//! Touches nothing.

use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::credentials::CredentialsError;
use super::refusal::difference;

/// A call to AWS failed.
#[derive(Debug, Error)]
#[error("{action} failed{}", attempts(*tries, *after))]
pub struct AwsError {
    /// The call as IAM names it, such as `ssm:GetParameters`.
    pub action: &'static str,
    /// How often it was tried.
    pub tries: u32,
    /// How long all of it took.
    pub after: Duration,
    /// Why it failed.
    #[source]
    pub kind: Kind,
}

fn attempts(tries: u32, after: Duration) -> String {
    if tries < 2 {
        String::new()
    } else {
        format!(" after {tries} tries in {:.1} s", after.as_secs_f64())
    }
}

/// Why a call failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Kind {
    /// The environment or this machine says nonsense about the way to AWS.
    #[error("{0}")]
    Configuration(String),
    /// There are no credentials to sign with.
    #[error("there are no credentials to sign the request with")]
    Credentials(#[from] CredentialsError),
    /// The service does not take the credentials, and there are no newer ones.
    #[error("AWS does not take the credentials of {holder}: {}", said(&[code, message]))]
    CredentialsRefused {
        /// Where they came from.
        holder: String,
        /// The service's word.
        code: String,
        /// What it says about it.
        message: String,
    },
    /// The action is not allowed.
    #[error("{missing} is not allowed{}: {message}", on(resource.as_deref()))]
    Denied {
        /// The IAM action that is missing.
        missing: String,
        /// On what, where the service tells it.
        resource: Option<String>,
        /// What it says about it.
        message: String,
    },
    /// The clocks differ too much.
    #[error("this machine's clock says {}, the service's {}: {message}", moment(Some(*here)), moment(*there))]
    ClockSkew {
        /// This machine's clock.
        here: SystemTime,
        /// The service's clock, where it tells it.
        there: Option<SystemTime>,
        /// What the service says.
        message: String,
    },
    /// The other side's certificate is not trusted.
    #[error("the certificate of {endpoint} is not trusted: {reason}")]
    Distrusted {
        /// Who was asked.
        endpoint: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// Too many requests until the deadline.
    #[error("the service takes no more requests now: {}", said(&[code, message]))]
    Throttled {
        /// The service's word.
        code: String,
        /// What it says about it.
        message: String,
    },
    /// No usable answer until the deadline.
    #[error("{endpoint} gives no usable answer: {reason}")]
    Unavailable {
        /// Who was asked.
        endpoint: String,
        /// What the last try met.
        reason: String,
    },
    /// Names that do not exist.
    #[error("these do not exist in {region}: {}", names.join(", "))]
    Missing {
        /// The names.
        names: Vec<String>,
        /// Where they were looked for.
        region: String,
    },
    /// The request itself is refused.
    #[error("the service refuses the request: {}", said(&[&status.to_string(), code, message]))]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The service's word.
        code: String,
        /// What it says about it.
        message: String,
    },
}

/// Words of the service, of which each may be missing.
pub(super) fn said(words: &[&str]) -> String {
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.trim())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

fn on(resource: Option<&str>) -> String {
    resource
        .map(|resource| format!(" on {resource}"))
        .unwrap_or_default()
}

fn moment(time: Option<SystemTime>) -> String {
    time.map_or_else(
        || "another time".to_owned(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

impl AwsError {
    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            Kind::Configuration(_) => Some(
                "AWS_ENDPOINT_URL, AWS_CA_BUNDLE and the proxy variables are read as AWS's own tools read them"
                    .to_owned(),
            ),
            Kind::Credentials(error) => error.hint(),
            Kind::CredentialsRefused { .. } => {
                Some("renew or unset AWS_ACCESS_KEY_ID in the environment; a role's credentials renew themselves".to_owned())
            }
            Kind::Denied {
                missing,
                resource,
                message,
            } => Some(permission(missing, resource.as_deref(), message)),
            Kind::ClockSkew { here, there, .. } => Some(format!(
                "set the clock{}: chronyc makestep, with server 169.254.169.123",
                there.map_or_else(String::new, |there| format!(
                    ", which is {} off",
                    humantime::format_duration(Duration::from_secs(difference(*here, there).as_secs()))
                ))
            )),
            Kind::Distrusted { .. } => Some(
                "let AWS_CA_BUNDLE name the bundle that your proxy's or endpoint's certificate is signed from, or add it \
                 to the machine's (update-ca-trust); a wrong clock makes certificates look out of date too"
                    .to_owned(),
            ),
            Kind::Throttled { .. } if self.action == "ssm:GetParameters" => Some(
                "Parameter Store answers 40 requests a second for an account and region; switch its higher-throughput \
                 setting on, or give many nodes that boot at once more time"
                    .to_owned(),
            ),
            Kind::Throttled { .. } => Some("ask less often, or for a higher quota of this call".to_owned()),
            Kind::Unavailable { endpoint, .. } => Some(format!(
                "is there a way from this subnet to {endpoint}? It takes a route to the internet, or an interface \
                 endpoint of the VPC whose security group lets port 443 in"
            )),
            Kind::Missing { .. } if self.action == "ssm:GetParameters" => {
                Some("aws ssm put-parameter --type SecureString --name … makes one; names are exact and of one region".to_owned())
            }
            Kind::Missing { .. } | Kind::Rejected { .. } => None,
        }
    }
}

/// Which policy is in the way.
fn permission(missing: &str, resource: Option<&str>, message: &str) -> String {
    let statement = format!(
        r#"{{"Effect": "Allow", "Action": "{missing}", "Resource": "{}"}}"#,
        resource.unwrap_or("*")
    );
    if message.contains("VPC endpoint policy") {
        format!("add to the policy of the VPC endpoint: {statement}")
    } else if message.contains("explicit deny") {
        format!(
            "a policy denies {missing} explicitly (the role's, its boundary or the organisation's): take that out"
        )
    } else {
        format!("add to the policy of the instance's role: {statement}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: Kind) -> AwsError {
        AwsError {
            action: "ssm:GetParameters",
            tries: 3,
            after: Duration::from_millis(4_210),
            kind,
        }
    }

    #[test]
    fn a_clock_skew_shows_both_clocks_and_the_difference() {
        let here = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let error = failed(Kind::ClockSkew {
            here,
            there: Some(here + Duration::from_mins(75)),
            message: "Signature expired".to_owned(),
        });
        let text = crate::error::chain(&error);
        assert!(
            text.contains("ssm:GetParameters failed after 3 tries in 4.2 s"),
            "{text}"
        );
        assert!(
            text.contains("2027-01-15T08:00:00Z") && text.contains("2027-01-15T09:15:00Z"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("1h 15m"), "{:?}", error.hint());
    }

    #[test]
    fn a_denial_comes_with_the_line_that_is_missing_and_where() {
        let denied = |message: &str| {
            failed(Kind::Denied {
                missing: "kms:Decrypt".to_owned(),
                resource: Some("arn:aws:kms:eu-central-1:123456789012:key/1".to_owned()),
                message: message.to_owned(),
            })
            .hint()
            .unwrap()
        };
        let role = denied("no identity-based policy allows the kms:Decrypt action");
        assert!(
            role.contains(
                r#"role: {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "arn:aws:kms:eu-central-1:123456789012:key/1"}"#
            ),
            "{role}"
        );
        assert!(denied("because no VPC endpoint policy allows it").contains("policy of the VPC endpoint"));
        assert!(denied("with an explicit deny in a service control policy").contains("take that out"));
    }
}
