//! Owns the signature of a request (Signature Version 4), by AWS's own crate.
//! Touches nothing.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;

use super::credentials::Credentials;

/// What is signed, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signable<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    /// Headers that are part of the signature; the host is one of them by itself.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    pub(super) region: &'a str,
    /// The service as IAM names it.
    pub(super) service: &'a str,
    pub(super) time: SystemTime,
}

/// The headers that carry the signature, or what cannot be signed.
pub(super) fn headers(
    signable: &Signable<'_>,
    credentials: &Credentials,
) -> Result<Vec<(&'static str, String)>, String> {
    let identity = aws_credential_types::Credentials::new(
        credentials.access_key_id.as_str(),
        credentials.secret_access_key.expose(),
        credentials
            .session_token
            .as_ref()
            .map(|token| token.expose().to_owned()),
        None,
        "cos-agent",
    )
    .into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(signable.region)
        .name(signable.service)
        .time(signable.time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let request = SignableRequest::new(
        signable.method,
        signable.url,
        signable.headers.iter().copied(),
        SignableBody::Bytes(signable.body),
    )
    .map_err(|error| told(&error))?;
    let (instructions, _) = aws_sigv4::http_request::sign(request, &parameters)
        .map_err(|error| told(&error))?
        .into_parts();
    let (headers, _) = instructions.into_parts();
    Ok(headers
        .into_iter()
        .map(|header| (header.name(), header.value().to_owned()))
        .collect())
}

/// The error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
