//! Owns the life of one call: sign, send, judge, and try again while that may help and the deadline allows it.
//! Touches the network and the metadata service.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::credentials::{Credentials, Provider};
use super::endpoint::{self, Service, Variant};
use super::environment::Environment;
use super::error::{AwsError, Kind, said};
use super::refusal::{Refusal, Verdict};
use super::retry::{Met, Retry};
use super::sign::{self, Signable};
use super::transport::Transport;
use crate::host::Files;
use crate::world::{Outgoing, Reply, Trouble, World};

/// Longest time for one call with all its tries, unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Longest time for one call that the service has no room for, where many nodes ask for the same at once: Parameter
/// Store's smallest throughput, 40 a second, serves 24,000 calls in it. The launch hook of `templates/terraform` lets a
/// node go after a quarter of an hour.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// A try that ends closer to the deadline than this tells nothing new.
const TELLING: Duration = Duration::from_millis(200);

/// How long an instance may be without its role before that is taken for an answer.
const ROLE_PATIENCE: Duration = Duration::from_secs(5);

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Region that is asked.
    pub region: String,
    /// Domain of AWS's services, as the metadata service tells it in `services/domain`; none leaves it to the region.
    pub domain: Option<String>,
    /// Which of a service's addresses is meant.
    pub variant: Variant,
    /// The metadata service; none leaves it to `AWS_EC2_METADATA_SERVICE_ENDPOINT` and the usual address.
    pub imds: Option<String>,
    /// What the environment says.
    pub environment: Environment,
    /// Where the machine's files are.
    pub files: Files,
    /// Longest time for one call with all its tries.
    pub deadline: Duration,
    /// Where its clients live; none is this machine and its network.
    pub world: Option<Arc<dyn World>>,
}

impl Settings {
    /// The usual: everything as the region and the environment say it.
    pub fn new(region: impl Into<String>, environment: Environment) -> Self {
        Self {
            region: region.into(),
            domain: None,
            variant: Variant {
                fips: environment.is_true("AWS_USE_FIPS_ENDPOINT"),
                dual_stack: environment.is_true("AWS_USE_DUALSTACK_ENDPOINT"),
            },
            imds: None,
            environment,
            files: Files::new("/"),
            deadline: DEADLINE,
            world: None,
        }
    }
}

/// The client. Cloning it is cheap, and clones share connections and credentials; so do threads.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    credentials: Provider,
    world: Arc<dyn World>,
}

/// One request, ready but for its signature.
pub(super) struct Request<'a> {
    pub(super) service: Service,
    /// As IAM names it.
    pub(super) action: &'static str,
    pub(super) headers: &'a [(&'static str, &'a str)],
    pub(super) body: &'a [u8],
}

/// What a try came to.
enum Outcome<T> {
    Done(T),
    /// Worth another try; the kind is what is told if there is none.
    Passing(Kind),
    /// Worth another try with other credentials.
    Credentials(Kind, Credentials),
}

