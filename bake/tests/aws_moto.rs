//! Owns the smoke test of `AwsCloud` and `SsmRemote` against moto: each call leaves in a form that an emulator of AWS
//! understands. Touches loopback; starts and ends moto itself.
//!
//! Moto comes from `COS_SANDBOX_PYTHON` (a Python that has it). Without that the test says so and passes, unless `CI`
//! is set. The real environment chain is part of the test, so the calls are made in a process of their own, which is
//! this program again with the environment of a user who points at an endpoint.

#![expect(
    clippy::unwrap_used,
    reason = "a step that fails should panic where it stands"
)]

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cos_bake::cloud::aws::AwsCloud;
use cos_bake::cloud::{
    Cloud, CloudErrorKind, ImageId, ImageSpec, ImageState, InstanceId, InstanceState, LaunchSpec,
    LaunchVolume, Resource, RootVolume, SnapshotId, SnapshotSpec, SnapshotState, VolumeId, VolumeSpec,
    VolumeState,
};
use cos_bake::remote::ssm::SsmRemote;
use cos_bake::remote::{Remote, Script};

/// Moto as it is, but for the tags of snapshots in CreateImage, where it raises NotImplementedError (5.2.5).
const MOTO: &str = r#"
import sys
from moto.ec2.models.amis import AmiBackend
from moto.server import main

plain = AmiBackend.create_image

def create_image(self, instance_id, name, description, tag_specifications):
    kinds = {given["ResourceType"]: given["Tags"] for given in tag_specifications}
    snapshot_tags = kinds.pop("snapshot", [])
    left = [{"ResourceType": kind, "Tags": tags} for kind, tags in kinds.items()]
    image = plain(self, instance_id, name, description, left)
    for tag in snapshot_tags:
        image.ebs_snapshot.add_tag(tag["Key"], tag["Value"])
    return image

AmiBackend.create_image = create_image
main(sys.argv[1:])
"#;

struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Runs a test of this file that is ignored otherwise, in an environment of its own.
fn alone(test: &str, environment: &[(&str, &str)]) {
    let home = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}

#[test]
fn moto_understands_each_call() {
    let Ok(python) = std::env::var("COS_SANDBOX_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "COS_SANDBOX_PYTHON is not set");
        eprintln!("SKIPPED: COS_SANDBOX_PYTHON names no Python with moto");
        return;
    };
    let port = free_port();
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = Command::new(python)
        .args(["-c", MOTO, "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let _moto = Moto(server);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "moto does not start: {log}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    alone(
        "each_call",
        &[
            ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}")),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ],
    );
}

#[test]
fn nobody_at_the_endpoint_shows_within_fifteen_seconds() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    alone(
        "unreachable",
        &[
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ],
    );
}

#[test]
fn no_credentials_show_as_such() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    alone(
        "without_credentials",
        &[("AWS_ENDPOINT_URL", &endpoint), ("AWS_REGION", "eu-central-1")],
    );
}

