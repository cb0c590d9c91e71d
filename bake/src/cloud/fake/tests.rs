//! Owns the proof that the fake keeps EC2's rules; fault loops elsewhere lean on it.
//! Touches nothing.

use super::*;
use crate::cloud::{
    Cloud, CloudErrorKind, ImageSpec, InstanceState, LaunchVolume, RootVolume, SnapshotSpec, SnapshotState,
    VolumeSpec, VolumeState,
};
use crate::remote::fake::FakeRemote;
use crate::remote::{Remote, Script as RemoteScript};
use std::time::Duration;

fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([("cos:bake-id".to_owned(), "b1".to_owned())])
}

fn spec(token: &str) -> LaunchSpec {
    LaunchSpec {
        image: ImageId::from("ami-0000000000000002a"),
        instance_type: "t3.small".to_owned(),
        subnet: None,
        profile: None,
        security_groups: Vec::new(),
        user_data: String::new(),
        root_volume: Some(RootVolume {
            device: "/dev/xvda".to_owned(),
            size_gib: 10,
        }),
        volumes: Vec::new(),
        instance_tags: true,
        token_required: true,
        terminate_on_shutdown: true,
        tags: tags(),
        token: token.to_owned(),
    }
}

fn snapshot_spec() -> SnapshotSpec {
    SnapshotSpec {
        size_gib: 1,
        description: "payload".to_owned(),
        tags: BTreeMap::from([("cos:bundle".to_owned(), "d1".to_owned())]),
        token: "s1".to_owned(),
    }
}

async fn payload(cloud: &FakeCloud) -> SnapshotId {
    let id = cloud.start_snapshot(&snapshot_spec()).await.unwrap();
    cloud.put_block(&id, 0, vec![1; 524_288]).await.unwrap();
    cloud.complete_snapshot(&id, 1).await.unwrap();
    while cloud.snapshot(&id).await.unwrap().unwrap().state != SnapshotState::Completed {}
    id
}

async fn wait_for(cloud: &FakeCloud, id: &InstanceId, state: InstanceState) {
    for _ in 0..10 {
        if cloud
            .instance(id)
            .await
            .unwrap()
            .is_some_and(|facts| facts.state == state)
        {
            return;
        }
    }
    panic!("instance {id} never was {state:?}");
}

