//! Owns the proof of what the real cloud sends and how it takes what AWS may answer; the answers are canned.
//! Touches loopback.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::replay::{Answer, cloud, connect, refusal};
use crate::cloud::{
    Cloud, CloudErrorKind, ImageId, ImageSpec, InstanceId, LaunchSpec, LaunchVolume, Resource, RootVolume,
    SnapshotId, VolumeId,
};

const LAUNCHED: &str = "<RunInstancesResponse><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet>\
                        </RunInstancesResponse>";

fn reply(body: &str) -> Answer {
    Answer::Reply(200, body.to_owned())
}

fn spec() -> LaunchSpec {
    LaunchSpec {
        image: ImageId::from("ami-1"),
        instance_type: "c7i.large".to_owned(),
        subnet: Some("subnet-1".to_owned()),
        profile: Some("ssm-profile".to_owned()),
        security_groups: vec!["sg-1".to_owned()],
        user_data: "#!/bin/sh\n".to_owned(),
        root_volume: Some(RootVolume {
            device: "/dev/xvda".to_owned(),
            size_gib: 12,
        }),
        volumes: vec![LaunchVolume {
            device: "/dev/sdf".to_owned(),
            snapshot: SnapshotId::from("snap-1"),
        }],
        instance_tags: true,
        token_required: true,
        terminate_on_shutdown: true,
        tags: BTreeMap::from([("cos:bake-id".to_owned(), "b1".to_owned())]),
        token: "token-1".to_owned(),
    }
}

#[tokio::test]
async fn a_launch_leaves_no_choice_to_aws() {
    let (cloud, seen) = cloud(|_, _| reply(LAUNCHED)).await;
    assert_eq!(cloud.launch(&spec()).await.unwrap(), InstanceId::from("i-1"));
    let request = seen.lock().unwrap()[0].clone();
    for part in [
        "Action=RunInstances",
        "ImageId=ami-1",
        "InstanceType=c7i.large",
        "SubnetId=subnet-1",
        "SecurityGroupId.1=sg-1",
        "IamInstanceProfile.Name=ssm-profile",
        "UserData=IyEvYmluL3NoCg%3D%3D",
        "BlockDeviceMapping.1.DeviceName=%2Fdev%2Fxvda",
        "BlockDeviceMapping.1.Ebs.VolumeSize=12",
        "BlockDeviceMapping.1.Ebs.VolumeType=gp3",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true",
        "BlockDeviceMapping.2.Ebs.SnapshotId=snap-1",
        "BlockDeviceMapping.2.Ebs.DeleteOnTermination=true",
        "MetadataOptions.HttpTokens=required",
        "MetadataOptions.HttpPutResponseHopLimit=2",
        "MetadataOptions.HttpEndpoint=enabled",
        "MetadataOptions.InstanceMetadataTags=enabled",
        "InstanceInitiatedShutdownBehavior=terminate",
        "TagSpecification.1.ResourceType=instance",
        "TagSpecification.2.ResourceType=volume",
        "TagSpecification.3.ResourceType=network-interface",
        "TagSpecification.1.Tag.1.Key=cos%3Abake-id",
        "ClientToken=token-1",
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
    assert!(!request.contains("DryRun"));
}

#[tokio::test]
async fn a_dry_run_that_would_work_is_a_yes() {
    let (cloud, seen) = cloud(|_, _| refusal(412, "DryRunOperation", "Request would have succeeded")).await;
    cloud.may_launch(&spec()).await.unwrap();
    assert!(seen.lock().unwrap()[0].contains("DryRun=true"));
}

#[tokio::test]
async fn a_refusal_keeps_code_message_and_request_id() {
    let (cloud, seen) = cloud(|_, _| refusal(403, "UnauthorizedOperation", "You may not.")).await;
    let error = cloud.may_launch(&spec()).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Denied);
    assert_eq!(
        error.to_string(),
        "ec2:RunInstances: You may not. (UnauthorizedOperation)"
    );
    assert_eq!(error.request_id.as_deref(), Some("request-7"));
    assert_eq!(seen.lock().unwrap().len(), 1, "a refusal is not retried");
}

