//! Owns the types of the bundle that the baker writes and the agent installs: manifest and payload header.
//! Touches nothing.
//!
//! The chain of trust runs through here: archive digest → [`BundleManifest`] → installed file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of [`BundleManifest`] that this code reads and writes.
pub const MANIFEST_VERSION: u32 = 1;

/// Name of the manifest inside the bundle; always the first entry of the tar.
pub const MANIFEST_NAME: &str = "manifest.json";

/// Where the manifest lies on a node, beside the files that it describes.
pub const INSTALLED_MANIFEST: &str = "/opt/cos/manifest.json";

/// First bytes of a payload volume.
pub const PAYLOAD_MAGIC: &str = "COS-PAYLOAD-1\n";

/// Offset of the bundle on the payload volume, in bytes: one EBS direct block (512 KiB).
pub const PAYLOAD_BUNDLE_OFFSET: u64 = 512 * 1024;

/// Everything that a bundle puts on a machine, and where each byte of it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// Always [`MANIFEST_VERSION`].
    pub version: u32,
    /// Machine architecture in EC2's words: `x86_64` or `arm64`.
    pub arch: String,
    /// What is in the bundle, by name: `nomad`, `consul`, `docker`, `cni`, `cos-agent`.
    pub components: BTreeMap<String, Component>,
    /// Directories to make, in this order, parents first.
    pub directories: Vec<Directory>,
    /// Files to install, sorted by path.
    pub files: Vec<InstalledFile>,
    /// Symbolic links to make, sorted by path.
    pub links: Vec<Link>,
    /// System users to make, each with a group of its own name.
    pub users: Vec<User>,
}

/// One product in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Upstream version without a leading `v`.
    pub version: String,
    /// How its bytes came to be trusted.
    pub trust: Trust,
    /// The archive that carries it, by its name inside the bundle (`archives/…`); none for COS's own files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
}

/// How the bytes of a component came to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// An OpenPGP signature by a pinned key covers the digest.
    Signed,
    /// Upstream signs nothing; the digest was taken from the first download and is locked since.
    FirstUse,
    /// Built from COS's own sources.
    Own,
}

/// An upstream archive, kept in the bundle as it was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Entry of the bundle's tar, such as `archives/nomad_1.11.0_linux_amd64.zip`.
    pub entry: String,
    /// Format of the archive.
    pub format: ArchiveFormat,
    /// SHA-256 of the archive, in lower-case hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub size: u64,
}

/// Formats in which upstream ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveFormat {
    /// A zip file (HashiCorp).
    Zip,
    /// A tar file compressed with gzip (Docker, CNI).
    TarGz,
}

/// A directory on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Permission bits, such as `0o755`, written in JSON as a decimal number.
    pub mode: u32,
    /// Owner and group; a name of [`BundleManifest::users`] or `root`.
    pub owner: String,
    /// Whether the image must be sealed with nothing inside it (node identities live there).
    #[serde(default)]
    pub sealed_empty: bool,
}

/// A file on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledFile {
    /// Absolute path.
    pub path: String,
    /// Permission bits. Owner and group are root.
    pub mode: u32,
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub size: u64,
    /// Where in the bundle its content is.
    pub source: Source,
}

/// Where in the bundle the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A member of a component's archive.
    Member {
        /// Name in [`BundleManifest::components`].
        component: String,
        /// Path inside the archive.
        member: String,
    },
    /// An entry of the bundle's own tar, such as `files/usr/local/bin/cos-agent`.
    Entry(String),
}

/// A symbolic link on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Absolute path of the link.
    pub path: String,
    /// What it points to.
    pub target: String,
}

/// A system user on the node, with a group of the same name and no login shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name of user and group.
    pub name: String,
    /// Home directory.
    pub home: String,
}

/// First block of a payload volume: [`PAYLOAD_MAGIC`], then this as one line of JSON, then zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadHeader {
    /// SHA-256 of the bundle (the tar), in lower-case hexadecimal.
    pub bundle_sha256: String,
    /// Length of the bundle in bytes; it starts at [`PAYLOAD_BUNDLE_OFFSET`].
    pub bundle_size: u64,
    /// SHA-256 of the manifest inside the bundle.
    pub manifest_sha256: String,
    /// Offset of the agent's binary on the volume, in bytes, for the few lines of shell that start it.
    pub agent_offset: u64,
    /// Length of the agent's binary in bytes.
    pub agent_size: u64,
    /// SHA-256 of the agent's binary.
    pub agent_sha256: String,
}