#[tokio::test]
async fn a_whole_bake_leaves_only_its_image() {
    let cloud = FakeCloud::standard().with_hidden_instances(2);
    let remote = FakeRemote::new(&cloud).prints("install", "{}");
    let payload = payload(&cloud).await;
    let instance = cloud.launch(&spec("t1")).await.unwrap();
    assert_eq!(cloud.launch(&spec("t1")).await.unwrap(), instance);
    assert!(
        cloud.instance(&instance).await.unwrap().is_none(),
        "eventually consistent"
    );
    wait_for(&cloud, &instance, InstanceState::Running).await;
    let zone = cloud.instance(&instance).await.unwrap().unwrap().zone;
    let volume_spec = VolumeSpec {
        snapshot: payload.clone(),
        zone,
        tags: tags(),
        token: "v1".to_owned(),
    };
    let volume = cloud.create_volume(&volume_spec).await.unwrap();
    assert_eq!(
        cloud
            .attach(&volume, &instance, "/dev/sdf")
            .await
            .unwrap_err()
            .kind,
        CloudErrorKind::InUse,
        "still creating"
    );
    while cloud.volume(&volume).await.unwrap().unwrap().state != VolumeState::Available {}
    cloud.attach(&volume, &instance, "/dev/sdf").await.unwrap();
    assert!(!remote.online(&instance).await.unwrap());
    assert!(remote.online(&instance).await.unwrap());
    let script = RemoteScript {
        name: "install".to_owned(),
        text: "cos-agent install".to_owned(),
        deadline: Duration::from_mins(1),
    };
    assert_eq!(remote.run(&instance, &script).await.unwrap().stdout, "{}");
    let image_spec = ImageSpec {
        instance: instance.clone(),
        name: "cos-1".to_owned(),
        description: String::new(),
        without_devices: vec!["/dev/sdf".to_owned()],
        tags: tags(),
    };
    assert!(cloud.create_image(&image_spec).await.is_err(), "not stopped");
    cloud.stop(&instance).await.unwrap();
    wait_for(&cloud, &instance, InstanceState::Stopped).await;
    let image = cloud.create_image(&image_spec).await.unwrap();
    assert_eq!(
        cloud.create_image(&image_spec).await.unwrap_err().kind,
        CloudErrorKind::Duplicate
    );
    assert_eq!(cloud.image(&image).await.unwrap().unwrap().snapshots, []);
    let facts = cloud.image(&image).await.unwrap().unwrap();
    assert_eq!(
        (facts.state, facts.root_size_gib, facts.snapshots.len()),
        (ImageState::Available, 10, 1)
    );
    let busy = cloud
        .delete(&Resource::Snapshot(facts.snapshots[0].clone()))
        .await
        .unwrap_err();
    assert_eq!(busy.kind, CloudErrorKind::InUse);
    let held = Resource::Volume(volume);
    assert_eq!(cloud.delete(&held).await.unwrap_err().kind, CloudErrorKind::InUse);
    cloud.delete(&Resource::Instance(instance)).await.unwrap();
    while cloud.delete(&held).await.is_err() {}
    cloud.delete(&Resource::Snapshot(payload)).await.unwrap();
    assert_eq!(
        cloud.live(),
        [
            Resource::Snapshot(facts.snapshots[0].clone()),
            Resource::Image(image.clone())
        ]
    );
    assert_eq!(cloud.tagged("cos:bake-id", Some("b1")).await.unwrap().len(), 2);
    assert_eq!(cloud.tagged("cos:bake-id", Some("b2")).await.unwrap(), []);
    cloud.delete(&Resource::Image(image)).await.unwrap();
    assert_eq!(cloud.live(), []);
}

#[tokio::test]
async fn a_fault_before_has_no_effect_and_a_fault_after_has() {
    let cloud = FakeCloud::standard();
    cloud.fail_at(0, Fault::Before);
    cloud.fail_at(1, Fault::After);
    assert_eq!(
        cloud.launch(&spec("t1")).await.unwrap_err().kind,
        CloudErrorKind::Other
    );
    assert_eq!(cloud.live(), []);
    assert_eq!(
        cloud.launch(&spec("t1")).await.unwrap_err().kind,
        CloudErrorKind::Unreachable
    );
    assert_eq!(cloud.live().len(), 2, "instance and root volume");
    cloud.launch(&spec("t1")).await.unwrap();
    assert_eq!(cloud.live().len(), 2, "the token gives the same instance");
    let other = LaunchSpec {
        instance_type: "t3.large".to_owned(),
        ..spec("t1")
    };
    assert_eq!(
        cloud.launch(&other).await.unwrap_err().code.as_deref(),
        Some("IdempotentParameterMismatch")
    );
}

#[tokio::test]
async fn a_killed_caller_runs_no_further() {
    let cloud = FakeCloud::standard();
    cloud.kill_at(1, Fault::After);
    let mut reached = 0;
    let ended = cloud
        .until_killed(async {
            for token in ["t1", "t2", "t3"] {
                cloud.launch(&spec(token)).await.unwrap();
                reached += 1;
            }
        })
        .await;
    assert_eq!((ended, reached), (None, 1));
    assert_eq!(cloud.call_count(), 2);
    assert_eq!(cloud.live().len(), 4, "the second launch took effect");
    cloud.heal();
    cloud.launch(&spec("t4")).await.unwrap();
}

#[tokio::test]
async fn a_hook_sees_each_call_and_may_use_the_fake() {
    let cloud = FakeCloud::standard();
    let inner = cloud.clone();
    cloud.on_call(move |call| {
        if call.operation == "ec2:StopInstances" {
            inner.go_dark();
        }
    });
    let instance = cloud.launch(&spec("t1")).await.unwrap();
    assert_eq!(
        cloud.stop(&instance).await.unwrap_err().kind,
        CloudErrorKind::Unreachable
    );
    assert_eq!(
        cloud.instance(&instance).await.unwrap_err().kind,
        CloudErrorKind::Unreachable
    );
    cloud.heal();
    wait_for(&cloud, &instance, InstanceState::Running).await;
}

