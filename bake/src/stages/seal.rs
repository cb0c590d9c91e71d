//! Owns the end of the builder: its identity and traces are removed, and it stops.
//! Touches `Remote` and `Cloud` (stop, wait).

use std::time::Duration;

use cos_agent::builder::SealReport;

use super::provision::{report, succeeded};
use super::verify::Verified;
use crate::cloud::{Cloud, InstanceId, InstanceState};
use crate::error::BakeError;
use crate::events::Stage;
use crate::remote::{Remote, Script};
use crate::run::Run;
use crate::wait::Seen;

/// Longest time for the first boot's own work to end, and for the sealing itself.
pub(super) const SEAL_DEADLINE: Duration = Duration::from_mins(15);

/// A machine takes commands before its first boot has ended: what cloud-init still writes must not come after the seal.
const SEAL_SCRIPT: &str = "\
set -eu
if command -v cloud-init >/dev/null 2>&1; then
    timeout 600 cloud-init status --wait >/dev/null 2>&1 || true
fi
exec /opt/cos/bin/cos-agent seal --json
";

/// Longest time from the order to stop to stopped: 30 to 112 s were seen, metal takes far longer.
pub(super) const STOP_DEADLINE: Duration = Duration::from_mins(20);

/// A stopped builder whose disk is ready to be an image.
#[derive(Debug)]
pub struct Sealed {
    pub(super) instance: InstanceId,
    pub(super) manifest_sha256: String,
    pub(super) packages: Vec<String>,
    /// The builder's identity as the agent printed it, for the boot test to compare with.
    pub(super) identity: String,
}

/// Removes the builder's identity and traces, then stops it.
pub async fn seal<C: Cloud, R: Remote>(verified: Verified, run: &Run<'_, C, R>) -> Result<Sealed, BakeError> {
    run.stage(Stage::Seal, async {
        let provisioned = verified.provisioned;
        let instance = provisioned.builder.instance;
        let script = Script {
            name: "seal".into(),
            text: SEAL_SCRIPT.into(),
            deadline: SEAL_DEADLINE,
        };
        let output = run.script(&instance, &script).await?;
        let output = succeeded(&script.name, &instance, output)?;
        // The agent's own words are handed on; that they are what it takes back is found out here, not an hour later.
        let SealReport { .. } = report(&script.name, &instance, &output)?;
        let identity = output.stdout.trim().to_owned();
        run.cloud
            .stop(&instance)
            .await
            .map_err(BakeError::cloud(format!("stop {instance}")))?;
        run.until(&format!("{instance} to stop"), STOP_DEADLINE, || async {
            let facts = run
                .cloud
                .instance(&instance)
                .await
                .map_err(BakeError::cloud(format!("look at {instance}")))?;
            Ok(match facts.as_ref().map(|facts| facts.state) {
                Some(InstanceState::Stopped) => Seen::Done(()),
                Some(InstanceState::Terminated) | None => Seen::Hopeless("it was terminated".into()),
                Some(state) => Seen::Pending(format!("it is {state:?}").to_lowercase()),
            })
        })
        .await?;
        let sealed = Sealed {
            instance,
            manifest_sha256: provisioned.manifest_sha256,
            packages: provisioned.packages,
            identity,
        };
        let outcome = format!("{} is stopped", sealed.instance);
        Ok((sealed, outcome))
    })
    .await
}