#[test]
fn no_region_shows_as_such() {
    alone(
        "without_region",
        &[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")],
    );
}

#[tokio::test]
#[ignore = "run by nobody_at_the_endpoint_shows_within_fifteen_seconds"]
async fn unreachable() {
    let start = Instant::now();
    let cloud = AwsCloud::connect(None).await.unwrap();
    let error = cloud.parameter("/x").await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Unreachable, "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
#[ignore = "run by no_credentials_show_as_such"]
async fn without_credentials() {
    let start = Instant::now();
    let cloud = AwsCloud::connect(None).await.unwrap();
    let error = cloud.subnets().await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::NoCredentials, "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
#[ignore = "run by no_region_shows_as_such"]
async fn without_region() {
    let error = AwsCloud::connect(None).await.err().unwrap();
    assert!(error.message.contains("region"), "{error}");
    assert_eq!(error.kind, CloudErrorKind::Configuration, "{error}");
    assert_eq!(
        AwsCloud::connect(Some("eu-west-1")).await.unwrap().region(),
        "eu-west-1"
    );
}

fn tags(id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("cos:bake-id".to_owned(), id.to_owned())])
}

fn launch_spec(image: ImageId, subnet: &str, snapshot: &SnapshotId) -> LaunchSpec {
    LaunchSpec {
        image,
        instance_type: "t3.small".to_owned(),
        subnet: Some(subnet.to_owned()),
        profile: None,
        security_groups: Vec::new(),
        user_data: "#!/bin/sh\n".to_owned(),
        root_volume: Some(RootVolume {
            device: "/dev/xvda".to_owned(),
            size_gib: 20,
        }),
        volumes: vec![LaunchVolume {
            device: "/dev/sdf".to_owned(),
            snapshot: snapshot.clone(),
        }],
        instance_tags: true,
        token_required: true,
        terminate_on_shutdown: true,
        tags: tags("moto"),
        token: "token-1".to_owned(),
    }
}

async fn payload(cloud: &AwsCloud) -> SnapshotId {
    let spec = SnapshotSpec {
        size_gib: 1,
        description: "payload".to_owned(),
        tags: BTreeMap::from([
            ("cos:bundle".to_owned(), "d1".to_owned()),
            ("cos:bake-id".to_owned(), "moto".to_owned()),
        ]),
        token: "snapshot-1".to_owned(),
    };
    let id = cloud.start_snapshot(&spec).await.unwrap();
    for index in 0..3 {
        cloud.put_block(&id, index, vec![1; 524_288]).await.unwrap();
    }
    cloud.complete_snapshot(&id, 3).await.unwrap();
    let facts = cloud.snapshot(&id).await.unwrap().unwrap();
    assert_eq!(facts.state, SnapshotState::Completed);
    assert_eq!(facts.tags, spec.tags);
    let found = cloud.snapshots_tagged("cos:bundle", "d1").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, id);
    assert_eq!(cloud.snapshots_tagged("cos:bundle", "d2").await.unwrap(), []);
    id
}

