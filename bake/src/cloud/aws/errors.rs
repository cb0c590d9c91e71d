//! Owns the one conversion of what the SDK calls an error, or leaves out of an answer, into `CloudError`.
//! Touches nothing.

use std::error::Error;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;

use crate::cloud::{CloudError, CloudErrorKind};

/// An error of the SDK in COS's words.
pub(super) fn convert<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let Some(kind) = credentials_kind(&error) {
        return CloudError {
            operation,
            kind,
            code: None,
            message: chain(&error),
            request_id: None,
        };
    }
    match &error {
        SdkError::ServiceError(service) => {
            let metadata = service.err().meta();
            let status = service.raw().status().as_u16();
            let message = metadata.message().map_or_else(
                || {
                    let body = service.raw().body().bytes().unwrap_or_default();
                    visible_text(&String::from_utf8_lossy(body))
                },
                str::to_owned,
            );
            let code = metadata
                .code()
                .map_or_else(|| format!("HTTP {status}"), str::to_owned);
            CloudError {
                operation,
                kind: kind_of(&code, &message),
                code: Some(code),
                message: if message.is_empty() {
                    "no reason given".to_owned()
                } else {
                    message
                },
                request_id: metadata.request_id().map(str::to_owned),
            }
        }
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => {
            let kind = CloudErrorKind::Unreachable;
            CloudError {
                operation,
                kind,
                code: None,
                message: chain(&error),
                request_id: None,
            }
        }
        // The answer ended early or is not what the protocol says.
        SdkError::ResponseError(response) => CloudError {
            operation,
            kind: CloudErrorKind::Other,
            code: Some(format!("HTTP {}", response.raw().status().as_u16())),
            message: chain(&error),
            request_id: None,
        },
        _ => CloudError {
            operation,
            kind: CloudErrorKind::Other,
            code: None,
            message: chain(&error),
            request_id: None,
        },
    }
}

/// A field that the answer should have.
pub(crate) fn present<T>(operation: &'static str, field: &str, value: Option<T>) -> Result<T, CloudError> {
    value.ok_or_else(|| other(operation, format!("the answer has no `{field}`")))
}

/// A failure that is none of AWS's.
pub(crate) fn other(operation: &'static str, message: impl Into<String>) -> CloudError {
    own(operation, CloudErrorKind::Other, message)
}

/// A setting that is missing or wrong.
pub(super) fn configuration(operation: &'static str, message: impl Into<String>) -> CloudError {
    own(operation, CloudErrorKind::Configuration, message)
}

fn own(operation: &'static str, kind: CloudErrorKind, message: impl Into<String>) -> CloudError {
    CloudError {
        operation,
        kind,
        code: None,
        message: message.into(),
        request_id: None,
    }
}

/// Whether the same call may well succeed in a moment.
pub(crate) fn transient(error: &CloudError) -> bool {
    const SERVERS_FAULT: [&str; 6] = [
        "InternalError",
        "InternalFailure",
        "InternalServerException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
    ];
    matches!(
        error.kind,
        CloudErrorKind::Throttled | CloudErrorKind::Unreachable
    ) || error
        .code
        .as_deref()
        .is_some_and(|code| code.starts_with("HTTP 5") || SERVERS_FAULT.contains(&code))
}

/// The kind of failure behind a code of EC2, EBS direct, Systems Manager or STS. Some codes mean two things, which
/// only the message tells apart. Source: 'Error codes for the Amazon EC2 API' and each API's own list.
fn kind_of(code: &str, message: &str) -> CloudErrorKind {
    use CloudErrorKind as Kind;
    match code {
        "AuthFailure" if message.contains("ot authorized") => Kind::Denied,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnrecognizedClientException" => Kind::BadCredentials,
        "AccessDenied"
        | "AccessDeniedException"
        | "Client.UnauthorizedOperation"
        | "OperationNotPermitted"
        | "OptInRequired"
        | "UnauthorizedOperation"
        | "HTTP 401"
        | "HTTP 403" => Kind::Denied,
        "BandwidthLimitExceeded"
        | "ConcurrentLimitExceededException"
        | "EC2ThrottledException"
        | "PriorRequestNotComplete"
        | "RateExceeded"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "SnapshotCreationPerVolumeRateExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "HTTP 429" => Kind::Throttled,
        "InsufficientFreeAddressesInSubnet" | "InsufficientVolumeCapacity" => Kind::Capacity,
        "Unsupported" if message.contains("Availability Zone") => Kind::Capacity,
        "DependencyViolation" | "IncorrectInstanceState" | "IncorrectState" | "ResourceInUseException" => {
            Kind::InUse
        }
        "InvocationDoesNotExist" | "NoSuchEntity" => Kind::NotFound,
        "HTTP 502" | "HTTP 503" | "HTTP 504" => Kind::Unreachable,
        code if code.contains("NotFound") => Kind::NotFound,
        code if code.ends_with(".Duplicate") || code.contains("AlreadyExists") => Kind::Duplicate,
        code if code.ends_with("InUse") => Kind::InUse,
        code if code.starts_with("Insufficient") && code.ends_with("Capacity") => Kind::Capacity,
        _ => Kind::Other,
    }
}

