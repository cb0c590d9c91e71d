//! Owns the client of the EC2 instance metadata service, version 2 only, with one budget for everything it asks.
//! Touches the metadata service.
//!
//! The service shares 1024 packets per second and interface with DNS and NTP, and refuses now and then while a
//! machine boots, so each answer that may pass is asked for again until the budget is spent. Paths begin with
//! `latest`: dated paths are the documented habit, but stand-ins for the service often know `latest` only.
//! Several threads may ask at once; they share one token and kept connections.

use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::InstanceFacts;
use crate::node::http::{self, Plain};
use crate::node::wait::{self, Backoff, WaitError};
use crate::world::{Outgoing, Reply, Trouble, World};

/// The service's address on every EC2 instance.
pub const DEFAULT_URL: &str = "http://169.254.169.254";

/// Budget for all answers together, unless told otherwise.
pub const BUDGET: Duration = Duration::from_secs(30);

/// The longest life of a token that the service grants, in seconds: six hours.
const TOKEN_LIFE: &str = "21600";

const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(2);
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(2),
};

/// The metadata service could not be asked.
#[derive(Debug, Error)]
pub enum ImdsError {
    /// It answers 403: the instance was launched, or changed, with the service switched off.
    #[error("the instance metadata service at {url} is disabled for this instance (it answers 403)")]
    Disabled {
        /// What was asked.
        url: String,
    },
    /// It did not answer usefully within the budget.
    #[error("the instance metadata service at {url} gave no answer within {:.0} s: {last_reason}", after.as_secs_f64())]
    Silent {
        /// What was asked.
        url: String,
        /// How long was tried.
        after: Duration,
        /// What the last try met.
        last_reason: String,
        /// Whether connections were taken but the token never came.
        token_withheld: bool,
    },
    /// It answered what it should not.
    #[error("the instance metadata service at {url} answered {status}")]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// It has no such document, and a node cannot do without.
    #[error("the instance metadata service at {url} has no such document")]
    Absent {
        /// What was asked.
        url: String,
    },
    /// A document is not what AWS describes.
    #[error("the instance identity document is not readable")]
    Document(#[source] serde_json::Error),
    /// Another document is not what AWS describes.
    #[error("the answer of the instance metadata service at {url} is not readable")]
    Unreadable {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The instance has a role and may not take it on.
    #[error("the instance metadata service has no credentials for the role {role}: {code} {message}")]
    Role {
        /// Name of the role.
        role: String,
        /// The service's word for what is wrong.
        code: String,
        /// What it says about it.
        message: String,
    },
}

impl ImdsError {
    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disabled { .. } => Some(
                "switch it on: aws ec2 modify-instance-metadata-options --http-endpoint enabled --http-tokens required"
                    .to_owned(),
            ),
            Self::Silent { token_withheld: true, .. } => Some(
                "connections are taken but the token does not come back: behind a container or another hop, raise \
                 the hop limit (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)"
                    .to_owned(),
            ),
            Self::Silent { .. } => {
                Some("is this an EC2 instance? another address goes by --imds URL".to_owned())
            }
            Self::Role { role, .. } => Some(format!(
                "let the trust policy of {role} name ec2.amazonaws.com, and give IAM a minute"
            )),
            _ => None,
        }
    }
}

/// What one request met.
enum Met {
    Answer(Reply),
    /// May pass: worth another try within the budget.
    Passing(String),
}

/// The client. It asks for a token once, and again when the service forgot it.
#[derive(Debug)]
pub struct Imds {
    world: Arc<dyn World>,
    base: String,
    budget: Duration,
    /// When the budget began, in ticks.
    start: Duration,
    token: Mutex<Option<String>>,
    retries: AtomicU32,
}

impl Imds {
    /// A client of the service at `base` whose answers must all come within `budget` from now.
    pub fn new(base: &str, budget: Duration) -> Self {
        Self::in_world(base, budget, Arc::new(Plain(http::client(CONNECT, ANSWER))))
    }

