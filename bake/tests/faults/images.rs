//! Images: found again when an answer was lost, named and tagged as the user says.

use cos_bake::cloud::fake::{FakeCloud, Fault};
use cos_bake::cloud::{CloudErrorKind, Resource};
use cos_bake::error::Exit;
use tokio_util::sync::CancellationToken;

use super::world::{World, call_of, recipe};

#[tokio::test]
async fn an_image_whose_answer_was_lost_is_found_by_its_name() {
    let create = call_of("ec2:CreateImage").await;
    let world = World::new();
    let plan = world.plan().await;
    // What the port says when its retry meets its own work.
    world
        .cloud
        .fail_at_with(create, Fault::After, CloudErrorKind::Duplicate);
    let manifest = world.bake(&plan, CancellationToken::new()).await.unwrap();
    world.assert_nothing_but_a_published_image("an image that was found");
    assert_eq!(
        world.cloud.live().last(),
        Some(&Resource::Image(manifest.image.as_str().into()))
    );
}

#[tokio::test]
async fn an_image_of_another_that_took_the_name_is_left_alone() {
    let create = call_of("ec2:CreateImage").await;
    let mut taken = FakeCloud::base_image("ami-00000000000000009", "image", "x86_64");
    taken.owner = "111122223333".into();
    let world = World::new();
    let plan = world.plan().await;
    let cloud = world.cloud.clone();
    world.cloud.on_call(move |seen| {
        if seen.index == create {
            let _ = cloud.clone().with_image(taken.clone());
        }
    });
    let error = world.bake(&plan, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Cloud);
    let others = Resource::Image("ami-00000000000000009".into());
    assert_eq!(world.cloud.live(), [others]);
}

#[tokio::test]
async fn a_name_among_the_tags_is_the_users() {
    let world = World::new();
    let mut recipe = recipe("image");
    recipe.tags.insert("Name".into(), "golden".into());
    let plan = world.plan_of(&recipe).await;
    let manifest = world.bake(&plan, CancellationToken::new()).await.unwrap();
    assert_eq!(manifest.tags["Name"], "golden");
}
