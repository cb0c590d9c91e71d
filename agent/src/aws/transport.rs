//! Owns how requests reach AWS: TLS, proxies, time limits of one try, and what became of it.
//! Touches the network, and files with trusted certificates.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::names::Names;
use super::trust;
use crate::host::Files;
use crate::world::{Outgoing, Reply, Trouble, World};

/// Longest time for a connection, TLS included. Connections inside a region take milliseconds.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest time from the request to the head of its answer.
const ANSWER: Duration = Duration::from_secs(8);

/// Shortest time that a try gets, however little is left.
const LEAST: Duration = Duration::from_millis(100);

/// Answers above this are refused. A description of an Auto Scaling group takes some 500 bytes for each instance.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Keeps connections alive; threads share it. Certificates are read when the first connection needs them.
pub(super) struct Transport {
    files: Files,
    environment: Environment,
    agents: Mutex<BTreeMap<Route, ureq::Agent>>,
}

impl fmt::Debug for Transport {
    /// Without the routes: a proxy's URL may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// Which of the agents serves a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    tls: bool,
    proxy: Option<String>,
}

impl Transport {
    pub(super) fn new(files: Files, environment: Environment) -> Self {
        Self {
            files,
            environment,
            agents: Mutex::default(),
        }
    }

    fn agent(&self, url: &str) -> Result<ureq::Agent, String> {
        let uri: ureq::http::Uri = url
            .parse()
            .map_err(|error| format!("{url} is not a URL: {error}"))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(format!("{url} is not a URL that begins with http:// or https://"));
        };
        let route = Route {
            tls: scheme == "https",
            proxy: proxy(&self.environment, scheme, host),
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let agent = self.build(&route)?;
        agents.insert(route, agent.clone());
        Ok(agent)
    }

    fn build(&self, route: &Route) -> Result<ureq::Agent, String> {
        let proxy = route.proxy.as_deref().map(ureq::Proxy::new).transpose();
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // AWS does not redirect these calls; whatever does is somebody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.map_err(|error| format!("the proxy of the environment cannot be used: {error}"))?)
            .user_agent(concat!("cos-agent/", env!("CARGO_PKG_VERSION")));
        if route.tls {
            let tls = TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .root_certs(trust::roots(&self.files, &self.environment)?);
            config = config.tls_config(tls.build());
        }
        Ok(ureq::Agent::with_parts(
            config.build(),
            DefaultConnector::default(),
            Names,
        ))
    }
}

impl World for Transport {
    fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Reply, Trouble> {
        let agent = self.agent(outgoing.url).map_err(Trouble::Configuration)?;
        let left = outgoing.within.max(LEAST);
        let mut request = ureq::http::Request::builder()
            .method(outgoing.method)
            .uri(outgoing.url);
        for (name, value) in outgoing.headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(outgoing.body)
            .map_err(|error| Trouble::Configuration(format!("{} cannot be asked: {error}", outgoing.url)))?;
        let request = agent
            .configure_request(request)
            .timeout_global(Some(left))
            .timeout_connect(Some(CONNECT.min(left)))
            // A try that hangs must leave time for another one.
            .timeout_recv_response(Some(ANSWER.min((left / 2).max(LEAST))))
            .build();
        let mut response = agent.run(request).map_err(|error| trouble(&error))?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let date = header("date").and_then(|date| httpdate::parse_http_date(&date).ok());
        let request_id = header("x-amzn-requestid").or_else(|| header("x-amz-request-id"));
        let error_type = header("x-amzn-errortype");
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(LARGEST).read_to_vec();
        Ok(Reply {
            status,
            body: Zeroizing::new(body.map_err(|error| trouble(&error))?),
            date,
            request_id,
            error_type,
        })
    }
}

/// The proxy for a host, by the variables that all programs know.
fn proxy(environment: &Environment, scheme: &str, host: &str) -> Option<String> {
    let proxy = environment.in_either_case(&format!("{scheme}_proxy"))?;
    let without = environment.in_either_case("no_proxy").unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let covered = without.split(',').map(str::trim).any(|entry| {
        let entry = entry.trim_start_matches("*.").trim_start_matches('.');
        entry == "*"
            || host.eq_ignore_ascii_case(entry)
            || (!entry.is_empty() && host.ends_with(&format!(".{}", entry.to_ascii_lowercase())))
    });
    (!covered).then(|| proxy.to_owned())
}

/// What is behind an error of the HTTP client.
fn trouble(error: &ureq::Error) -> Trouble {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    match (tls, error) {
        (Some(rustls::Error::InvalidCertificate(reason)), _) => Trouble::Distrust(format!("{reason:?}")),
        (Some(other), _) => Trouble::Passing(other.to_string()),
        (None, ureq::Error::HostNotFound) => Trouble::Passing("the name of the host is not known".to_owned()),
        (None, ureq::Error::Timeout(ureq::Timeout::RecvResponse)) => {
            Trouble::Silence(format!("no answer in time ({})", ureq::Timeout::RecvResponse))
        }
        (None, ureq::Error::Timeout(which)) => Trouble::Passing(format!("no answer in time ({which})")),
        (None, ureq::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Trouble::Passing("the connection is refused".to_owned())
        }
        (None, other) => Trouble::Passing(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_serves_what_is_not_excepted() {
        let environment: Environment = [
            ("HTTPS_PROXY", "http://proxy:3128"),
            (
                "no_proxy",
                "169.254.169.254, .internal,ssm.eu-central-1.amazonaws.com",
            ),
        ]
        .into_iter()
        .collect();
        let ask = |scheme, host| proxy(&environment, scheme, host);
        assert_eq!(ask("https", "ecr.aws"), Some("http://proxy:3128".to_owned()));
        for excepted in [
            "169.254.169.254",
            "a.b.internal",
            "internal",
            "SSM.eu-central-1.amazonaws.com",
        ] {
            assert_eq!(ask("https", excepted), None, "{excepted}");
        }
        assert_eq!(ask("http", "ecr.aws"), None);
        assert_eq!(ask("https", "notinternal"), Some("http://proxy:3128".to_owned()));
    }

    #[test]
    fn what_is_no_url_is_told() {
        let transport = Transport::new(Files::new("/"), Environment::default());
        for url in ["127.0.0.1:5000", "ftp://host", "not a url", ""] {
            let met = transport.exchange(&Outgoing {
                method: "POST",
                url,
                headers: &[],
                body: b"",
                within: Duration::from_secs(1),
            });
            assert!(
                matches!(&met, Err(Trouble::Configuration(reason)) if reason.contains(url)),
                "{met:?}"
            );
        }
    }
}