impl Client {
    /// A client. It asks nothing and reads nothing before its first call.
    pub fn new(settings: Settings) -> Self {
        let world = settings.world.clone();
        let shared = Shared {
            credentials: Provider::new(settings.environment.clone(), settings.imds.clone(), world.clone()),
            world: world.unwrap_or_else(|| {
                Arc::new(Transport::new(
                    settings.files.clone(),
                    settings.environment.clone(),
                ))
            }),
            settings,
        };
        Self {
            deadline: shared.settings.deadline,
            patience: shared.settings.deadline,
            shared: Arc::new(shared),
        }
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            deadline,
            patience: deadline,
        }
    }

    /// The same client, which goes on for `patience` where a service says that it takes no more requests now. The
    /// deadline is then for how long a service may be silent or broken.
    #[must_use]
    pub fn patient(&self, patience: Duration) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    /// The region that is asked.
    pub fn region(&self) -> &str {
        &self.shared.settings.region
    }

    /// Where a service is reached.
    pub(crate) fn endpoint(&self, service: Service) -> String {
        let settings = &self.shared.settings;
        endpoint::url(
            service,
            &settings.region,
            settings.domain.as_deref(),
            settings.variant,
            &settings.environment,
        )
    }

    /// Makes a call until there is an answer that `read` understands; says how many tries it took.
    pub(super) fn call<T>(
        &self,
        request: &Request<'_>,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<(T, u32), AwsError> {
        let world = &*self.shared.world;
        let start = world.ticks();
        let since = || world.ticks().saturating_sub(start);
        let mut retry = Retry::new(self.deadline, self.patience);
        let mut tries = 0;
        let mut renewed = false;
        let mut last = None;
        let kind = loop {
            tries += 1;
            let outcome = match self.attempt(request, since(), retry.left(since()), &read) {
                Ok(outcome) => outcome,
                Err(kind) => break kind,
            };
            let (met, kind) = match outcome {
                Outcome::Done(answer) => return Ok((answer, tries)),
                Outcome::Passing(kind @ Kind::Throttled { .. }) => (Met::Throttling, kind),
                Outcome::Passing(kind) => (Met::Trouble, kind),
                Outcome::Credentials(kind, credentials) => {
                    let newer = self.shared.credentials.forget(&credentials);
                    if renewed || !newer {
                        break kind;
                    }
                    renewed = true;
                    continue;
                }
            };
            let now = since();
            let pause = retry.pause(met, now, world.chance());
            // A last try that had no time to succeed does not hide why the others failed.
            let told = match last {
                Some(earlier) if retry.left(now) <= TELLING => earlier,
                _ => kind,
            };
            let Some(pause) = pause else { break told };
            last = Some(told);
            world.pause(pause);
        };
        Err(AwsError {
            action: request.action,
            tries,
            after: since(),
            kind,
        })
    }

    fn attempt<T>(
        &self,
        request: &Request<'_>,
        since: Duration,
        left: Duration,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Outcome<T>, Kind> {
        let world = &*self.shared.world;
        let begun = world.ticks();
        let credentials = match self.shared.credentials.get(left) {
            Ok(credentials) => credentials,
            Err(error) if error.may_pass() && since < ROLE_PATIENCE => {
                return Ok(Outcome::Passing(Kind::Credentials(error)));
            }
            Err(error) => return Err(Kind::Credentials(error)),
        };
        let endpoint = self.endpoint(request.service);
        let url = format!("{endpoint}/");
        let time = world.now();
        let signable = Signable {
            method: "POST",
            url: &url,
            headers: request.headers,
            body: request.body,
            region: self.region(),
            service: request.service.signing_name(),
            time,
        };
        let signature = sign::headers(&signable, &credentials).map_err(Kind::Configuration)?;
        let signed = signature.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = request.headers.iter().copied().chain(signed).collect();
        let outgoing = Outgoing {
            method: signable.method,
            url: &url,
            headers: &headers,
            body: request.body,
            within: left.saturating_sub(world.ticks().saturating_sub(begun)),
        };
        match world.exchange(&outgoing) {
            Err(Trouble::Configuration(reason)) => Err(Kind::Configuration(reason)),
            Err(Trouble::Distrust(reason)) => Err(Kind::Distrusted { endpoint, reason }),
            Err(Trouble::Silence(reason) | Trouble::Passing(reason)) => {
                Ok(Outcome::Passing(Kind::Unavailable { endpoint, reason }))
            }
            Ok(reply) if reply.status == 200 => Ok(match read(&reply.body) {
                Ok(answer) => Outcome::Done(answer),
                Err(reason) => Outcome::Passing(Kind::Unavailable { endpoint, reason }),
            }),
            Ok(reply) => refused(request.action, &reply, endpoint, credentials, time),
        }
    }
}

fn refused<T>(
    action: &str,
    reply: &Reply,
    endpoint: String,
    credentials: Credentials,
    here: SystemTime,
) -> Result<Outcome<T>, Kind> {
    let refusal = Refusal::read(reply);
    let verdict = refusal.verdict(here, reply.date);
    let Refusal {
        status,
        code,
        mut message,
    } = refusal;
    if let Some(id) = &reply.request_id {
        message = format!("{message} [request {id}]");
    }
    match verdict {
        Verdict::Throttled => Ok(Outcome::Passing(Kind::Throttled { code, message })),
        Verdict::Passing => Ok(Outcome::Passing(Kind::Unavailable {
            endpoint,
            reason: said(&["it answers", &status.to_string(), &code, &message]),
        })),
        Verdict::Credentials => {
            let kind = Kind::CredentialsRefused {
                holder: credentials.source.to_string(),
                code,
                message,
            };
            Ok(Outcome::Credentials(kind, credentials))
        }
        Verdict::Clock => Err(Kind::ClockSkew {
            here,
            there: reply.date,
            message,
        }),
        Verdict::Denied {
            action: missing,
            resource,
        } => Err(Kind::Denied {
            missing: missing.unwrap_or_else(|| action.to_owned()),
            resource,
            message,
        }),
        Verdict::Final => Err(Kind::Rejected {
            status,
            code,
            message,
        }),
    }
}
