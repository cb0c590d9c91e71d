//! Owns `AwsCloud`: credentials, region, endpoints, time-outs and retries of all calls to AWS.
//! Touches AWS, the environment and the profile files (through the SDK's standard chains).

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::SharedHttpClient;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use rand::Rng;

use super::errors;
use crate::cloud::{CloudError, CloudErrorKind, SnapshotId};

/// Longest time to a connection. Three tries of this, with their pauses, end within 15 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest time of one try of a call, answer included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);

/// Tries of a call while its service has not answered at all yet: a wrong endpoint must show quickly.
const HASTY_ATTEMPTS: u32 = 3;

/// Tries of a call once its service has answered: a bake of minutes should outlive a bad moment.
const PATIENT_ATTEMPTS: u32 = 8;

/// How long EC2 may deny something that it has just made (it is eventually consistent).
const SETTLING: Duration = Duration::from_secs(30);

/// One client of each service, under one retry policy.
pub(crate) struct Clients {
    pub(crate) ebs: aws_sdk_ebs::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) ssm: aws_sdk_ssm::Client,
    pub(crate) sts: aws_sdk_sts::Client,
}

impl Clients {
    fn new(config: &SdkConfig, retry: RetryConfig) -> Self {
        let config = config.to_builder().retry_config(retry).build();
        Self {
            ebs: aws_sdk_ebs::Client::new(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
        }
    }
}

struct Inner {
    region: String,
    hasty: Clients,
    patient: Clients,
    /// For calls that have their own loop: each try is seen.
    single: Clients,
    /// Whether each service has answered: EBS, EC2, Systems Manager (an endpoint may be missing for one of them).
    answered: [AtomicBool; 3],
    /// What this process made, and when.
    fresh: Mutex<HashMap<String, Instant>>,
    /// SHA-256 of each block put, for the checksum of the whole snapshot.
    digests: Mutex<HashMap<SnapshotId, BTreeMap<u32, [u8; 32]>>>,
}

/// EC2, EBS and Parameter Store of one region and account, for real. Clones share connections and credentials.
#[derive(Clone)]
pub struct AwsCloud {
    inner: Arc<Inner>,
}

impl AwsCloud {
    /// Takes credentials, endpoints and (unless given) the region from where all AWS tools take them: environment,
    /// profiles (assumed roles, SSO, processes), web identity, container and instance metadata. Credentials are
    /// fetched at the first call, which reports them missing or bad.
    ///
    /// # Errors
    /// No region is to be found, or `AWS_CA_BUNDLE` names a file that cannot be read.
    pub async fn connect(region: Option<&str>) -> Result<Self, CloudError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client()?)
            .timeout_config(timeouts());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Ok(name) = AppName::new("cos-bake") {
            loader = loader.app_name(name);
        }
        Self::from_config(&loader.load().await)
    }

    /// The same over a configuration that is complete already.
    pub(crate) fn from_config(config: &SdkConfig) -> Result<Self, CloudError> {
        let region = config
            .region()
            .map(ToString::to_string)
            .filter(|region| !region.is_empty());
        let region = region.ok_or_else(|| {
            errors::configuration(
                "config:Region",
                "no region is named: not with --region, in AWS_REGION, nor in the profile",
            )
        })?;
        let retry = |attempts: u32| {
            RetryConfig::standard()
                .with_max_attempts(attempts)
                .with_initial_backoff(Duration::from_millis(500))
                .with_max_backoff(Duration::from_secs(8))
        };
        let inner = Inner {
            region,
            hasty: Clients::new(config, retry(HASTY_ATTEMPTS)),
            patient: Clients::new(config, retry(PATIENT_ATTEMPTS)),
            single: Clients::new(config, RetryConfig::disabled()),
            answered: Default::default(),
            fresh: Mutex::default(),
            digests: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The region that all calls go to.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Makes a call with the SDK's retries (throttling, lost connections, 5xx): few while the service has never
    /// answered, many once it has.
    pub(crate) async fn send<T, E, F>(
        &self,
        operation: &'static str,
        call: impl Fn(&Clients) -> F + Send + Sync,
    ) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let answered = self.answered(operation);
        let patient = answered.load(Ordering::Relaxed);
        let result = call(if patient {
            &self.inner.patient
        } else {
            &self.inner.hasty
        })
        .await;
        let result = self.heard(operation, result);
        match result {
            Err(error) if !patient && answered.load(Ordering::Relaxed) && errors::transient(&error) => {
                let result = call(&self.inner.patient).await;
                self.heard(operation, result)
            }
            result => result,
        }
    }

    /// Makes a call once.
    pub(crate) async fn send_once<T, E, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Clients) -> F + Send,
    ) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let result = call(&self.inner.single).await;
        self.heard(operation, result)
    }

    /// Notes whether the service answered, and converts an error.
    fn heard<T, E>(
        &self,
        operation: &'static str,
        result: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, CloudError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let silent = matches!(&result, Err(error) if error.raw_response().is_none());
        if !silent {
            self.answered(operation).store(true, Ordering::Relaxed);
        }
        result.map_err(|error| errors::convert(operation, error))
    }

    fn answered(&self, operation: &str) -> &AtomicBool {
        let service = match operation.split_once(':') {
            Some(("ebs", _)) => 0,
            Some(("ec2", _)) => 1,
            _ => 2,
        };
        &self.inner.answered[service]
    }

    /// Notes that this process has just made something.
    pub(super) fn made(&self, id: &str) {
        self.fresh().insert(id.to_owned(), Instant::now());
    }

    /// Repeats a call that answers 'not found' for something that this process has just made: EC2 is eventually
    /// consistent, and to believe it would leak what a cleanup wants to end.
    pub(super) async fn settled<T, F>(
        &self,
        id: &str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, CloudError>> + Send,
    {
        let mut attempt = 0;
        loop {
            match call().await {
                Err(error) if error.kind == CloudErrorKind::NotFound && self.is_fresh(id) => {
                    pause(attempt, Duration::from_secs(4)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn is_fresh(&self, id: &str) -> bool {
        self.fresh().get(id).is_some_and(|made| made.elapsed() < SETTLING)
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.inner.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digests of the blocks put so far, by snapshot.
    pub(super) fn digests(&self) -> MutexGuard<'_, HashMap<SnapshotId, BTreeMap<u32, [u8; 32]>>> {
        self.inner.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps before try `attempt + 1`: twice as long each time from half a second up to `longest`, with jitter so that
/// many calls do not come back at once.
pub(crate) async fn pause(attempt: u32, longest: Duration) {
    let full = Duration::from_millis(500)
        .saturating_mul(1 << attempt.min(10))
        .min(longest);
    let jitter = rand::rng().random_range(0.5..1.0);
    tokio::time::sleep(full.mul_f64(jitter)).await;
}

pub(super) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build()
}

/// HTTP with the system's certificates and `AWS_CA_BUNDLE`, through `HTTPS_PROXY` and `NO_PROXY` where they are set:
/// what other AWS tools do, and the SDK does not by itself.
pub(super) fn http_client() -> Result<SharedHttpClient, CloudError> {
    let mut trust = tls::TrustStore::default();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let failed = |error| {
            let path = path.display();
            errors::configuration(
                "config:Certificates",
                format!("cannot read AWS_CA_BUNDLE {path}: {error}"),
            )
        };
        trust = trust.with_pem_certificate(std::fs::read(&path).map_err(failed)?);
    }
    let context = tls::TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| errors::configuration("config:Certificates", error.to_string()))?;
    let proxy = ProxyConfig::from_env();
    // The documented builder knows no proxy; this one keeps its pool of connections and takes our connector.
    Ok(
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder().proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                connector.set_sleep_impl(components.sleep_impl());
            }
            let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
            connector
                .tls_provider(provider)
                .tls_context(context.clone())
                .build()
        }),
    )
}
