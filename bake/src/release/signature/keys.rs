//! Owns the certificates whose signatures are believed, and whether one of their keys may sign at a time.
//! Touches the one file of `--trust-key`, for reading.

use std::path::Path;

use pgp::composed::{Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails as _, Tag, Timestamp};

use super::{Issuer, SignatureError, expiry, fingerprint, is_strong, show};

/// Primary fingerprint of HashiCorp's release key (RSA 4096, 2021-04-19, expires 2030-03-01); published at
/// <https://www.hashicorp.com/trust/security>.
pub const HASHICORP_FINGERPRINT: &str = "C874011F0AB405110D02105534365D9472D7468F";

/// The key itself, as `hashicorp/hc-install` carries it.
const HASHICORP_KEY: &str = include_str!("../../../keys/hashicorp-release-key.asc");

/// Certificates whose signatures are believed.
#[derive(Debug, Clone)]
pub struct TrustedKeys {
    certificates: Vec<Certificate>,
}

/// One trusted certificate: a primary key and its subkeys.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    key: SignedPublicKey,
    fingerprint: String,
    pinned: bool,
}

impl TrustedKeys {
    /// HashiCorp's pinned key alone.
    pub fn pinned() -> Result<Self, SignatureError> {
        let Ok((key, _)) = SignedPublicKey::from_string(HASHICORP_KEY) else {
            return Err(SignatureError::PinnedKey {
                actual: "unreadable".to_owned(),
            });
        };
        let certificate = Certificate::new(key, true);
        if certificate.fingerprint != HASHICORP_FINGERPRINT {
            return Err(SignatureError::PinnedKey {
                actual: certificate.fingerprint,
            });
        }
        Ok(Self {
            certificates: vec![certificate],
        })
    }

