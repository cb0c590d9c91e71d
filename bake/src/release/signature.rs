//! Owns the judgement of detached OpenPGP signatures: who signed, with which key, and whether that key may.
//! Touches nothing; key files are read by [`TrustedKeys`].
//!
//! The rules are narrower than OpenPGP's. A file must be exactly one signature, in its one canonical
//! encoding, by a signing subkey of a trusted certificate; everything that a signature does not protect by
//! itself (its unhashed part) must agree with it. So no byte of the file can change unnoticed.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use pgp::composed::{Deserializable as _, DetachedSignature};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, Timestamp};
use thiserror::Error;

use super::FailureClass;

mod keys;

pub use keys::{HASHICORP_FINGERPRINT, TrustedKeys};

/// A signature may be dated this many seconds ahead of this machine's clock.
const CLOCK_TOLERANCE: u32 = 600;

/// Who made a signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the certificate's primary key, in upper-case hexadecimal.
    pub certificate: String,
    /// Fingerprint of the subkey that signed.
    pub subkey: String,
    /// Whether the certificate is the pinned one; else `--trust-key` admitted it.
    pub pinned: bool,
}

/// Why a signature, or a key, is refused.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The key inside cos-bake is not the pinned one: the build is damaged.
    #[error("the release key inside cos-bake is {actual}, not the pinned {HASHICORP_FINGERPRINT}")]
    PinnedKey {
        /// Fingerprint found, or `unreadable`.
        actual: String,
    },
    /// The file of `--trust-key` could not be read.
    #[error("could not read the key file {path}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of `--trust-key` is no public key.
    #[error("{path} is not an OpenPGP public key")]
    KeySyntax {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pgp::errors::Error,
    },
    /// The file of `--trust-key` has not exactly one key.
    #[error("{path} has {count} public keys; exactly one is admitted")]
    KeyCount {
        /// The file.
        path: PathBuf,
        /// Keys found.
        count: usize,
    },
    /// The file is not exactly one binary signature.
    #[error("the file is not exactly one binary detached OpenPGP signature")]
    Malformed(#[source] Option<pgp::errors::Error>),
    /// The file is a signature with parts that cannot be vouched for.
    #[error("the signature carries unprotected data: {0}")]
    Unprotected(String),
    /// The signature is not one over a document.
    #[error("the signature is of kind {0}, not one over binary data")]
    Kind(String),
    /// The digest algorithm can be forged.
    #[error("the signature of {signer} uses {algorithm}, which is too weak")]
    WeakDigest {
        /// Who signed, as far as the signature says.
        signer: String,
        /// The algorithm.
        algorithm: String,
    },
    /// The signature names a key that nobody trusts.
    #[error("the signature was made by {signer}; trusted are only {trusted}")]
    UnknownSigner {
        /// Fingerprint or key id that the signature names.
        signer: String,
        /// Fingerprints of the trusted certificates.
        trusted: String,
    },
    /// The signature is by the primary key.
    #[error("the signature was made by the primary key {0}; releases are signed by a signing subkey")]
    PrimaryKey(String),
    /// The key may not sign.
    #[error("the key {0} is not allowed to sign")]
    MayNotSign(String),
    /// The key was revoked.
    #[error("the key {0} was revoked")]
    Revoked(String),
    /// Nothing valid binds the key to its certificate.
    #[error("nothing valid binds the key {0} to its certificate")]
    Unbound(String),
    /// The key had expired when the signature was made.
    #[error("the key {key} expired at {expired}, before it signed at {signed}")]
    ExpiredAtSigning {
        /// Fingerprint.
        key: String,
        /// Time of expiry (UTC).
        expired: String,
        /// Time of the signature (UTC).
        signed: String,
    },
    /// The key has expired since.
    #[error("the key {key} expired at {expired}")]
    Expired {
        /// Fingerprint.
        key: String,
        /// Time of expiry (UTC).
        expired: String,
    },
    /// The signature itself has expired.
    #[error("the signature of {key} expired at {expired}")]
    SignatureExpired {
        /// Fingerprint.
        key: String,
        /// Time of expiry (UTC).
        expired: String,
    },
    /// The date of the signature cannot be.
    #[error("the signature of {key} is dated {signed}, {fault}")]
    Date {
        /// Fingerprint.
        key: String,
        /// Time of the signature (UTC).
        signed: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The bytes are not those that were signed.
    #[error("the data is not what {key} signed")]
    Mismatch {
        /// Fingerprint.
        key: String,
        /// The crate's reason.
        #[source]
        source: pgp::errors::Error,
    },
}

impl SignatureError {
    /// The class of the failure.
    pub fn exit_class(&self) -> FailureClass {
        match self {
            Self::KeyFile { .. } | Self::KeySyntax { .. } | Self::KeyCount { .. } => FailureClass::Usage,
            _ => FailureClass::Verification,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::PinnedKey { .. } => "this build of cos-bake is damaged; install it again",
            Self::KeyFile { .. } | Self::KeySyntax { .. } | Self::KeyCount { .. } => {
                "give --trust-key a file with one public key, as `gpg --export --armor KEY` writes it"
            }
            Self::UnknownSigner { .. } => {
                "a mirror that signs with a key of its own needs --trust-key FILE; from the publisher itself \
                 this must not happen"
            }
            Self::Expired { .. } => {
                "check this machine's clock; if it is right, a newer cos-bake carries the renewed key"
            }
            Self::Date { .. } => "check this machine's clock",
            _ => "the release was damaged or replaced: do not use it; try the publisher instead of a mirror",
        };
        Some(hint.to_owned())
    }
}

/// Judges `signature` over `data` at the time `now`.
pub fn verify(
    keys: &TrustedKeys,
    data: &[u8],
    signature: &[u8],
    now: SystemTime,
) -> Result<Signer, SignatureError> {
    let now = Timestamp::try_from(now).map_err(|_| SignatureError::Date {
        key: "unknown".to_owned(),
        signed: "unknown".to_owned(),
        fault: "and this machine's clock is out of OpenPGP's range",
    })?;
    let signature = parse(signature)?;
    let issuer = Issuer::of(&signature)?;
    check_digest(&signature, &issuer.to_string())?;
    let (certificate, subkey) = keys.find(&issuer)?;
    check_unhashed(&signature)?;

    let name = fingerprint(&subkey.key.fingerprint());
    let signed = signature.created().ok_or_else(|| SignatureError::Date {
        key: name.clone(),
        signed: "never".to_owned(),
        fault: "but must say when it was made",
    })?;
    let date = |fault| SignatureError::Date {
        key: name.clone(),
        signed: show(signed),
        fault,
    };
    if signed.as_secs() > now.as_secs().saturating_add(CLOCK_TOLERANCE) {
        return Err(date("in the future"));
    }
    if signed < subkey.key.created_at() || signed < certificate.primary_created() {
        return Err(date("before its key existed"));
    }
    signature
        .verify(&subkey.key, data)
        .map_err(|source| SignatureError::Mismatch {
            key: name.clone(),
            source,
        })?;
    certificate.check(subkey, signed, now)?;
    if let Some(expired) = expiry(signed, signature.signature_expiration_time())
        && expired <= now
    {
        return Err(SignatureError::SignatureExpired {
            key: name,
            expired: show(expired),
        });
    }
    Ok(Signer {
        certificate: certificate.fingerprint().to_owned(),
        subkey: name,
        pinned: certificate.is_pinned(),
    })
}

/// Reads exactly one signature over binary data, in canonical encoding.
fn parse(bytes: &[u8]) -> Result<Signature, SignatureError> {
    let malformed = |source| SignatureError::Malformed(Some(source));
    let mut signatures = DetachedSignature::from_bytes_many(bytes).map_err(malformed)?;
    let first = signatures
        .next()
        .ok_or(SignatureError::Malformed(None))?
        .map_err(malformed)?;
    // Written again it must give the same bytes: this refuses a second packet, packets that the parser
    // skips, and lengths and integers written in another way.
    if first.to_bytes().map_err(malformed)? != bytes {
        return Err(SignatureError::Malformed(None));
    }
    let signature = first.signature;
    if signature.version() != SignatureVersion::V4 && signature.version() != SignatureVersion::V6 {
        return Err(SignatureError::Kind(format!("version {:?}", signature.version())));
    }
    match signature.typ() {
        Some(SignatureType::Binary) => Ok(signature),
        other => Err(SignatureError::Kind(
            other.map_or_else(|| "unknown".to_owned(), |kind| format!("{kind:?}")),
        )),
    }
}

/// Refuses digests that can be made to collide.
fn check_digest(signature: &Signature, signer: &str) -> Result<(), SignatureError> {
    if is_strong(signature) {
        return Ok(());
    }
    let algorithm = signature
        .hash_alg()
        .map_or_else(|| "no digest".to_owned(), |algorithm| algorithm.to_string());
    Err(SignatureError::WeakDigest {
        signer: signer.to_owned(),
        algorithm,
    })
}

fn is_strong(signature: &Signature) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    signature
        .hash_alg()
        .is_some_and(|algorithm| matches!(algorithm, Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

/// Beyond the issuer, which [`Issuer`] compares, nothing may stand where the signature does not reach; and
/// nothing critical that this code does not understand where it does.
fn check_unhashed(signature: &Signature) -> Result<(), SignatureError> {
    let Some(config) = signature.config() else {
        return Err(SignatureError::Malformed(None));
    };
    for packet in config.unhashed_subpackets() {
        let issuer = matches!(
            packet.data,
            SubpacketData::IssuerKeyId(_) | SubpacketData::IssuerFingerprint(_)
        );
        if !issuer || packet.is_critical {
            return Err(SignatureError::Unprotected(format!(
                "subpacket {:?}",
                packet.typ()
            )));
        }
    }
    for packet in config.hashed_subpackets().filter(|packet| packet.is_critical) {
        let unknown = matches!(
            packet.data,
            SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_)
        );
        if unknown {
            return Err(SignatureError::Kind(format!(
                "one with the unknown critical subpacket {:?}",
                packet.typ()
            )));
        }
    }
    Ok(())
}

/// The key that a signature says it was made by.
pub(crate) struct Issuer {
    fingerprints: Vec<pgp::types::Fingerprint>,
    key_ids: Vec<pgp::types::KeyId>,
}

impl Issuer {
    fn of(signature: &Signature) -> Result<Self, SignatureError> {
        let fingerprints: Vec<_> = signature.issuer_fingerprint().into_iter().cloned().collect();
        let key_ids: Vec<_> = signature.issuer_key_id().into_iter().copied().collect();
        if fingerprints.is_empty() && key_ids.is_empty() {
            return Err(SignatureError::Unprotected(
                "it does not name the key that made it".to_owned(),
            ));
        }
        Ok(Self {
            fingerprints,
            key_ids,
        })
    }

    /// Whether every name in the signature is this key's.
    fn is(&self, key: &impl pgp::types::KeyDetails) -> bool {
        self.fingerprints.iter().all(|named| *named == key.fingerprint())
            && self.key_ids.iter().all(|named| *named == key.legacy_key_id())
    }
}

impl std::fmt::Display for Issuer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.fingerprints.first(), self.key_ids.first()) {
            (Some(named), _) => write!(formatter, "{named:X}"),
            (None, Some(named)) => write!(formatter, "key id {}", named.to_string().to_uppercase()),
            (None, None) => formatter.write_str("nobody"),
        }
    }
}

/// A fingerprint as people compare it: upper-case hexadecimal.
fn fingerprint(fingerprint: &pgp::types::Fingerprint) -> String {
    format!("{fingerprint:X}")
}

/// When something made at `from` ends; a missing or zero lifetime is none (RFC 9580, 5.2.3.13).
fn expiry(from: Timestamp, lifetime: Option<pgp::types::Duration>) -> Option<Timestamp> {
    let seconds = lifetime
        .map(pgp::types::Duration::as_secs)
        .filter(|&seconds| seconds != 0)?;
    Some(Timestamp::from_secs(from.as_secs().saturating_add(seconds)))
}

/// A time for messages, in UTC.
fn show(time: Timestamp) -> String {
    jiff::Timestamp::from_second(i64::from(time.as_secs()))
        .map_or_else(|_| format!("{time:?}"), |at| at.to_string())
}

#[cfg(test)]
mod tests;
