//! Owns what can go wrong between an upstream and a verified archive, and the class of each failure.
//! Touches nothing.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::signature::SignatureError;
use super::{Arch, Product};
use crate::digest::{Digest, DigestMismatch};

/// What a failure means to the one who called; the command maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The request cannot be served as it is written: wrong version, file, option.
    Usage,
    /// Bytes, digests or signatures do not fit: nothing may be baked from them.
    Verification,
    /// This machine failed: disk, permissions.
    Machine,
    /// An upstream cannot be reached or answers with an error.
    Network,
}

/// A release that could not be had, or must not be used.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// The mirror's address is no address.
    #[error("`{0}` is not an http or https address of a mirror")]
    MirrorAddress(String),
    /// The mirror's address carries a user name or a password.
    #[error("the mirror's address carries a user name or a password")]
    MirrorSecret,
    /// The version holds characters that no release has.
    #[error("`{version}` is not a version of {product}")]
    VersionSyntax {
        /// Product that was asked for.
        product: Product,
        /// Version that was asked for.
        version: String,
    },
    /// Upstream does not have the version.
    #[error("{product} {version} does not exist at {url}")]
    NoSuchVersion {
        /// Product that was asked for.
        product: Product,
        /// Version that was asked for.
        version: String,
        /// Address that answered 404.
        url: String,
    },
    /// Upstream has the version for none of the architectures that were asked for.
    #[error("{product} {version} has no archive for {arches}")]
    NoArchive {
        /// Product that was asked for.
        product: Product,
        /// Version that was asked for.
        version: String,
        /// Architectures, separated by commas.
        arches: String,
    },
    /// The listing has no stable version.
    #[error("{url} lists no stable version of {product}")]
    NoStableVersion {
        /// Product that was asked for.
        product: Product,
        /// Address of the listing.
        url: String,
    },
    /// An answer that should be a list cannot be read.
    #[error("{url} is not a readable {what}")]
    Malformed {
        /// Address of the answer.
        url: String,
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// `SHA256SUMS` has no signature beside it.
    #[error("{url} has no signature at {signature_url}")]
    Unsigned {
        /// Address of the digest list.
        url: String,
        /// Address where the signature should be.
        signature_url: String,
    },
    /// A key that should be trusted cannot be.
    #[error("could not set up the keys to trust")]
    Keys(#[source] Box<SignatureError>),
    /// The signature of a digest list is refused.
    #[error(
        "the signature of {url} is refused (the list has SHA-256 {sha256}, its signature {signature_sha256})"
    )]
    Signature {
        /// Address of the digest list.
        url: String,
        /// Digest of the digest list.
        sha256: Digest,
        /// Digest of its signature.
        signature_sha256: Digest,
        /// Why.
        #[source]
        source: Box<SignatureError>,
    },
    /// Bytes do not have the digest that they must have.
    #[error("a release differs from what was signed or locked")]
    Digest(#[source] DigestMismatch),
    /// A download is longer or shorter than locked.
    #[error("{url} has {actual} bytes, expected {expected}")]
    Size {
        /// Address of the download.
        url: String,
        /// Bytes locked.
        expected: u64,
        /// Bytes seen; for a longer download, those until it was dropped.
        actual: u64,
    },
    /// An answer is larger than anything sane.
    #[error("{url} gives more than {limit} bytes")]
    TooLarge {
        /// Address of the answer.
        url: String,
        /// Most bytes taken.
        limit: u64,
    },
    /// Upstream cannot be reached, or broke off, on every attempt.
    #[error("could not download {url} in {attempts} attempts")]
    Unreachable {
        /// Address of the download.
        url: String,
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        #[source]
        source: reqwest::Error,
    },
    /// Upstream answers with an error.
    #[error("{url} answers {status}")]
    Status {
        /// Address of the download.
        url: String,
        /// HTTP status.
        status: reqwest::StatusCode,
    },
    /// Upstream redirects in a circle, or from https to http.
    #[error("a download was led astray")]
    Redirected(#[source] reqwest::Error),
    /// The HTTP client could not be made.
    #[error("could not set up downloads")]
    Client(#[source] reqwest::Error),
    /// No folder to keep archives in.
    #[error("neither XDG_CACHE_HOME nor HOME names a folder for the cache")]
    NoCacheFolder,
    /// A file of this machine could not be read or written.
    #[error("could not use {path}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock has no archive of a product for an architecture.
    #[error("the lock has no {product} for {arch}")]
    NotLocked {
        /// Product that is missing.
        product: Product,
        /// Architecture that it is missing for.
        arch: Arch,
    },
    /// The lock's bytes are not those that its checksum covers.
    #[error("{path} was changed: its content has SHA-256 {actual}, its checksum line records {recorded}")]
    LockDamaged {
        /// The lock.
        path: PathBuf,
        /// What the checksum line records.
        recorded: String,
        /// Digest of the file without that line.
        actual: Digest,
    },
    /// The lock's checksum is right, but it cannot be read.
    #[error("{path} is not a lock that this cos-bake reads")]
    LockSyntax {
        /// The lock.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Upstream serves other bytes under a version that is locked.
    #[error("{product} {version} for {arch} is not what was locked before")]
    ChangedUpstream {
        /// Product.
        product: Product,
        /// Version, the same in both.
        version: String,
        /// Architecture.
        arch: Arch,
        /// Both digests.
        #[source]
        source: Box<DigestMismatch>,
    },
    /// The lock trusts a signer whom this run does not.
    #[error("{product} {version} was signed by {signer}, whom this run does not trust")]
    UntrustedSigner {
        /// Product.
        product: Product,
        /// Version.
        version: String,
        /// Fingerprint of the certificate.
        signer: String,
    },
    /// An archive has the right digest, but cannot be read or used.
    #[error("{path} cannot be put into a bundle: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// There is no agent to put into the bundle.
    #[error("no cos-agent for {arch}: looked at {looked}")]
    NoAgent {
        /// Architecture.
        arch: Arch,
        /// Where it was looked for.
        looked: String,
    },
    /// The agent cannot run on the architecture.
    #[error("{path} is not a Linux program for {arch}: {reason}")]
    WrongAgent {
        /// The file.
        path: PathBuf,
        /// Architecture.
        arch: Arch,
        /// What it is instead.
        reason: String,
    },
}

impl From<DigestMismatch> for ReleaseError {
    fn from(mismatch: DigestMismatch) -> Self {
        Self::Digest(mismatch)
    }
}

impl From<SignatureError> for ReleaseError {
    fn from(error: SignatureError) -> Self {
        Self::Keys(Box::new(error))
    }
}

impl ReleaseError {
    /// The class of the failure.
    pub fn exit_class(&self) -> FailureClass {
        match self {
            Self::MirrorAddress(_)
            | Self::MirrorSecret
            | Self::VersionSyntax { .. }
            | Self::NoSuchVersion { .. }
            | Self::NoArchive { .. }
            | Self::NoStableVersion { .. }
            | Self::NoCacheFolder
            | Self::NotLocked { .. }
            | Self::NoAgent { .. }
            | Self::WrongAgent { .. } => FailureClass::Usage,
            Self::Keys(source) | Self::Signature { source, .. } => source.exit_class(),
            Self::Unsigned { .. }
            | Self::Digest(_)
            | Self::Size { .. }
            | Self::LockDamaged { .. }
            | Self::LockSyntax { .. }
            | Self::ChangedUpstream { .. }
            | Self::UntrustedSigner { .. }
            | Self::Archive { .. } => FailureClass::Verification,
            // A flipped byte in `SHA256SUMS` cannot come here: the signature is judged before the list is read.
            Self::Malformed { .. }
            | Self::Redirected(_)
            | Self::TooLarge { .. }
            | Self::Unreachable { .. }
            | Self::Status { .. } => FailureClass::Network,
            Self::Client(_) | Self::File { .. } => FailureClass::Machine,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::MirrorAddress(_) => "give an address such as http://127.0.0.1:8480",
            Self::MirrorSecret => {
                "addresses are shown and stand in cos.lock: serve the mirror where it needs no password"
            }
            Self::VersionSyntax { .. } => "give a version such as 1.11.0, without a leading `v`",
            Self::NoSuchVersion { .. } | Self::NoArchive { .. } => {
                "ask for a version that upstream publishes, or for none to take the latest stable one"
            }
            Self::NoStableVersion { .. } | Self::Malformed { .. } => {
                "check that the address serves upstream's own layout (_docs/architecture.md), not a login page"
            }
            Self::Unsigned { .. } => "a mirror must carry the .sig file beside SHA256SUMS",
            Self::Keys(source) | Self::Signature { source, .. } => return source.hint(),
            Self::Digest(_) | Self::Size { .. } => {
                "the file was damaged or replaced: compare it with upstream's, and do not lock it anew \
                 before you know why"
            }
            Self::TooLarge { .. } => "check that the address serves what its name says",
            Self::Unreachable { .. } | Self::Status { .. } => {
                "check the network and proxy, or use a mirror (--mirror URL, COS_MIRROR)"
            }
            Self::Redirected(_) => "check that the address is the publisher's or the mirror's own",
            Self::Client(_) => "check the proxy variables and the machine's root certificates",
            Self::NoCacheFolder => "set XDG_CACHE_HOME to a folder that can be written",
            Self::File { .. } => "check that the path exists, its permissions, and the space of its disk",
            Self::LockDamaged { .. } => {
                "restore the file from version control, or write it anew with `cos-bake lock`"
            }
            Self::LockSyntax { .. } => "write it anew with `cos-bake lock` of this version",
            Self::ChangedUpstream { .. } => {
                "a published version must not change: find out which is right; to accept the new bytes, remove \
                 cos.lock and lock again"
            }
            Self::UntrustedSigner { .. } => {
                "give the key that signed with --trust-key FILE, or lock from the publisher"
            }
            Self::Archive { .. } => {
                "choose another version, or report it: the layout of upstream's archive has changed"
            }
            Self::NoAgent { .. } => {
                "build it with `cargo build --profile agent -p cos-agent`, or name it with --agent PATH"
            }
            Self::WrongAgent { .. } => {
                "name a cos-agent that was built for the architecture with --agent PATH"
            }
            Self::NotLocked { .. } => "run `cos-bake lock`; the upstream may not have this architecture",
        };
        Some(hint.to_owned())
    }
}
