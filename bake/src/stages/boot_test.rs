//! Owns the boot test: a machine of its own starts from the new image and proves itself.
//! Touches `Cloud` (create, wait) and `Remote`.

use std::time::Duration;

use super::image::Untested;
use super::launch;
use super::provision::last_words;
use crate::cloud::{Cloud, ImageFacts, ImageId};
use crate::error::BakeError;
use crate::events::Stage;
use crate::plan::Plan;
use crate::remote::{Remote, Script};
use crate::run::Run;

/// Longest time for the first boot to settle and all checks to run.
pub(super) const BOOT_TEST_DEADLINE: Duration = Duration::from_mins(15);

/// An image that booted and proved itself.
#[derive(Debug)]
pub struct Proven {
    pub(super) facts: ImageFacts,
    pub(super) manifest_sha256: String,
    pub(super) packages: Vec<String>,
}

/// Starts a machine from the image and runs the agent's checks on it.
pub async fn boot_test<C: Cloud, R: Remote>(
    plan: &Plan,
    untested: Untested,
    run: &Run<'_, C, R>,
) -> Result<Proven, BakeError> {
    run.stage(Stage::BootTest, async {
        let Untested {
            facts,
            manifest_sha256,
            packages,
            identity,
        } = untested;
        let spec = plan.machine("boot-test", &facts.id);
        let started = launch::start(&spec, "the boot test", run).await;
        let instance = started.map_err(|error| did_not_boot(&facts.id, error))?.id;
        let script = Script {
            name: "boot test".into(),
            text: boot_test_script(&manifest_sha256, &identity),
            deadline: BOOT_TEST_DEADLINE,
        };
        let output = run.script(&instance, &script).await?;
        if output.status != Some(0) {
            run.save_console(&instance).await;
            return Err(BakeError::BootTest {
                image: facts.id.to_string(),
                findings: last_words(&output),
            });
        }
        run.release(instance).await?;
        let outcome = format!("{} booted and proved itself", facts.id);
        Ok((
            Proven {
                facts,
                manifest_sha256,
                packages,
            },
            outcome,
        ))
    })
    .await
}

/// A machine that never takes commands, where the builder on the same base did, is the image's fault.
fn did_not_boot(image: &ImageId, error: BakeError) -> BakeError {
    match error {
        BakeError::Deadline { .. } | BakeError::Hopeless { .. } => BakeError::BootTest {
            image: image.to_string(),
            findings: error.to_string(),
        },
        other => other,
    }
}

/// Waits for the first boot's own work (host keys are made late in it), then runs every check. The status of
/// cloud-init is not judged here: the checks look at what it should have made.
fn boot_test_script(manifest_sha256: &str, identity: &str) -> String {
    let identity = identity.replace('\'', r"'\''");
    format!(
        "set -eu\n\
         if command -v cloud-init >/dev/null 2>&1; then\n\
         \x20   timeout 600 cloud-init status --wait >/dev/null 2>&1 || true\n\
         fi\n\
         exec /opt/cos/bin/cos-agent verify --manifest-sha256 {manifest_sha256} --booted --sealed-identity '{identity}' --json\n"
    )
}
