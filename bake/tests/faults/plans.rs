//! Plans: what is refused before anything is made.

use cos_bake::base::Base;
use cos_bake::cloud::fake::FakeCloud;
use cos_bake::error::Exit;
use cos_bake::plan;
use cos_bake::recipe::Recipe;
use cos_bake::release::Arch;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::support;
use super::world::{REGION, World, recipe};

#[tokio::test]
async fn plan_changes_nothing_and_refuses_what_would_fail() {
    let world = World::new();
    let plan = world.plan().await;
    assert_eq!(world.cloud.live(), []);
    world.bake(&plan, CancellationToken::new()).await.unwrap();
    let refused = async |base, arch| {
        let recipe = Recipe {
            base,
            arch,
            subnet: Some("subnet-none".into()),
            root_size_gib: Some(1),
            ..recipe("image")
        };
        plan::resolve(&recipe, &world.lock, REGION, Timestamp::now(), &world.cloud)
            .await
            .unwrap_err()
    };
    let error = refused(Base::Al2, Arch::X86_64).await;
    assert_eq!(error.exit(), Exit::Refused);
    for part in ["`image` is taken", "subnet-none", "1 GiB is smaller"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    let error = refused(Base::Al1, Arch::Arm64).await;
    assert_eq!(error.exit(), Exit::Refused);
    assert!(error.to_string().contains("never made for arm64"), "{error}");
}

#[tokio::test]
async fn a_base_is_amazons_by_account_or_by_alias() {
    let owned = async |owner: &str, alias: Option<&str>| {
        let mut base = FakeCloud::base_image("ami-0000000000000002a", "amzn2-ami-hvm-x86_64-gp2", "x86_64");
        base.owner = owner.into();
        base.owner_alias = alias.map(str::to_owned);
        let cloud = FakeCloud::standard().with_image(base);
        plan::resolve(
            &recipe("image"),
            &support::lock(),
            REGION,
            Timestamp::now(),
            &cloud,
        )
        .await
    };
    owned("137112412989", None).await.unwrap();
    // In the partitions of China and of the government Amazon has other accounts.
    owned("141808717104", Some("amazon")).await.unwrap();
    for alias in [None, Some("aws-marketplace")] {
        let error = owned("141808717104", alias).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused, "{alias:?}");
    }
}
