//! Owns fault rules: `SERVICE:OPERATION[:nth=N|:first=N]:EFFECT`, which calls they hit, and what they do.
//! Touches nothing.
//!
//! SERVICE is a signing name (`ec2`, `ssm`, `ebs`, `sts`, …), OPERATION an API action; `*` is any. Calls that match are
//! counted from 1 for each rule; without `nth` or `first` the rule hits every one. EFFECT is one of
//!
//! - `error=500`, `error=503`: the service's own internal or unavailable error; nothing is done
//! - `error=CODE`: that error code with status 400 (403 for the codes of credentials); nothing is done
//! - `throttle`: the service's own throttling error; nothing is done
//! - `drop`: it is done, and the connection is cut instead of a reply
//! - `hang=SECONDS`: the reply is held back that long; it is done first
//! - `not-found=N`: the first N calls answer that the thing is not found (EC2's eventual consistency)

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

use super::call::Call;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    service: String,
    operation: String,
    hits: Hits,
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hits {
    Every,
    Nth(u64),
    First(u64),
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It is answered by an error and not done.
    Error(ErrorKind),
    /// It is done, and the reply is lost.
    Drop,
    /// It is done, and the reply comes late.
    Hang(Duration),
}

/// Which error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Status 500.
    Internal,
    /// Status 503.
    Unavailable,
    /// The service's throttling error.
    Throttle,
    /// The service's not-found error for the operation.
    NotFound,
    /// A code of one's own.
    Code(String),
}

impl ErrorKind {
    /// Status and error code as the service of this call gives them.
    pub fn shape(&self, call: &Call) -> (StatusCode, String) {
        let bad = StatusCode::BAD_REQUEST;
        let (status, code) = match (self, call.service.as_str()) {
            (Self::Internal, "ssm") => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
            (Self::Internal, "ebs") => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerException"),
            (Self::Internal, _) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            (Self::Unavailable, "ec2") => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            (Self::Unavailable, _) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            (Self::Throttle, "ec2") => (StatusCode::SERVICE_UNAVAILABLE, "RequestLimitExceeded"),
            (Self::Throttle, "ebs") => (bad, "RequestThrottledException"),
            (Self::Throttle, "ssm") => (bad, "ThrottlingException"),
            (Self::Throttle, _) => (bad, "Throttling"),
            (Self::NotFound, "ec2") => (bad, ec2_not_found(&call.operation)),
            (Self::NotFound, "ssm") if call.operation.contains("Parameter") => (bad, "ParameterNotFound"),
            (Self::NotFound, "ssm") => (bad, "InvocationDoesNotExist"),
            (Self::NotFound, "iam") => (StatusCode::NOT_FOUND, "NoSuchEntity"),
            (Self::NotFound, _) => (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
            (Self::Code(code), _) => {
                let denied = [
                    "AuthFailure",
                    "ExpiredToken",
                    "RequestExpired",
                    "AccessDenied",
                    "Unauthorized",
                ];
                let denied =
                    denied.iter().any(|it| code.starts_with(it)) || code.starts_with("InvalidClientTokenId");
                return (if denied { StatusCode::FORBIDDEN } else { bad }, code.clone());
            }
        };
        (status, code.to_owned())
    }
}

fn ec2_not_found(operation: &str) -> &'static str {
    let codes = [
        ("Image", "InvalidAMIID.NotFound"),
        ("Snapshot", "InvalidSnapshot.NotFound"),
        ("Volume", "InvalidVolume.NotFound"),
        ("Instance", "InvalidInstanceID.NotFound"),
        ("Console", "InvalidInstanceID.NotFound"),
    ];
    codes
        .iter()
        .find(|(word, _)| operation.contains(word))
        .map_or("InvalidID", |(_, code)| code)
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("fault '{text}': {why}; use SERVICE:OPERATION[:nth=N|:first=N]:EFFECT");
        let parts: Vec<&str> = text.split(':').collect();
        let (service, operation, hits, effect) = match parts.as_slice() {
            [service, operation, effect] => (service, operation, None, effect),
            [service, operation, hits, effect] => (service, operation, Some(hits), effect),
            _ => return Err(wrong("three or four parts are expected")),
        };
        let number = |value: &str| {
            value
                .parse::<u64>()
                .map_err(|_| wrong("a number is expected after '='"))
        };
        let mut hits = match hits.map(|it| it.split_once('=').unwrap_or((it, ""))) {
            None => Hits::Every,
            Some(("nth", value)) => Hits::Nth(number(value)?),
            Some(("first", value)) => Hits::First(number(value)?),
            Some(_) => return Err(wrong("the third part is nth=N or first=N")),
        };
        let effect = match effect.split_once('=').unwrap_or((effect, "")) {
            ("error", "500") => Effect::Error(ErrorKind::Internal),
            ("error", "503") => Effect::Error(ErrorKind::Unavailable),
            ("error", code) if code.starts_with(|it: char| it.is_ascii_alphabetic()) => {
                Effect::Error(ErrorKind::Code(code.to_owned()))
            }
            ("throttle", "") => Effect::Error(ErrorKind::Throttle),
            ("drop", "") => Effect::Drop,
            ("hang", value) => Effect::Hang(Duration::from_secs(number(value)?)),
            ("not-found", value) => {
                hits = Hits::First(number(value)?);
                Effect::Error(ErrorKind::NotFound)
            }
            _ => {
                return Err(wrong(
                    "the effect is error=…, throttle, drop, hang=SECONDS or not-found=N",
                ));
            }
        };
        Ok(Self {
            text: text.to_owned(),
            service: (*service).to_owned(),
            operation: (*operation).to_owned(),
            hits,
            effect,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The rules of a sandbox, and how many calls each has seen.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<(Rule, u64)>>,
}

impl Faults {
    /// Begins with these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: Mutex::new(rules.into_iter().map(|rule| (rule, 0)).collect()),
        }
    }