/// What the credentials chain said, if the error is its: none found is one thing, found and refused another.
fn credentials_kind(error: &(dyn Error + 'static)) -> Option<CloudErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            return Some(match credentials {
                CredentialsError::CredentialsNotLoaded(_) | CredentialsError::ProviderTimedOut(_) => {
                    CloudErrorKind::NoCredentials
                }
                // The chain ends at the metadata service: whatever goes wrong there, nothing was found before it.
                _ if caused_by::<ImdsError>(error) => CloudErrorKind::NoCredentials,
                CredentialsError::InvalidConfiguration(_) => CloudErrorKind::Configuration,
                _ => CloudErrorKind::BadCredentials,
            });
        }
        next = error.source();
    }
    None
}

fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<E>() || error.source().is_some_and(caused_by::<E>)
}

/// All texts of an error and its causes, each once: the SDK's own text is only "dispatch failure".
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// The words of an answer that no API of AWS gives, such as the page of a proxy: markup dropped, the first 200
/// characters.
fn visible_text(body: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for character in body.chars() {
        match character {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            _ if !inside => text.push(character),
            _ => {}
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_kind_that_hints_and_exit_codes_need() {
        use CloudErrorKind as Kind;
        for (code, message, kind) in [
            (
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
                Kind::BadCredentials,
            ),
            ("AuthFailure", "Not authorized for images: [ami-1]", Kind::Denied),
            ("ExpiredToken", "", Kind::BadCredentials),
            ("ExpiredTokenException", "", Kind::BadCredentials),
            ("RequestExpired", "Request has expired.", Kind::BadCredentials),
            ("InvalidClientTokenId", "", Kind::BadCredentials),
            ("UnrecognizedClientException", "", Kind::BadCredentials),
            ("SignatureDoesNotMatch", "", Kind::BadCredentials),
            ("UnauthorizedOperation", "", Kind::Denied),
            ("AccessDenied", "", Kind::Denied),
            ("AccessDeniedException", "", Kind::Denied),
            ("InvalidInstanceID.NotFound", "", Kind::NotFound),
            ("InvalidAMIID.NotFound", "", Kind::NotFound),
            ("InvalidSnapshot.NotFound", "", Kind::NotFound),
            ("ParameterNotFound", "", Kind::NotFound),
            ("ResourceNotFoundException", "", Kind::NotFound),
            ("InvalidAMIName.Duplicate", "", Kind::Duplicate),
            ("VolumeInUse", "", Kind::InUse),
            ("InvalidSnapshot.InUse", "", Kind::InUse),
            ("IncorrectState", "", Kind::InUse),
            ("IncorrectInstanceState", "", Kind::InUse),
            ("InsufficientInstanceCapacity", "", Kind::Capacity),
            (
                "Unsupported",
                "not supported in your requested Availability Zone (x)",
                Kind::Capacity,
            ),
            (
                "Unsupported",
                "The requested configuration is currently not supported.",
                Kind::Other,
            ),
            ("RequestLimitExceeded", "", Kind::Throttled),
            ("ThrottlingException", "", Kind::Throttled),
            ("RequestThrottledException", "", Kind::Throttled),
            ("HTTP 503", "", Kind::Unreachable),
            ("HTTP 500", "", Kind::Other),
            ("VcpuLimitExceeded", "", Kind::Other),
            ("InvalidParameterValue", "", Kind::Other),
        ] {
            assert_eq!(kind_of(code, message), kind, "{code}: {message}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        let error = |kind, code: Option<&str>| CloudError {
            operation: "ec2:DescribeImages",
            kind,
            code: code.map(str::to_owned),
            message: String::new(),
            request_id: None,
        };
        assert!(transient(&error(
            CloudErrorKind::Throttled,
            Some("RequestLimitExceeded")
        )));
        assert!(transient(&error(CloudErrorKind::Unreachable, None)));
        assert!(transient(&error(CloudErrorKind::Other, Some("HTTP 500"))));
        assert!(transient(&error(CloudErrorKind::Other, Some("InternalError"))));
        assert!(!transient(&error(
            CloudErrorKind::Denied,
            Some("UnauthorizedOperation")
        )));
        assert!(!transient(&error(
            CloudErrorKind::Other,
            Some("InvalidParameterValue")
        )));
        assert!(!transient(&error(CloudErrorKind::Other, None)));
    }

    #[test]
    fn a_page_of_a_proxy_becomes_its_words() {
        let page = "<!doctype html>\n<html><title>502 Bad Gateway</title>\n<h1>Bad Gateway</h1></html>";
        assert_eq!(visible_text(page), "502 Bad Gateway Bad Gateway");
        assert_eq!(visible_text(""), "");
    }

    #[test]
    fn a_missing_field_names_operation_and_field() {
        let error = present::<String>("ec2:CreateImage", "ImageId", None).unwrap_err();
        assert_eq!(error.to_string(), "ec2:CreateImage: the answer has no `ImageId`");
    }
}