#[tokio::test]
async fn a_dry_run_that_launches_is_ended() {
    let (cloud, seen) = cloud(|number, _| match number {
        0 => reply(LAUNCHED),
        _ => reply("<TerminateInstancesResponse></TerminateInstancesResponse>"),
    })
    .await;
    cloud.may_launch(&spec()).await.unwrap_err();
    assert!(seen.lock().unwrap()[1].contains("Action=TerminateInstances"));
}

#[tokio::test]
async fn throttling_passes_even_if_the_first_patience_is_short() {
    let image = "<DescribeImagesResponse><imagesSet><item><imageId>ami-1</imageId><imageState>available</imageState>\
                 <architecture>x86_64</architecture><name>n</name><imageOwnerId>1</imageOwnerId>\
                 <imageOwnerAlias>amazon</imageOwnerAlias></item></imagesSet></DescribeImagesResponse>";
    let (cloud, seen) = cloud(|number, _| match number {
        0..4 => refusal(503, "RequestLimitExceeded", "Request limit exceeded."),
        _ => reply(image),
    })
    .await;
    let facts = cloud.image_named("n").await.unwrap().unwrap();
    assert_eq!(facts.id, ImageId::from("ami-1"));
    assert_eq!(
        (facts.owner.as_str(), facts.owner_alias.as_deref()),
        ("1", Some("amazon"))
    );
    assert_eq!(seen.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_field_that_is_missing_is_named() {
    let (cloud, _) = cloud(|_, _| reply("<CreateImageResponse></CreateImageResponse>")).await;
    let spec = ImageSpec {
        instance: InstanceId::from("i-1"),
        name: "cos-1".to_owned(),
        description: "d".to_owned(),
        without_devices: vec!["/dev/sdf".to_owned()],
        tags: BTreeMap::new(),
    };
    let error = cloud.create_image(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "ec2:CreateImage: the answer has no `ImageId`");
}

#[tokio::test]
async fn an_image_is_made_without_the_payload_and_without_a_reboot() {
    let (cloud, seen) =
        cloud(|_, _| reply("<CreateImageResponse><imageId>ami-2</imageId></CreateImageResponse>")).await;
    let spec = ImageSpec {
        instance: InstanceId::from("i-1"),
        name: "cos-1".to_owned(),
        description: "d".to_owned(),
        without_devices: vec!["/dev/sdf".to_owned()],
        tags: BTreeMap::from([("cos:bake-id".to_owned(), "b1".to_owned())]),
    };
    cloud.create_image(&spec).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    for part in [
        "NoReboot=true",
        "BlockDeviceMapping.1.DeviceName=%2Fdev%2Fsdf",
        "BlockDeviceMapping.1.NoDevice=",
        "TagSpecification.1.ResourceType=image",
        "TagSpecification.2.ResourceType=snapshot",
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_within_fifteen_seconds() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let cloud = connect(&format!("http://127.0.0.1:{port}")).await;
    let start = Instant::now();
    let error = cloud.subnets().await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Unreachable);
    assert!(error.message.contains("refused"), "{}", error.message);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn not_found_is_believed_only_of_what_this_process_did_not_just_make() {
    let (cloud, seen) = cloud(|number, request| match number {
        0 => reply(LAUNCHED),
        _ if request.contains("i-2") => refusal(400, "InvalidInstanceID.NotFound", "i-2 does not exist"),
        1 => refusal(400, "InvalidInstanceID.NotFound", "i-1 does not exist"),
        _ => reply("<TerminateInstancesResponse></TerminateInstancesResponse>"),
    })
    .await;
    let launched = cloud.launch(&spec()).await.unwrap();
    cloud.delete(&Resource::Instance(launched)).await.unwrap();
    assert_eq!(
        seen.lock().unwrap().len(),
        3,
        "launched, not found yet, terminated"
    );
    cloud
        .delete(&Resource::Instance(InstanceId::from("i-2")))
        .await
        .unwrap();
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_volume_in_use_stays_a_failure() {
    let (cloud, _) = cloud(|_, _| refusal(400, "VolumeInUse", "vol-1 is attached to i-1")).await;
    let error = cloud
        .delete(&Resource::Volume(VolumeId::from("vol-1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::InUse);
}

#[tokio::test]
async fn a_block_outlives_throttling_and_a_snapshot_that_does_not_exist_yet() {
    let (cloud, seen) = cloud(|number, _| match number {
        0 => Answer::Reply(
            404,
            r#"{"__type":"ResourceNotFoundException","Message":"the snapshot does not exist"}"#.into(),
        ),
        1 => Answer::Reply(
            400,
            r#"{"__type":"RequestThrottledException","Message":"slow down"}"#.into(),
        ),
        2 => Answer::HangUp,
        _ => Answer::Reply(201, "{}".into()),
    })
    .await;
    let id = SnapshotId::from("snap-1");
    cloud.put_block(&id, 7, vec![0; 524_288]).await.unwrap();
    let requests = seen.lock().unwrap().clone();
    assert_eq!(requests.len(), 4);
    // SHA-256 of 512 KiB of zeros, as sha256sum and base64 write it.
    let checksum = "x-amz-checksum: B4VNL+8pega6gWheZgwzLeNtXRjVRpJ9MNqtbX/aFUE=";
    for request in requests {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("/snapshots/snap-1/blocks/7"), "{head}");
        assert!(head.to_lowercase().contains(&checksum.to_lowercase()), "{head}");
        assert_eq!(body.len(), 524_288, "the body goes out whole with each try");
    }
    cloud.complete_snapshot(&id, 1).await.unwrap();
    let complete = seen.lock().unwrap().pop().unwrap();
    for part in [
        "x-amz-checksum-aggregation-method: LINEAR",
        "x-amz-changedblockscount: 1",
        // SHA-256 over the one digest.
        "x-amz-checksum: 3QyamIjs9/uk1ge+ZPpwA6Yo7YmArJ8I121qDaF+DcI=",
    ] {
        assert!(
            complete.to_lowercase().contains(&part.to_lowercase()),
            "{part} is not in {complete}"
        );
    }
}

#[tokio::test]
async fn an_image_goes_with_its_snapshots_even_while_it_is_pending() {
    let (cloud, seen) = cloud(|_, request| {
        if request.contains("Action=DescribeImages") {
            reply(
                "<DescribeImagesResponse><imagesSet><item><imageId>ami-1</imageId><imageState>pending</imageState>\
                 <architecture>x86_64</architecture></item></imagesSet></DescribeImagesResponse>",
            )
        } else if request.contains("Action=DescribeSnapshots") {
            reply(
                "<DescribeSnapshotsResponse><snapshotSet><item><snapshotId>snap-9</snapshotId></item></snapshotSet>\
                 </DescribeSnapshotsResponse>",
            )
        } else {
            reply("<DeregisterImageResponse><return>true</return></DeregisterImageResponse>")
        }
    })
    .await;
    cloud
        .delete(&Resource::Image(ImageId::from("ami-1")))
        .await
        .unwrap();
    let requests = seen.lock().unwrap().clone();
    let order: Vec<&str> = requests
        .iter()
        .map(|request| {
            request
                .split_once("Action=")
                .unwrap()
                .1
                .split('&')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(
        order,
        [
            "DescribeImages",
            "DescribeSnapshots",
            "DeregisterImage",
            "DeleteSnapshot"
        ]
    );
    assert!(requests[3].contains("snap-9"));
}