#[tokio::test]
async fn a_lost_reply_of_attach_leaves_a_volume_that_outlives_its_instance() {
    let cloud = FakeCloud::standard();
    let payload = payload(&cloud).await;
    let instance = cloud.launch(&spec("t1")).await.unwrap();
    wait_for(&cloud, &instance, InstanceState::Running).await;
    let zone = "eu-central-1a".to_owned();
    let volume_spec = VolumeSpec {
        snapshot: payload,
        zone,
        tags: tags(),
        token: "v1".to_owned(),
    };
    let volume = cloud.create_volume(&volume_spec).await.unwrap();
    while cloud.volume(&volume).await.unwrap().unwrap().state != VolumeState::Available {}
    cloud.fail_at(cloud.call_count(), Fault::After);
    cloud.attach(&volume, &instance, "/dev/sdf").await.unwrap_err();
    cloud.delete(&Resource::Instance(instance.clone())).await.unwrap();
    assert!(cloud.live().contains(&Resource::Volume(volume.clone())));
    for _ in 0..2 {
        cloud.instance(&instance).await.unwrap();
    }
    assert_eq!(
        cloud.volume(&volume).await.unwrap().unwrap().state,
        VolumeState::Available
    );
}

#[tokio::test]
async fn launches_are_refused_as_ec2_refuses_them() {
    let cloud = FakeCloud::standard()
        .with_full_zone("eu-central-1a")
        .with_offering("t4g.small", &[]);
    let code = async |spec: LaunchSpec| {
        let error = cloud.launch(&spec).await.unwrap_err();
        (error.kind, error.code.unwrap())
    };
    let open = cloud.start_snapshot(&snapshot_spec()).await.unwrap();
    let pending = vec![LaunchVolume {
        device: "/dev/sdf".to_owned(),
        snapshot: open,
    }];
    let elsewhere = Some("subnet-0000000b".to_owned());
    for (spec, kind, expected) in [
        (
            spec("t1"),
            CloudErrorKind::Capacity,
            "InsufficientInstanceCapacity",
        ),
        (
            LaunchSpec {
                image: ImageId::from("ami-1"),
                ..spec("t2")
            },
            CloudErrorKind::NotFound,
            "InvalidAMIID.NotFound",
        ),
        (
            LaunchSpec {
                user_data: "x".repeat(16_385),
                ..spec("t3")
            },
            CloudErrorKind::Other,
            "InvalidParameterValue",
        ),
        (
            LaunchSpec {
                volumes: pending,
                ..spec("t4")
            },
            CloudErrorKind::InUse,
            "IncorrectState",
        ),
        (
            LaunchSpec {
                instance_type: "t4g.small".to_owned(),
                subnet: elsewhere.clone(),
                ..spec("t5")
            },
            CloudErrorKind::Capacity,
            "Unsupported",
        ),
        (
            LaunchSpec {
                subnet: Some("subnet-9".to_owned()),
                ..spec("t6")
            },
            CloudErrorKind::NotFound,
            "InvalidSubnetID.NotFound",
        ),
    ] {
        assert_eq!(code(spec).await, (kind, expected.to_owned()));
    }
    cloud
        .launch(&LaunchSpec {
            subnet: elsewhere,
            ..spec("t7")
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_shutdown_from_inside_ends_the_machine_as_launched() {
    let cloud = FakeCloud::standard();
    let instance = cloud.launch(&spec("t1")).await.unwrap();
    cloud.shut_down_inside(&instance);
    assert_eq!(cloud.live(), []);
    let stays = cloud
        .launch(&LaunchSpec {
            terminate_on_shutdown: false,
            ..spec("t2")
        })
        .await
        .unwrap();
    cloud.shut_down_inside(&stays);
    wait_for(&cloud, &stays, InstanceState::Stopped).await;
}
