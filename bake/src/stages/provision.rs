//! Owns the installation on the builder: the payload comes in as a volume, the agent installs from it.
//! Touches `Cloud` (volume) and `Remote`.

use std::time::Duration;

use cos_agent::builder::InstallReport;
use serde::de::DeserializeOwned;

use super::launch::Builder;
use super::payload::Staged;
use crate::cloud::{Cloud, InstanceId, VolumeId, VolumeSpec, VolumeState};
use crate::error::BakeError;
use crate::events::Stage;
use crate::plan::Plan;
use crate::remote::{Remote, Script, ScriptOutput};
use crate::run::Run;
use crate::wait::Seen;

/// Device name of the payload in EC2's words; a Nitro machine shows it as an NVMe disk of another name.
pub(super) const PAYLOAD_DEVICE: &str = "/dev/sdf";

/// Longest time from a volume's creation to its being available.
pub(super) const VOLUME_DEADLINE: Duration = Duration::from_mins(5);

/// Longest time of the installation. A payload volume is fetched from S3 on first read, and packages may be installed.
pub(super) const INSTALL_DEADLINE: Duration = Duration::from_mins(20);

/// Exit status of the agent when bytes are not what they must be (`_docs/exit-codes.md`).
const VERIFICATION_FAILED: i32 = 4;

/// A builder with everything installed.
#[derive(Debug)]
pub struct Provisioned {
    pub(super) builder: Builder,
    pub(super) manifest_sha256: String,
    pub(super) packages: Vec<String>,
}

/// Attaches the payload, unless the builder started with it, and lets the agent in it install everything.
pub async fn provision<C: Cloud, R: Remote>(
    plan: &Plan,
    builder: Builder,
    staged: &Staged,
    run: &Run<'_, C, R>,
) -> Result<Provisioned, BakeError> {
    run.stage(Stage::Provision, async {
        let volume = match &builder.payload {
            Some(volume) => volume.clone(),
            None => attach_payload(plan, &builder, staged, run).await?,
        };
        let script = Script {
            name: "install".into(),
            text: install_script(&volume, staged),
            deadline: INSTALL_DEADLINE,
        };
        let output = run.script(&builder.instance, &script).await?;
        let output = succeeded(&script.name, &builder.instance, output)?;
        let InstallReport { packages, .. } = report(&script.name, &builder.instance, &output)?;
        let outcome = format!("{} files installed", staged.bundle.manifest.files.len());
        let manifest_sha256 = staged.bundle.manifest_sha256.to_string();
        Ok((
            Provisioned {
                builder,
                manifest_sha256,
                packages,
            },
            outcome,
        ))
    })
    .await
}

async fn attach_payload<C: Cloud, R: Remote>(
    plan: &Plan,
    builder: &Builder,
    staged: &Staged,
    run: &Run<'_, C, R>,
) -> Result<VolumeId, BakeError> {
    let spec = VolumeSpec {
        snapshot: staged.snapshot.clone(),
        zone: builder.zone.clone(),
        tags: plan.tags_for("payload"),
        token: format!("{}-volume", plan.bake_id),
    };
    let volume = run
        .create("the payload volume", run.cloud.create_volume(&spec))
        .await?;
    run.until(&format!("{volume} to be available"), VOLUME_DEADLINE, || async {
        let facts = run
            .cloud
            .volume(&volume)
            .await
            .map_err(BakeError::cloud(format!("look at {volume}")))?;
        Ok(match facts.map(|facts| facts.state) {
            Some(VolumeState::Available) => Seen::Done(()),
            Some(VolumeState::Failed) => Seen::Hopeless("EC2 says that it failed".into()),
            _ => Seen::Pending("it is being made".into()),
        })
    })
    .await?;
    let instance = &builder.instance;
    run.cloud
        .attach(&volume, instance, PAYLOAD_DEVICE)
        .await
        .map_err(BakeError::cloud(format!("attach {volume} to {instance}")))?;
    run.hand_over(volume.clone(), instance)?;
    Ok(volume)
}

/// The few lines that find the payload, copy the agent out of it, check it, and start it. Everything after that is the
/// agent's. The volume is found by its id (NVMe serial, without the dash), or by its device name on Xen.
fn install_script(volume: &VolumeId, staged: &Staged) -> String {
    let serial = volume.0.replace('-', "");
    let header = &staged.header;
    let magic = cos_agent::bundle::PAYLOAD_MAGIC.trim_end();
    format!(
        r#"set -eu
umask 077
find_payload() {{
    for block in /sys/class/block/nvme*n1; do
        [ -e "$block/device/serial" ] || continue
        [ "$(tr -d ' \n' < "$block/device/serial")" = "{serial}" ] && echo "/dev/${{block##*/}}" && return
    done
    for name in /dev/sdf /dev/xvdf; do
        [ -b "$name" ] && echo "$name" && return
    done
    return 1
}}
tries=0
until device=$(find_payload); do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || {{ echo "the payload volume {volume} did not show within 120 s" >&2; exit 6; }}
    sleep 1
done
[ "$(dd if="$device" bs=4096 count=1 2>/dev/null | head -n 1)" = "{magic}" ] ||
    {{ echo "$device does not begin with {magic}" >&2; exit {VERIFICATION_FAILED}; }}
folder=$(mktemp -d /var/tmp/cos.XXXXXX)
trap 'rm -rf "$folder"' EXIT
dd if="$device" of="$folder/cos-agent" bs=1M iflag=skip_bytes,count_bytes skip={offset} count={size} 2>/dev/null
found=$(sha256sum "$folder/cos-agent" | cut -d' ' -f1)
[ "$found" = "{digest}" ] ||
    {{ echo "cos-agent in {volume}: expected sha256 {digest}, found $found" >&2; exit {VERIFICATION_FAILED}; }}
chmod 700 "$folder/cos-agent"
"$folder/cos-agent" install --payload "$device" --bundle-sha256 {bundle} --json
"#,
        offset = header.agent_offset,
        size = header.agent_size,
        digest = header.agent_sha256,
        bundle = header.bundle_sha256,
    )
}

/// Turns the output of an agent's command into success or the right failure.
pub(super) fn succeeded(
    step: &str,
    instance: &InstanceId,
    output: ScriptOutput,
) -> Result<ScriptOutput, BakeError> {
    match output.status {
        Some(0) => Ok(output),
        Some(VERIFICATION_FAILED) => Err(BakeError::Verification {
            place: instance.to_string(),
            findings: last_words(&output),
        }),
        Some(status) => Err(BakeError::Step {
            step: step.to_owned(),
            instance: instance.to_string(),
            message: format!("status {status}: {}", last_words(&output)),
        }),
        None => Err(BakeError::Step {
            step: step.to_owned(),
            instance: instance.to_string(),
            message: format!("it was ended at its deadline; {}", last_words(&output)),
        }),
    }
}

/// The end of what a command said, on standard error if it said anything there.
pub(super) fn last_words(output: &ScriptOutput) -> String {
    let said = if output.stderr.trim().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let lines: Vec<&str> = said.trim().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The report that an agent's command printed.
pub(super) fn report<T: DeserializeOwned>(
    step: &str,
    instance: &InstanceId,
    output: &ScriptOutput,
) -> Result<T, BakeError> {
    serde_json::from_str(output.stdout.trim()).map_err(|error| BakeError::Step {
        step: step.to_owned(),
        instance: instance.to_string(),
        message: format!("its report is not the one that this cos-bake reads: {error}"),
    })
}
