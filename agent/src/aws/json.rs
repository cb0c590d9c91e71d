//! Owns calls of the services that speak JSON 1.1: Parameter Store and both registries.
//! Touches AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client::{Client, Request};
use super::endpoint::Service;
use super::error::{AwsError, Kind};
use super::secret::Secret;

/// Names that one GetParameters call takes.
const NAMES_AT_ONCE: usize = 10;

/// A parameter, decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its value.
    pub value: Secret,
    /// Counts up with each change of the value.
    pub version: u64,
    /// Whether it is stored encrypted (`SecureString`).
    pub secure: bool,
}

/// What a registry takes for a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationToken {
    /// User name; ECR's is `AWS`.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// When it ends; ECR's holds for twelve hours.
    pub expires: SystemTime,
    /// The registry that the service names with it, as a URL. The token opens every registry of the same region that
    /// its holder may use.
    pub registry: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameters<'a> {
    names: &'a [&'a str],
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParametersAnswer {
    #[serde(default)]
    parameters: Vec<ParameterAnswer>,
    #[serde(default)]
    invalid_parameters: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterAnswer {
    name: String,
    #[serde(rename = "ARN")]
    arn: Option<String>,
    /// `:version` or `:label`, if the name that was asked for had one.
    selector: Option<String>,
    r#type: String,
    value: Secret,
    version: u64,
}

impl ParameterAnswer {
    /// Whether this is the parameter that was asked for as `name`: by name or by ARN, each with `:version` or `:label`
    /// or without. The service repeats such an ending; moto does not, and is told by the version.
    fn answers(&self, name: &str) -> bool {
        let (bare, ending) = split(name);
        let same = self.name == bare || self.arn.as_deref() == Some(bare);
        let told = self.selector.as_deref().filter(|told| !told.is_empty());
        same && match (told, ending) {
            (Some(told), Some(ending)) => told.trim_start_matches(':') == ending,
            (Some(_), None) => false,
            (None, Some(ending)) => ending
                .parse()
                .map_or(true, |version: u64| version == self.version),
            (None, None) => true,
        }
    }
}

/// The name without its `:version` or `:label`, and that. Colons of an ARN come before its last slash.
fn split(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSettingAnswer {
    service_setting: ServiceSetting,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSetting {
    setting_value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAnswer {
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicTokenAnswer {
    authorization_data: AuthorizationData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: Secret,
    /// Seconds since 1970, with a fraction.
    expires_at: f64,
    proxy_endpoint: Option<String>,
}

impl AuthorizationData {
    /// The token is `user:password` in base64.
    fn read(self) -> Result<AuthorizationToken, String> {
        let bytes = BASE64_STANDARD
            .decode(self.authorization_token.expose())
            .map_err(|_| "the authorization token is not base64".to_owned())?;
        let bytes = Zeroizing::new(bytes);
        let text =
            std::str::from_utf8(&bytes).map_err(|_| "the authorization token is no text".to_owned())?;
        let (user, password) = text
            .split_once(':')
            .filter(|(user, password)| !user.is_empty() && !password.is_empty())
            .ok_or("the authorization token is not of the form user:password")?;
        let expires = Duration::try_from_secs_f64(self.expires_at)
            .ok()
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds))
            .ok_or("the token's expiration is not a time")?;
        Ok(AuthorizationToken {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            expires,
            registry: self.proxy_endpoint,
        })
    }
}

impl Client {
    /// SSM GetParameters with decryption: the parameters by the names that were asked for (plain names, ARNs,
    /// either with `:version` or `:label`), ten in one call. All names that do not exist are told at once.
    pub fn get_parameters<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, Parameter>, AwsError> {
        const ACTION: &str = "ssm:GetParameters";
        // The service refuses a name that comes twice.
        let names: Vec<&str> = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for names in names.chunks(NAMES_AT_ONCE) {
            let request = GetParameters {
                names,
                with_decryption: true,
            };
            let answer: GetParametersAnswer =
                self.json(Service::Ssm, ACTION, "AmazonSSM.GetParameters", &request, Ok)?;
            for &name in names {
                let answering = answer
                    .parameters
                    .iter()
                    .filter(|parameter| parameter.answers(name));
                match answering.max_by_key(|parameter| parameter.version) {
                    Some(parameter) if !answer.invalid_parameters.iter().any(|invalid| invalid == name) => {
                        let parameter = Parameter {
                            value: parameter.value.clone(),
                            version: parameter.version,
                            secure: parameter.r#type == "SecureString",
                        };
                        found.insert(name.to_owned(), parameter);
                    }
                    _ => missing.push(name.to_owned()),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        Err(AwsError {
            action: ACTION,
            tries: 1,
            after: Duration::ZERO,
            kind: Kind::Missing {
                names: missing,
                region: self.region().to_owned(),
            },
        })
    }

    /// SSM GetServiceSetting: the value of a setting of the account in the region.
    pub fn get_service_setting(&self, id: &str) -> Result<String, AwsError> {
        self.json(
            Service::Ssm,
            "ssm:GetServiceSetting",
            "AmazonSSM.GetServiceSetting",
            &BTreeMap::from([("SettingId", id)]),
            |answer: ServiceSettingAnswer| Ok(answer.service_setting.setting_value),
        )
    }

    /// ECR GetAuthorizationToken: a login for every private registry of the client's region that the credentials'
    /// holder may use. (`registryIds` is deprecated: AWS says that it changes nothing.)
    pub fn get_authorization_token(&self) -> Result<AuthorizationToken, AwsError> {
        let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
        self.json(
            Service::Ecr,
            "ecr:GetAuthorizationToken",
            target,
            &BTreeMap::<&str, &str>::new(),
            |answer: TokenAnswer| {
                let first = answer.authorization_data.into_iter().next();
                first.ok_or("the answer holds no authorization data")?.read()
            },
        )
    }

    /// ECR Public GetAuthorizationToken: a login for `public.ecr.aws`. The service is in us-east-1 only, so the
    /// client must be for that region. It also takes the permission `sts:GetServiceBearerToken`.
    pub fn get_public_authorization_token(&self) -> Result<AuthorizationToken, AwsError> {
        let target = "SpencerFrontendService.GetAuthorizationToken";
        self.json(
            Service::EcrPublic,
            "ecr-public:GetAuthorizationToken",
            target,
            &BTreeMap::<&str, &str>::new(),
            |answer: PublicTokenAnswer| answer.authorization_data.read(),
        )
    }

    /// `take` looks at what was read; what it does not understand is asked for again.
    fn json<A: DeserializeOwned, T>(
        &self,
        service: Service,
        action: &'static str,
        target: &str,
        request: &impl Serialize,
        take: impl Fn(A) -> Result<T, String>,
    ) -> Result<T, AwsError> {
        let body = serde_json::to_vec(request).map_err(|error| AwsError {
            action,
            tries: 0,
            after: Duration::ZERO,
            kind: Kind::Configuration(format!("the request cannot be written: {error}")),
        })?;
        let request = Request {
            service,
            action,
            headers: &[
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", target),
            ],
            body: &body,
        };
        let (answer, _) = self.call(&request, |body| {
            // The error of the parser may quote what it read; a secret must not come out that way.
            let answer = serde_json::from_slice(body).map_err(|error| {
                format!(
                    "its answer is not readable ({:?} at line {} column {})",
                    error.classify(),
                    error.line(),
                    error.column()
                )
            });
            take(answer?)
        })?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_versions_and_labels() {
        let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/cos/key";
        for (name, bare, ending) in [
            ("/cos/key", "/cos/key", None),
            ("/cos/key:3", "/cos/key", Some("3")),
            ("key:current", "key", Some("current")),
            (arn, arn, None),
            (&format!("{arn}:3"), arn, Some("3")),
            ("", "", None),
            ("/:", "/", Some("")),
        ] {
            assert_eq!(split(name), (bare, ending), "{name}");
        }
    }

    #[test]
    fn a_token_that_is_none_is_refused_without_being_shown() {
        for (token, reason) in [
            ("not base64: planted", "not base64"),
            ("cGxhbnRlZA==", "not of the form"),
            ("OnBsYW50ZWQ=", "not of the form"),
            ("/////w==", "no text"),
        ] {
            let data = AuthorizationData {
                authorization_token: Secret::new(token.to_owned()),
                expires_at: 1.5,
                proxy_endpoint: None,
            };
            let error = data.read().unwrap_err();
            assert!(error.contains(reason) && !error.contains("planted"), "{error}");
        }
        for expires_at in [-1.0, f64::NAN, f64::INFINITY, 1e30] {
            let data = AuthorizationData {
                authorization_token: Secret::new("QVdTOnA=".to_owned()),
                expires_at,
                proxy_endpoint: None,
            };
            assert!(data.read().is_err(), "{expires_at}");
        }
    }
}
