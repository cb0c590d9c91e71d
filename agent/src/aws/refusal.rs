//! Owns reading AWS's refusals: code and message out of JSON or XML, and what each code calls for.
//! Touches nothing.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::world::Reply;

/// A service's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The service's word, without namespace; empty if it gave none.
    pub(super) code: String,
    /// What it says about it.
    pub(super) message: String,
}

/// What a refusal calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too many requests: again, later.
    Throttled,
    /// The service's own trouble: again, later.
    Passing,
    /// The credentials are old or unknown: again, with new ones.
    Credentials,
    /// The clocks differ too much for the signature to hold.
    Clock,
    /// The action is not allowed.
    Denied {
        /// The IAM action, where the service names another one than was called.
        action: Option<String>,
        /// On what.
        resource: Option<String>,
    },
    /// The request itself is refused.
    Final,
}

/// Codes of too many requests, as the AWS SDKs' reference of retry behaviour lists them, and KMS's own that Parameter
/// Store hands on.
const THROTTLING: [&str; 15] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "KMSThrottlingException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Codes of the service's own trouble that come with other statuses than 5xx. (Auto Scaling calls a resource that is
/// being changed by somebody else `ResourceContention`.)
const PASSING: [&str; 8] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
    "RequestTimeoutException",
    "ResourceContention",
    "ServerException",
    "ServiceUnavailable",
];

/// Codes of credentials that ended, or that the service does not know (yet).
const CREDENTIALS: [&str; 5] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

/// Codes that can have no other reason than the clocks.
const CLOCK: [&str; 3] = ["RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"];

/// Codes that may be about the clocks or about the keys.
const SIGNATURE: [&str; 4] = [
    "AuthFailure",
    "IncompleteSignature",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
];

const DENIED: [&str; 4] = [
    "AccessDenied",
    "AccessDeniedException",
    "Client.UnauthorizedOperation",
    "UnauthorizedOperation",
];

/// From here on a difference of clocks explains a refused signature, as the SDKs have it. Services take five
/// minutes (Auto Scaling and EC2) to fifteen.
const SKEW: Duration = Duration::from_mins(4);

impl Refusal {
    /// Reads the answer of a status that is no success.
    pub(super) fn read(reply: &Reply) -> Self {
        let (code, message) = json(&reply.body).or_else(|| xml(&reply.body)).unwrap_or_default();
        let code = reply
            .error_type
            .clone()
            .filter(|_| code.is_empty())
            .unwrap_or(code);
        Self {
            status: reply.status,
            code: bare(&code).to_owned(),
            message,
        }
    }

    /// What it calls for. `here` is this machine's clock, `there` the service's.
    pub(super) fn verdict(&self, here: SystemTime, there: Option<SystemTime>) -> Verdict {
        let code = self.code.as_str();
        let differ = there.is_some_and(|there| difference(here, there) > SKEW);
        let told = self.message.contains("Signature expired")
            || self.message.contains("Signature not yet current")
            || self.message.contains("is now earlier than")
            || self.message.contains("is still later than");
        if CLOCK.contains(&code) || (SIGNATURE.contains(&code) && (differ || told)) {
            Verdict::Clock
        } else if self.status == 429 || THROTTLING.contains(&code) {
            Verdict::Throttled
        } else if CREDENTIALS.contains(&code) {
            Verdict::Credentials
        } else if DENIED.contains(&code) {
            self.denied()
        } else if self.status >= 500 || self.status == 408 || PASSING.contains(&code) {
            Verdict::Passing
        } else {
            Verdict::Final
        }
    }

    /// IAM's usual words are "… is not authorized to perform: ACTION on resource: ARN because …".
    fn denied(&self) -> Verdict {
        let word = |after: &str| {
            let (_, rest) = self.message.split_once(after)?;
            let word = rest.split_whitespace().next()?.trim_end_matches(['.', ',', ';']);
            (!word.is_empty()).then(|| word.to_owned())
        };
        let key = "customer master key";
        let decrypt = || self.message.contains(key).then(|| "kms:Decrypt".to_owned());
        Verdict::Denied {
            action: word("perform: ").or_else(decrypt),
            resource: word("on resource: "),
        }
    }
}

/// How far two clocks are apart.
pub(super) fn difference(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

/// `com.amazonaws.ssm#InvalidKeyId:http://…` is `InvalidKeyId`.
fn bare(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code).trim()
}

#[derive(Deserialize)]
struct JsonError {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

fn json(body: &[u8]) -> Option<(String, String)> {
    let error: JsonError = serde_json::from_slice(body).ok()?;
    let code = if error.kind.is_empty() {
        error.code
    } else {
        error.kind
    };
    Some((code, error.message))
}

/// Auto Scaling's `ErrorResponse` and EC2's `Response` both have an `Error` somewhere.
fn xml(body: &[u8]) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let error = document
        .descendants()
        .find(|node| node.tag_name().name() == "Error")?;
    let text = |name| {
        let child = error.children().find(|node| node.tag_name().name() == name)?;
        Some(child.text().unwrap_or_default().trim().to_owned())
    };
    Some((text("Code")?, text("Message").unwrap_or_default()))
}

#[cfg(test)]
mod tests;
