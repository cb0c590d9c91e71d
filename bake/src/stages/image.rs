//! Owns the making of the image from the stopped builder.
//! Touches `Cloud` (create, wait).

use std::time::Duration;

use super::payload::Staged;
use super::provision::PAYLOAD_DEVICE;
use super::seal::Sealed;
use crate::cloud::{Cloud, CloudError, CloudErrorKind, ImageFacts, ImageId, ImageSpec, ImageState};
use crate::error::BakeError;
use crate::events::Stage;
use crate::plan::{Plan, TAG_BAKE_ID, TAG_BUNDLE};
use crate::remote::Remote;
use crate::run::Run;
use crate::wait::Seen;

/// Longest time from asking for an image to its being available. Minutes are usual; Packer's users had to raise 30.
pub(super) const IMAGE_DEADLINE: Duration = Duration::from_hours(1);

/// An image that is available and has not proved itself.
#[derive(Debug)]
pub struct Untested {
    pub(super) facts: ImageFacts,
    pub(super) manifest_sha256: String,
    pub(super) packages: Vec<String>,
    pub(super) identity: String,
}

/// Makes the image; it expires like everything else until it is published. The builder goes as soon as the image no
/// longer needs it.
pub async fn image<C: Cloud, R: Remote>(
    plan: &Plan,
    staged: &Staged,
    sealed: Sealed,
    run: &Run<'_, C, R>,
) -> Result<Untested, BakeError> {
    run.stage(Stage::Image, async {
        let mut tags = plan.tags_for("image");
        tags.insert("Name".into(), plan.name.clone());
        tags.insert(TAG_BUNDLE.into(), staged.bundle.sha256.to_string());
        tags.insert("cos:base".into(), plan.base_image.id.to_string());
        tags.extend(plan.tags.clone());
        let spec = ImageSpec {
            instance: sealed.instance.clone(),
            name: plan.name.clone(),
            description: plan.description.clone(),
            without_devices: vec![PAYLOAD_DEVICE.to_owned()],
            tags,
        };
        let id = run.create("the image", create(plan, &spec, run.cloud)).await?;
        let facts = run
            .until(&format!("{id} to be available"), IMAGE_DEADLINE, || async {
                let facts = run
                    .cloud
                    .image(&id)
                    .await
                    .map_err(BakeError::cloud(format!("look at {id}")))?;
                Ok(match facts {
                    Some(facts) if facts.state == ImageState::Available => Seen::Done(facts),
                    Some(facts) if facts.state == ImageState::Failed => {
                        Seen::Hopeless(facts.reason.unwrap_or("EC2 says that it failed".into()))
                    }
                    Some(_) => Seen::Pending("it is pending".into()),
                    None => Seen::Pending("it does not show yet".into()),
                })
            })
            .await?;
        run.release(sealed.instance).await?;
        let outcome = format!("{id} is available");
        let untested = Untested {
            facts,
            manifest_sha256: sealed.manifest_sha256,
            packages: sealed.packages,
            identity: sealed.identity,
        };
        Ok((untested, outcome))
    })
    .await
}

/// Asks for the image. The call takes no token: when its answer was lost, the port's own retry finds the name taken, by
/// the image that it made.
async fn create<C: Cloud>(plan: &Plan, spec: &ImageSpec, cloud: &C) -> Result<ImageId, CloudError> {
    let refused = match cloud.create_image(spec).await {
        Err(error) if error.kind == CloudErrorKind::Duplicate => error,
        answer => return answer,
    };
    let holder = cloud.image_named(&spec.name).await?;
    holder
        .filter(|holder| holder.tags.get(TAG_BAKE_ID) == Some(&plan.bake_id))
        .map(|holder| holder.id)
        .ok_or(refused)
}