    /// As [`Imds::new`], in another world than this machine's.
    pub fn in_world(base: &str, budget: Duration, world: Arc<dyn World>) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            budget,
            start: world.ticks(),
            world,
            token: Mutex::new(None),
            retries: AtomicU32::new(0),
        }
    }

    /// Where the service is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Asks for the token, so that whatever is asked after that finds it.
    pub fn open(&self) -> Result<(), ImdsError> {
        let url = self.url("api/token");
        let mut withheld = false;
        self.ask(&url, &mut withheld, |imds, withheld| {
            Ok(match imds.token(withheld)? {
                ControlFlow::Break(_) => ControlFlow::Break(()),
                ControlFlow::Continue(reason) => ControlFlow::Continue(reason),
            })
        })
    }

    /// How often anything had to be asked again.
    pub fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Gives what is asked from now on a budget of its own: for whoever asks again and again, all day long.
    pub(crate) fn begin(&mut self, budget: Duration) {
        self.budget = budget;
        self.start = self.world.ticks();
    }

    /// Who and where this machine is.
    pub fn facts(&self) -> Result<InstanceFacts, ImdsError> {
        let path = "dynamic/instance-identity/document";
        let document = self
            .get(path)?
            .ok_or_else(|| ImdsError::Absent { url: self.url(path) })?;
        let identity: Identity = serde_json::from_slice(&document).map_err(ImdsError::Document)?;
        let (partition, domain) = match partition_of(&identity.region) {
            Some((partition, domain)) => (partition.to_owned(), domain.to_owned()),
            None => (
                self.text("meta-data/services/partition")?
                    .unwrap_or_else(|| "aws".to_owned()),
                self.text("meta-data/services/domain")?
                    .unwrap_or_else(|| "amazonaws.com".to_owned()),
            ),
        };
        Ok(InstanceFacts {
            domain,
            partition,
            instance_id: identity.instance_id,
            region: identity.region,
            zone: identity.availability_zone,
            account: identity.account_id,
            private_ipv4: identity.private_ip,
            instance_type: identity.instance_type,
            architecture: identity.architecture,
        })
    }

    /// The instance's user-data as it was given; none if there is none.
    pub fn user_data(&self) -> Result<Option<Vec<u8>>, ImdsError> {
        self.get("user-data")
    }

    /// Keys of the instance's tags; none of them unless the instance was launched with `InstanceMetadataTags`.
    pub fn tag_keys(&self) -> Result<Vec<String>, ImdsError> {
        let keys = self.text("meta-data/tags/instance")?.unwrap_or_default();
        Ok(keys.lines().map(str::to_owned).collect())
    }

    /// The value of a tag; none if it is gone. The service serves no key with other characters than letters, digits
    /// and `+ - = . , _ : @`.
    pub fn tag(&self, key: &str) -> Result<Option<String>, ImdsError> {
        let value = self.get(&format!("meta-data/tags/instance/{key}"))?;
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/latest/{path}", self.base)
    }

    pub(super) fn text(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let text = self
            .get(path)?
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// One document; none if the service says that there is no such thing (404).
    pub(crate) fn get(&self, path: &str) -> Result<Option<Vec<u8>>, ImdsError> {
        let url = self.url(path);
        let mut withheld = false;
        self.ask(&url, &mut withheld, |imds, withheld| {
            let token = match imds.token(withheld)? {
                ControlFlow::Break(token) => token,
                ControlFlow::Continue(reason) => return Ok(ControlFlow::Continue(reason)),
            };
            let met = imds.exchange("GET", &url, ("X-aws-ec2-metadata-token", &token));
            match judge(&url, met)? {
                Met::Answer(Reply {
                    status: 200,
                    mut body,
                    ..
                }) => Ok(ControlFlow::Break(Some(mem::take(&mut *body)))),
                Met::Answer(Reply { status: 404, .. }) => Ok(ControlFlow::Break(None)),
                Met::Answer(Reply { status: 401, .. }) => {
                    imds.forget(&token);
                    Ok(ControlFlow::Continue(
                        "it does not know the token (401)".to_owned(),
                    ))
                }
                Met::Answer(Reply { status, .. }) => Err(ImdsError::Status {
                    url: url.clone(),
                    status,
                }),
                Met::Passing(reason) => Ok(ControlFlow::Continue(reason)),
            }
        })
    }

    fn exchange(&self, method: &str, url: &str, header: (&str, &str)) -> Result<Reply, Trouble> {
        self.world.exchange(&Outgoing {
            method,
            url,
            headers: &[header],
            body: &[],
            within: CONNECT + 2 * ANSWER,
        })
    }

    /// Tries until the budget is spent.
    fn ask<T>(
        &self,
        url: &str,
        withheld: &mut bool,
        mut probe: impl FnMut(&Self, &mut bool) -> Result<ControlFlow<T, String>, ImdsError>,
    ) -> Result<T, ImdsError> {
        let spent = || self.world.ticks().saturating_sub(self.start);
        let left = self.budget.saturating_sub(spent());
        let mut tries: u32 = 0;
        let ended = wait::until_in(&*self.world, left, BACKOFF, || {
            tries += 1;
            probe(self, withheld)
        });
        self.retries.fetch_add(tries.saturating_sub(1), Ordering::Relaxed);
        ended.map_err(|error| match error {
            WaitError::Deadline { last_reason, .. } => ImdsError::Silent {
                url: url.to_owned(),
                after: spent(),
                last_reason,
                token_withheld: *withheld,
            },
            WaitError::Probe(error) => error,
        })
    }

    /// The token. Whoever needs it while another thread asks for it waits for that answer.
    fn token(&self, withheld: &mut bool) -> Result<ControlFlow<String, String>, ImdsError> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref() {
            return Ok(ControlFlow::Break(token.clone()));
        }
        let asked = self.ask_token(withheld)?;
        if let ControlFlow::Break(new) = &asked {
            *token = Some(new.clone());
        }
        Ok(asked)
    }

    /// Forgets a token that the service does not know any more, unless there is a newer one already.
    fn forget(&self, old: &str) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.as_deref() == Some(old) {
            *token = None;
        }
    }

    fn ask_token(&self, withheld: &mut bool) -> Result<ControlFlow<String, String>, ImdsError> {
        let url = self.url("api/token");
        let met = self.exchange("PUT", &url, ("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE));
        // A reply to PUT leaves the service with a small time to live, so that it dies on a second hop.
        *withheld = matches!(met, Err(Trouble::Silence(_)));
        match judge(&url, met)? {
            Met::Answer(Reply {
                status: 200, body, ..
            }) => Ok(ControlFlow::Break(
                String::from_utf8_lossy(&body).trim().to_owned(),
            )),
            Met::Answer(Reply { status, .. }) => Err(ImdsError::Status { url, status }),
            Met::Passing(reason) => Ok(ControlFlow::Continue(reason)),
        }
    }
}

/// Sorts what a request met: 403 is final, 429, 5xx and trouble on the way may pass, the rest is an answer.
fn judge(url: &str, met: Result<Reply, Trouble>) -> Result<Met, ImdsError> {
    match met {
        Ok(Reply { status: 403, .. }) => Err(ImdsError::Disabled { url: url.to_owned() }),
        Ok(Reply {
            status: status @ (429 | 500..),
            ..
        }) => Ok(Met::Passing(format!("it answers {status}"))),
        Ok(answer) => Ok(Met::Answer(answer)),
        Err(
            Trouble::Configuration(reason)
            | Trouble::Distrust(reason)
            | Trouble::Silence(reason)
            | Trouble::Passing(reason),
        ) => Ok(Met::Passing(reason)),
    }
}

/// The identity document's fields that a node needs; AWS documents them and adds others at will.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    account_id: String,
    architecture: String,
    availability_zone: String,
    instance_id: String,
    instance_type: String,
    private_ip: std::net::Ipv4Addr,
    region: String,
}

/// Partition and service domain by the region's name, as AWS's own SDKs tell them (`partitions.json` of botocore);
/// none for a region of a kind that is newer than this list.
fn partition_of(region: &str) -> Option<(&'static str, &'static str)> {
    Some(match region.split('-').collect::<Vec<_>>().as_slice() {
        ["us" | "eu" | "ap" | "sa" | "ca" | "me" | "af" | "il" | "mx", _, _] => ("aws", "amazonaws.com"),
        ["cn", _, _] => ("aws-cn", "amazonaws.com.cn"),
        ["us", "gov", _, _] => ("aws-us-gov", "amazonaws.com"),
        ["us", "iso", _, _] => ("aws-iso", "c2s.ic.gov"),
        ["us", "isob", _, _] => ("aws-iso-b", "sc2s.sgov.gov"),
        ["eu", "isoe", _, _] => ("aws-iso-e", "cloud.adc-e.uk"),
        ["us", "isof", _, _] => ("aws-iso-f", "csp.hci.ic.gov"),
        ["eusc", "de", _, _] => ("aws-eusc", "amazonaws.eu"),
        _ => return None,
    })
}
