//! Owns the manifest: what a bake hands on, versioned, as JSON.
//! Touches nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::Stage;

/// Version of [`Manifest`].
pub const MANIFEST_VERSION: u32 = 1;

/// What a bake hands on to Terraform and to CI.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Always [`MANIFEST_VERSION`].
    pub version: u32,
    /// Id of the bake.
    pub bake_id: String,
    /// Id of the image.
    pub image: String,
    /// Name of the image.
    pub name: String,
    /// Region that it is in.
    pub region: String,
    /// Architecture in EC2's words.
    pub arch: String,
    /// What it was made from.
    pub base: BaseRecord,
    /// Snapshots behind it.
    pub snapshots: Vec<String>,
    /// Tags on image and snapshots.
    pub tags: BTreeMap<String, String>,
    /// What was installed.
    pub components: BTreeMap<String, ComponentRecord>,
    /// SHA-256 of the bundle.
    pub bundle_sha256: String,
    /// SHA-256 of the bundle's manifest, which lies on every node as `/opt/cos/manifest.json`.
    pub bundle_manifest_sha256: String,
    /// Packages that the builder installed from the base's repositories.
    pub packages: Vec<String>,
    /// How long each stage took.
    pub phases: Vec<Phase>,
}

/// The base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// `al1`, `al2` or `al2023`.
    pub base: String,
    /// Id.
    pub image: String,
    /// Name.
    pub name: String,
    /// When Amazon made it.
    pub created: String,
    /// What EC2 says of it; a stand-in of the sandbox says so here.
    pub description: String,
}

/// One installed product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Version.
    pub version: String,
    /// `signed`, `first-use` or `own`.
    pub trust: cos_agent::bundle::Trust,
    /// SHA-256 of the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Phase {
    /// Which.
    pub stage: Stage,
    /// Wall time.
    pub seconds: f64,
}
