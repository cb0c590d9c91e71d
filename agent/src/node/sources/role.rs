//! Owns the credentials of the instance's role, as the metadata service hands them out.
//! Touches the metadata service.

use std::time::SystemTime;

use serde::Deserialize;
use serde::de::Error as _;

use super::{Imds, ImdsError};
use crate::aws::Secret;

/// Temporary credentials of the instance's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleCredentials {
    /// Name of the role.
    pub role: String,
    /// Access key id; no secret.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token.
    pub session_token: Secret,
    /// When they end. The service has new ones at least five minutes before.
    pub expires: SystemTime,
}

/// Where the service lists the role, and under that its credentials.
const PATH: &str = "meta-data/iam/security-credentials/";

impl Imds {
    /// Credentials of the instance's role; none if the instance has no role (yet).
    pub fn role_credentials(&mut self) -> Result<Option<RoleCredentials>, ImdsError> {
        let Some(listed) = self.text(PATH)? else {
            return Ok(None);
        };
        let role = listed.lines().next().unwrap_or_default().trim().to_owned();
        let path = format!("{PATH}{role}");
        let Some(document) = self.get(&path)? else {
            return Ok(None);
        };
        let unreadable = |source| ImdsError::Unreadable {
            url: self.url(&path),
            source,
        };
        let document: Document = serde_json::from_slice(&document).map_err(unreadable)?;
        if document.code != "Success" {
            return Err(ImdsError::Role {
                role,
                code: document.code,
                message: document.message.unwrap_or_default(),
            });
        }
        let complete = document.complete().ok_or_else(|| {
            unreadable(serde_json::Error::custom(
                "a key, a token or a readable expiration is missing",
            ))
        })?;
        Ok(Some(RoleCredentials { role, ..complete }))
    }
}

/// The document as the EC2 User Guide shows it. Without success it has `Code` and `Message` only.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    code: String,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<Secret>,
    token: Option<Secret>,
    expiration: Option<String>,
}

impl Document {
    fn complete(self) -> Option<RoleCredentials> {
        Some(RoleCredentials {
            role: String::new(),
            access_key_id: self.access_key_id?,
            secret_access_key: self.secret_access_key?,
            session_token: self.token?,
            expires: humantime::parse_rfc3339_weak(&self.expiration?).ok()?,
        })
    }
}