    /// The pinned key and, if a file is named, the one key in it (armoured or binary).
    pub fn with_file(file: Option<&Path>) -> Result<Self, SignatureError> {
        let mut keys = Self::pinned()?;
        let Some(path) = file else { return Ok(keys) };
        let syntax = |source| SignatureError::KeySyntax {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::read(path).map_err(|source| SignatureError::KeyFile {
            path: path.to_owned(),
            source,
        })?;
        let (found, _) = SignedPublicKey::from_reader_many(bytes.as_slice()).map_err(syntax)?;
        let mut found = found.collect::<Result<Vec<_>, _>>().map_err(syntax)?;
        match (found.pop(), found.len()) {
            (Some(key), 0) => keys.certificates.push(Certificate::new(key, false)),
            (None, _) => {
                return Err(SignatureError::KeyCount {
                    path: path.to_owned(),
                    count: 0,
                });
            }
            (Some(_), more) => {
                return Err(SignatureError::KeyCount {
                    path: path.to_owned(),
                    count: more + 1,
                });
            }
        }
        Ok(keys)
    }

    /// Fingerprint of the key that `--trust-key` admitted, if one was.
    pub fn added(&self) -> Option<&str> {
        self.certificates
            .iter()
            .find(|certificate| !certificate.pinned)
            .map(Certificate::fingerprint)
    }

    /// The subkey that a signature names, and its certificate.
    pub(crate) fn find(
        &self,
        issuer: &Issuer,
    ) -> Result<(&Certificate, &SignedPublicSubKey), SignatureError> {
        for certificate in &self.certificates {
            if issuer.is(&certificate.key.primary_key) {
                return Err(SignatureError::PrimaryKey(certificate.fingerprint.clone()));
            }
            if let Some(subkey) = certificate
                .key
                .public_subkeys
                .iter()
                .find(|subkey| issuer.is(&subkey.key))
            {
                return Ok((certificate, subkey));
            }
        }
        let trusted: Vec<_> = self.certificates.iter().map(Certificate::fingerprint).collect();
        Err(SignatureError::UnknownSigner {
            signer: issuer.to_string(),
            trusted: trusted.join(" and "),
        })
    }
}

impl Certificate {
    fn new(key: SignedPublicKey, pinned: bool) -> Self {
        let fingerprint = fingerprint(&key.primary_key.fingerprint());
        Self {
            key,
            fingerprint,
            pinned,
        }
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub(crate) fn primary_created(&self) -> Timestamp {
        self.key.primary_key.created_at()
    }

    /// Whether primary key and subkey were good when they signed, and are good now.
    pub(crate) fn check(
        &self,
        subkey: &SignedPublicSubKey,
        signed: Timestamp,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        self.check_primary(signed, now)?;
        self.check_subkey(subkey, signed, now)
    }

    fn check_primary(&self, signed: Timestamp, now: Timestamp) -> Result<(), SignatureError> {
        let primary = &self.key.primary_key;
        let details = &self.key.details;
        // Any reason of revocation counts: a retired release key has no business signing what is baked today.
        if details
            .revocation_signatures
            .iter()
            .any(|revocation| revocation.verify_key(primary).is_ok())
        {
            return Err(SignatureError::Revoked(self.fingerprint.clone()));
        }
        let direct = details.direct_signatures.iter();
        let direct = newest(
            direct.filter(|signature| signature.verify_key(primary).is_ok()),
            now,
        );
        let users = details.users.iter().filter_map(|user| {
            let own = user.signatures.iter();
            newest(
                own.filter(|own| own.verify_certification(primary, Tag::UserId, &user.id).is_ok()),
                now,
            )
            .filter(|newest| newest.typ() != Some(SignatureType::CertRevocation))
        });
        let user = newest(users, now);
        if direct.is_none() && user.is_none() {
            return Err(SignatureError::Unbound(self.fingerprint.clone()));
        }
        // A certificate may say its expiry in both places; the earlier one counts.
        let expired = [direct, user].into_iter().flatten();
        let expired = expired
            .filter_map(|own| expiry(primary.created_at(), own.key_expiration_time()))
            .min();
        check_lifetime(&self.fingerprint, expired, signed, now)
    }

    fn check_subkey(
        &self,
        subkey: &SignedPublicSubKey,
        signed: Timestamp,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let primary = &self.key.primary_key;
        let name = fingerprint(&subkey.key.fingerprint());
        let holds = |signature: &&Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
        let of_kind = |kind| {
            subkey
                .signatures
                .iter()
                .filter(move |signature| signature.typ() == Some(kind))
        };
        if of_kind(SignatureType::SubkeyRevocation).any(|revocation| holds(&revocation)) {
            return Err(SignatureError::Revoked(name));
        }
        let binding = newest(of_kind(SignatureType::SubkeyBinding).filter(holds), now)
            .ok_or_else(|| SignatureError::Unbound(name.clone()))?;
        if !binding.key_flags().sign() {
            return Err(SignatureError::MayNotSign(name));
        }
        // The subkey must claim its primary in turn, else anyone could adopt another's signing key.
        let claims = binding.embedded_signature().is_some_and(|back| {
            is_strong(back) && back.verify_primary_key_binding(&subkey.key, primary).is_ok()
        });
        if !claims {
            return Err(SignatureError::Unbound(name));
        }
        let expired = expiry(subkey.key.created_at(), binding.key_expiration_time());
        check_lifetime(&name, expired, signed, now)
    }
}

/// The newest of some signatures that is strong and not from the future.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: Timestamp) -> Option<&'a Signature> {
    signatures
        .filter(|signature| is_strong(signature))
        .filter_map(|signature| signature.created().map(|created| (created, signature)))
        .filter(|(created, _)| *created <= now)
        .max_by_key(|(created, _)| *created)
        .map(|(_, signature)| signature)
}

fn check_lifetime(
    key: &str,
    expired: Option<Timestamp>,
    signed: Timestamp,
    now: Timestamp,
) -> Result<(), SignatureError> {
    match expired {
        Some(expired) if expired <= signed => Err(SignatureError::ExpiredAtSigning {
            key: key.to_owned(),
            expired: show(expired),
            signed: show(signed),
        }),
        Some(expired) if expired <= now => Err(SignatureError::Expired {
            key: key.to_owned(),
            expired: show(expired),
        }),
        _ => Ok(()),
    }
}
