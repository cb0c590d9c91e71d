//! Owns the signature of a request (Signature Version 4), by AWS's own crate.
//! Touches nothing.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;

use super::credentials::Credentials;
use crate::error::one_line;

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
    .map_err(|error| one_line(&error))?;
    let (instructions, _) = aws_sigv4::http_request::sign(request, &parameters)
        .map_err(|error| one_line(&error))?
        .into_parts();
    let (headers, _) = instructions.into_parts();
    Ok(headers
        .into_iter()
        .map(|header| (header.name(), header.value().to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::aws::{Secret, Source};

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        body: String,
        region: String,
        service: String,
        time: String,
        access_key_id: String,
        secret_access_key: Secret,
        session_token: Option<Secret>,
        authorization: String,
    }

    fn find<'a>(headers: &'a [(&str, String)], name: &str) -> Option<&'a str> {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// AWS's own vectors; `agent/tests/aws/vectors.py` says where they are from.
    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../tests/aws/vectors.json")).unwrap();
        assert!(vectors.len() > 25);
        for vector in vectors {
            let credentials = Credentials {
                access_key_id: vector.access_key_id,
                secret_access_key: vector.secret_access_key,
                session_token: vector.session_token.clone(),
                expires: None,
                source: Source::Environment,
            };
            let host = vector.headers.iter().find(|(name, _)| name == "Host").unwrap();
            let headers: Vec<(&str, &str)> = vector
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let signable = Signable {
                method: &vector.method,
                url: &format!("https://{}{}", host.1, vector.path),
                headers: &headers,
                body: vector.body.as_bytes(),
                region: &vector.region,
                service: &vector.service,
                time: humantime::parse_rfc3339(&vector.time).unwrap(),
            };
            let signed = super::headers(&signable, &credentials).unwrap();
            assert_eq!(
                find(&signed, "authorization"),
                Some(vector.authorization.as_str()),
                "{}",
                vector.name
            );
            assert_eq!(
                find(&signed, "x-amz-security-token"),
                vector.session_token.as_ref().map(Secret::expose),
                "{}",
                vector.name
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_brings_it_down(
            body in any::<Vec<u8>>(), url in "https?://[a-z0-9.:-]{1,20}/.*", region in ".*", key in ".*",
            seconds in 0_u64..4_000_000_000
        ) {
            let credentials = Credentials {
                access_key_id: key.clone(),
                secret_access_key: Secret::new(key.clone()),
                session_token: Some(Secret::new(key)),
                expires: None,
                source: Source::Environment,
            };
            let signable = Signable {
                method: "POST",
                url: &url,
                headers: &[("content-type", "application/x-amz-json-1.1")],
                body: &body,
                region: &region,
                service: "ssm",
                time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            };
            let _ = super::headers(&signable, &credentials);
        }
    }
}