    /// Adds a rule.
    pub fn add(&self, rule: Rule) {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((rule, 0));
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The rules as text.
    pub fn list(&self) -> Vec<String> {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(rule, _)| rule.to_string())
            .collect()
    }

    /// Counts a call, and says what the first rule that hits it does.
    pub fn decide(&self, call: &Call) -> Option<Effect> {
        let mut decided = None;
        for (rule, seen) in self
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
        {
            let matches = |pattern: &str, name: &str| pattern == "*" || pattern.eq_ignore_ascii_case(name);
            if !matches(&rule.service, &call.service) || !matches(&rule.operation, &call.operation) {
                continue;
            }
            *seen += 1;
            let hit = match rule.hits {
                Hits::Every => true,
                Hits::Nth(number) => *seen == number,
                Hits::First(number) => *seen <= number,
            };
            if hit && decided.is_none() {
                decided = Some(rule.effect.clone());
            }
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: &str, operation: &str) -> Call {
        Call {
            service: service.into(),
            operation: operation.into(),
        }
    }

    #[test]
    fn the_nth_call_is_hit_and_no_other() {
        let faults = Faults::new(vec!["ec2:CreateImage:nth=2:error=500".parse().unwrap()]);
        let it = call("ec2", "CreateImage");
        assert_eq!(faults.decide(&it), None);
        assert_eq!(faults.decide(&call("ec2", "DescribeImages")), None);
        assert_eq!(faults.decide(&it), Some(Effect::Error(ErrorKind::Internal)));
        assert_eq!(faults.decide(&it), None);
    }

    #[test]
    fn not_found_ends_after_its_number() {
        let faults = Faults::new(vec!["ec2:DescribeImages:not-found=1".parse().unwrap()]);
        let it = call("ec2", "DescribeImages");
        let Some(Effect::Error(kind)) = faults.decide(&it) else {
            panic!("no fault")
        };
        assert_eq!(
            kind.shape(&it),
            (StatusCode::BAD_REQUEST, "InvalidAMIID.NotFound".to_owned())
        );
        assert_eq!(faults.decide(&it), None);
    }

    #[test]
    fn wrong_rules_say_why() {
        for text in [
            "ec2",
            "ec2:A:nth=x:drop",
            "ec2:A:often:drop",
            "ec2:A:explode",
            "ec2:A:error=",
            "ec2:A:hang=",
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.starts_with(&format!("fault '{text}'")), "{error}");
        }
    }

    #[test]
    fn each_service_throttles_in_its_own_words() {
        let shape = |service| ErrorKind::Throttle.shape(&call(service, "X")).1;
        assert_eq!(
            [shape("ec2"), shape("ssm"), shape("ebs")],
            [
                "RequestLimitExceeded",
                "ThrottlingException",
                "RequestThrottledException"
            ]
        );
    }
}
