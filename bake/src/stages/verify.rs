//! Owns the second look at the builder: every installed file against the bundle's manifest.
//! Touches `Remote`.

use std::time::Duration;

use super::provision::{Provisioned, succeeded};
use crate::cloud::Cloud;
use crate::error::BakeError;
use crate::events::Stage;
use crate::remote::{Remote, Script};
use crate::run::Run;

/// Longest time of one pass over all installed files.
pub(super) const VERIFY_DEADLINE: Duration = Duration::from_mins(10);

/// A builder whose every file was checked after the installation.
#[derive(Debug)]
pub struct Verified {
    pub(super) provisioned: Provisioned,
}

/// Checks every installed file on the builder.
pub async fn verify<C: Cloud, R: Remote>(
    provisioned: Provisioned,
    run: &Run<'_, C, R>,
) -> Result<Verified, BakeError> {
    run.stage(Stage::Verify, async {
        let script = Script {
            name: "verify".into(),
            text: format!(
                "exec /opt/cos/bin/cos-agent verify --manifest-sha256 {} --json",
                provisioned.manifest_sha256
            ),
            deadline: VERIFY_DEADLINE,
        };
        let instance = &provisioned.builder.instance;
        let output = run.script(instance, &script).await?;
        succeeded(&script.name, instance, output)?;
        Ok((Verified { provisioned }, "every file has its digest".to_owned()))
    })
    .await
}