#[tokio::test]
#[ignore = "run by moto_understands_each_call"]
async fn each_call() {
    let cloud = AwsCloud::connect(None).await.unwrap();
    assert_eq!(cloud.region(), "eu-central-1");

    let name = "/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2";
    let base = ImageId(cloud.parameter(name).await.unwrap().unwrap());
    assert_eq!(cloud.parameter("/cos/none").await.unwrap(), None);
    let facts = cloud.image(&base).await.unwrap().unwrap();
    assert_eq!(
        (facts.state, facts.architecture.as_str()),
        (ImageState::Available, "x86_64")
    );
    assert_eq!(
        cloud
            .image(&ImageId::from("ami-00000000000000000"))
            .await
            .unwrap(),
        None
    );

    let subnets = cloud.subnets().await.unwrap();
    assert!(
        subnets.iter().all(|subnet| subnet.default_for_zone) && subnets.len() >= 2,
        "{subnets:?}"
    );
    assert!(subnets.is_sorted_by_key(|subnet| &subnet.zone));
    let zones = cloud.zones_offering("t3.small").await.unwrap();
    assert!(zones.contains(&subnets[0].zone), "{zones:?}");

    let payload = payload(&cloud).await;
    let spec = launch_spec(base, &subnets[0].id, &payload);
    cloud.may_launch(&spec).await.unwrap();
    assert_eq!(
        cloud.tagged("cos:bake-id", Some("moto")).await.unwrap().len(),
        1,
        "a dry run makes nothing"
    );
    let builder = cloud.launch(&spec).await.unwrap();
    let facts = cloud.instance(&builder).await.unwrap().unwrap();
    assert_eq!(
        (facts.state, &facts.zone),
        (InstanceState::Running, &subnets[0].zone)
    );
    assert_eq!(facts.tags, spec.tags);
    let devices: Vec<&str> = facts.volumes.iter().map(|(device, _)| device.as_str()).collect();
    assert!(devices.contains(&"/dev/sdf"), "{devices:?}");
    assert_eq!(
        cloud
            .instance(&InstanceId::from("i-00000000000000000"))
            .await
            .unwrap(),
        None
    );
    cloud.console(&builder).await.unwrap();

    let volume_spec = VolumeSpec {
        snapshot: payload.clone(),
        zone: subnets[0].zone.clone(),
        tags: tags("moto"),
        token: "volume-1".to_owned(),
    };
    let volume = cloud.create_volume(&volume_spec).await.unwrap();
    assert_eq!(
        cloud.volume(&volume).await.unwrap().unwrap().state,
        VolumeState::Available
    );
    cloud.attach(&volume, &builder, "/dev/sdg").await.unwrap();
    assert_eq!(
        cloud.volume(&volume).await.unwrap().unwrap().state,
        VolumeState::InUse
    );
    cloud.attach(&volume, &builder, "/dev/sdg").await.unwrap();

    let remote = SsmRemote::new(&cloud);
    let script = Script {
        name: "say so".to_owned(),
        text: "echo so".to_owned(),
        deadline: Duration::from_secs(30),
    };
    // Plain moto runs nothing and says Success.
    assert_eq!(remote.run(&builder, &script).await.unwrap().status, Some(0));

    cloud.stop(&builder).await.unwrap();
    assert_eq!(
        cloud.instance(&builder).await.unwrap().unwrap().state,
        InstanceState::Stopped
    );
    let image_spec = ImageSpec {
        instance: builder.clone(),
        name: "cos-moto".to_owned(),
        description: "an image".to_owned(),
        without_devices: vec!["/dev/sdf".to_owned(), "/dev/sdg".to_owned()],
        tags: tags("moto"),
    };
    let image = cloud.create_image(&image_spec).await.unwrap();
    let made = cloud.image_named("cos-moto").await.unwrap().unwrap();
    assert_eq!((&made.id, &made.tags), (&image, &tags("moto")));
    assert_eq!(
        cloud.image_named("cos-*").await.unwrap(),
        None,
        "a name is no pattern"
    );
    let resource = Resource::Image(image.clone());
    cloud
        .tag(
            &resource,
            &BTreeMap::from([("channel".to_owned(), "stable".to_owned())]),
        )
        .await
        .unwrap();
    assert_eq!(
        cloud.image(&image).await.unwrap().unwrap().tags["channel"],
        "stable"
    );
    cloud.untag(&resource, &["channel"]).await.unwrap();
    assert_eq!(cloud.image(&image).await.unwrap().unwrap().tags, tags("moto"));

    let found = cloud.tagged("cos:bake-id", None).await.unwrap();
    for resource in [
        Resource::Instance(builder.clone()),
        Resource::Volume(volume.clone()),
        Resource::Snapshot(payload.clone()),
        resource.clone(),
    ] {
        assert!(
            found.iter().any(|tagged| tagged.resource == resource),
            "{resource} is not in {found:?}"
        );
    }
    assert_eq!(cloud.tagged("cos:bake-id", Some("other")).await.unwrap(), []);

    end_all(&cloud, builder, volume).await;
}

/// What a sweep does, on what moto holds.
async fn end_all(cloud: &AwsCloud, builder: InstanceId, volume: VolumeId) {
    let error = cloud.delete(&Resource::Volume(volume.clone())).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::InUse, "{error}");
    cloud.delete(&Resource::Instance(builder.clone())).await.unwrap();
    assert_eq!(
        cloud.instance(&builder).await.unwrap().unwrap().state,
        InstanceState::Terminated
    );
    // Images come last in the list, and hold their snapshots.
    for tagged in cloud
        .tagged("cos:bake-id", Some("moto"))
        .await
        .unwrap()
        .into_iter()
        .rev()
    {
        cloud.delete(&tagged.resource).await.unwrap();
    }
    let left = cloud.tagged("cos:bake-id", Some("moto")).await.unwrap();
    assert_eq!(left, []);
    assert_eq!(cloud.volume(&volume).await.unwrap(), None);
    cloud
        .delete(&Resource::Volume(VolumeId::from("vol-00000000000000000")))
        .await
        .unwrap();
    cloud
        .delete(&Resource::Image(ImageId::from("ami-00000000000000000")))
        .await
        .unwrap();
    cloud
        .delete(&Resource::Snapshot(SnapshotId::from("snap-00000000000000000")))
        .await
        .unwrap();
    cloud
        .delete(&Resource::Instance(InstanceId::from("i-00000000000000000")))
        .await
        .unwrap();
}
