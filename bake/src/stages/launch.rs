//! Owns the builder's start: from the plan to a machine that takes commands.
//! Touches `Cloud` (create, wait) and `Remote` (whether it is online).

use std::time::Duration;

use super::provision::PAYLOAD_DEVICE;
use crate::cloud::{
    Cloud, CloudErrorKind, InstanceFacts, InstanceId, InstanceState, LaunchSpec, LaunchVolume, SnapshotId,
    VolumeId,
};
use crate::error::BakeError;
use crate::events::Stage;
use crate::plan::Plan;
use crate::remote::Remote;
use crate::run::Run;
use crate::wait::Seen;

/// Longest time from launch to running.
pub(super) const RUNNING_DEADLINE: Duration = Duration::from_mins(10);

/// Longest time from running to taking commands. The SSM agent sleeps 25 to 30 minutes when its role does not show at
/// its first try (amazon-ssm-agent, credentialrefresher); waiting that long beats a failed bake.
pub(super) const ONLINE_DEADLINE: Duration = Duration::from_mins(35);

/// A builder that takes commands.
#[derive(Debug)]
pub struct Builder {
    pub(super) instance: InstanceId,
    pub(super) zone: String,
    /// The payload volume, if it started with one.
    pub(super) payload: Option<VolumeId>,
}

/// Launches the builder, with the payload if it was kept, and waits until it takes commands.
pub async fn launch<C: Cloud, R: Remote>(
    plan: &Plan,
    payload: Option<SnapshotId>,
    run: &Run<'_, C, R>,
) -> Result<Builder, BakeError> {
    run.stage(Stage::Launch, async {
        let mut spec = plan.builder("builder");
        spec.volumes.extend(payload.map(|snapshot| LaunchVolume {
            device: PAYLOAD_DEVICE.to_owned(),
            snapshot,
        }));
        let facts = start(&spec, "the builder", run).await?;
        let payload = facts.volume_at(PAYLOAD_DEVICE).cloned();
        if let Some(volume) = &payload {
            run.hand_over(volume.clone(), &facts.id)?;
        }
        let outcome = format!("{} in {} takes commands", facts.id, facts.zone);
        let builder = Builder {
            instance: facts.id,
            zone: facts.zone,
            payload,
        };
        Ok((builder, outcome))
    })
    .await
}

/// Launches a machine and waits until it takes commands.
pub(super) async fn start<C: Cloud, R: Remote>(
    spec: &LaunchSpec,
    what: &str,
    run: &Run<'_, C, R>,
) -> Result<InstanceFacts, BakeError> {
    let instance = run.create(what, run.cloud.launch(spec)).await?;
    let started = run
        .until(&format!("{instance} to run"), RUNNING_DEADLINE, || async {
            let facts = run
                .cloud
                .instance(&instance)
                .await
                .map_err(BakeError::cloud(format!("look at {instance}")))?;
            Ok(match facts {
                None => Seen::Pending("it does not show yet".into()),
                Some(facts) => match facts.state {
                    InstanceState::Running
                        if spec
                            .volumes
                            .iter()
                            .all(|volume| facts.volume_at(&volume.device).is_some()) =>
                    {
                        Seen::Done(facts)
                    }
                    InstanceState::Running => Seen::Pending("its volumes do not show yet".into()),
                    InstanceState::Pending => Seen::Pending("it is pending".into()),
                    state => {
                        Seen::Hopeless(facts.reason.unwrap_or(format!("it is {state:?}").to_lowercase()))
                    }
                },
            })
        })
        .await?;
    let online = run.until(&format!("{instance} to take commands"), ONLINE_DEADLINE, || async {
        match run.remote.online(&instance).await {
            Ok(true) => return Ok(Seen::Done(())),
            Ok(false) => {}
            Err(error) if error.kind == CloudErrorKind::NotFound => {}
            Err(error) => return Err(BakeError::cloud(format!("ask whether {instance} takes commands"))(error)),
        }
        // A machine that died would never come online; the state says so at once.
        let facts = run.cloud.instance(&instance).await.map_err(BakeError::cloud(format!("look at {instance}")))?;
        Ok(match facts {
            Some(facts) if facts.state == InstanceState::Running => {
                Seen::Pending("its SSM agent is not online; it needs a role with AmazonSSMManagedInstanceCore and a way to the SSM endpoints".into())
            }
            Some(facts) => Seen::Hopeless(facts.reason.unwrap_or(format!("it is {:?}", facts.state).to_lowercase())),
            None => Seen::Pending("it does not show".into()),
        })
    })
    .await;
    if matches!(
        &online,
        Err(BakeError::Deadline { .. } | BakeError::Hopeless { .. })
    ) {
        run.save_console(&instance).await;
    }
    online.map(|()| started)
}
