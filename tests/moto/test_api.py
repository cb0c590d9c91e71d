"""What a real AWS SDK sees of the sandbox. Started by `tests/tests/api.rs`, against machines that are fakes."""

import base64
import hashlib
import ipaddress
import json
import os
import time
import unittest
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

PARAMETERS = "/aws/service/ami-amazon-linux-latest"
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
FOLDER = Path(os.environ["COS_TEST_FOLDER"])
ONCE = Config(retries={"total_max_attempts": 1, "mode": "standard"})

ec2 = boto3.client("ec2", config=ONCE)
ssm = boto3.client("ssm", config=ONCE)
ebs = boto3.client("ebs", config=ONCE)
scaling = boto3.client("autoscaling", config=ONCE)


def eventually(look, seconds=15):
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.05)


def base_image(name="amzn2-ami-hvm-x86_64-gp2"):
    return ssm.get_parameter(Name=f"{PARAMETERS}/{name}")["Parameter"]["Value"]


def state(instance):
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return found["State"]["Name"]


def online(instance):
    listed = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [instance]}])
    return bool(listed["InstanceInformationList"])


def launch(**more):
    options = {
        "ImageId": base_image(),
        "InstanceType": "t3.small",
        "MinCount": 1,
        "MaxCount": 1,
        "IamInstanceProfile": {"Name": "cos-builder"},
        **more,
    }
    instance = ec2.run_instances(**options)["Instances"][0]
    assert instance["State"]["Name"] == "pending", instance["State"]
    eventually(lambda: state(instance["InstanceId"]) == "running")
    return instance["InstanceId"]


def finished(command, instance):
    def look():
        it = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
        return it if it["Status"] not in ("Pending", "InProgress") else None

    return eventually(look)


def send(instance, *lines, **more):
    parameters = {"commands": list(lines), **more}
    sent = ssm.send_command(InstanceIds=[instance], DocumentName="AWS-RunShellScript", Parameters=parameters)
    return sent["Command"]["CommandId"]


def run(instance, *lines, **more):
    return finished(send(instance, *lines, **more), instance)


def control(path, body=None, method=None):
    """The sandbox's own API; a body is text, or a document."""
    kind = "text/plain" if isinstance(body, str) else "application/json"
    text = body if isinstance(body, (str, type(None))) else json.dumps(body)
    data = text.encode() if text is not None else None
    url = f"{ENDPOINT}/_sandbox/{path}"
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request) as reply:
        return json.loads(reply.read())


def volumes_of(instance):
    found = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])
    return {it["Attachments"][0]["Device"]: it for it in found["Volumes"]}


class Case(unittest.TestCase):
    maxDiff = None

    def tearDown(self):
        control("faults", method="DELETE")
        for reservation in ec2.describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] != "terminated":
                    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])

    def refused(self, code, call, **arguments):
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        self.assertEqual(caught.exception.response["Error"]["Code"], code, caught.exception)
        return caught.exception.response


class Bases(Case):
    def test_parameters_name_distinct_images_of_amazon(self):
        names = (
            "amzn-ami-hvm-x86_64-gp2",
            "amzn2-ami-hvm-x86_64-gp2",
            "amzn2-ami-hvm-arm64-gp2",
            "al2023-ami-kernel-default-x86_64",
            "al2023-ami-kernel-default-arm64",
        )
        ids = [base_image(name) for name in names]
        self.assertEqual(len(set(ids)), 5)
        images = ec2.describe_images(ImageIds=ids, Owners=["amazon"])["Images"]
        self.assertEqual(len({it["CreationDate"] for it in images}), 5)
        for image in images:
            self.assertEqual(image["OwnerId"], "137112412989")
            self.assertEqual(image["ImageOwnerAlias"], "amazon")
            self.assertEqual(image["RootDeviceName"], "/dev/xvda")
            self.assertEqual(image["RootDeviceType"], "ebs")
            self.assertEqual(image["VirtualizationType"], "hvm")
            self.assertTrue(image["EnaSupport"])
            self.assertEqual(image["State"], "available")
            self.assertIn("Debian stand-in", image["Description"])
            mapping = image["BlockDeviceMappings"][0]
            self.assertEqual(mapping["DeviceName"], "/dev/xvda")
            self.assertEqual(mapping["Ebs"]["VolumeSize"], 8)
            self.assertTrue(mapping["Ebs"]["SnapshotId"].startswith("snap-"))
        arm = [it["ImageId"] for it in images if it["Architecture"] == "arm64"]
        self.assertEqual(len(arm), 2)
        self.refused("Unsupported", ec2.run_instances, ImageId=arm[0], MinCount=1, MaxCount=1)

    def test_nothing_of_amazon_is_self(self):
        self.assertEqual(ec2.describe_images(Owners=["self"])["Images"], [])
        self.assertEqual(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"], [])

    def test_identity_and_profiles(self):
        self.assertEqual(boto3.client("sts").get_caller_identity()["Account"], "123456789012")
        iam = boto3.client("iam")
        for name in ("cos-builder", "cos-node"):
            profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            role = profile["Roles"][0]["RoleName"]
            policies = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            self.assertIn("AmazonSSMManagedInstanceCore", [it["PolicyName"] for it in policies])

    def test_logins_for_ecr_hold_for_hours(self):
        login = boto3.client("ecr").get_authorization_token()["authorizationData"][0]
        self.assertGreater(login["expiresAt"].timestamp(), time.time() + 11 * 3600)


class Instances(Case):
    def test_a_launch_reaches_the_machine(self):
        user_data = b"#cloud-config\n\x00\xff bytes\n"
        instance = launch(
            UserData=user_data,
            MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "a"}, {"Key": "cos:bake-id", "Value": "b"}]},
                {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "disk"}]},
            ],
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 12, "VolumeType": "gp3"}},
                {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": True}},
            ],
        )
        eventually(lambda: online(instance))
        spec = json.loads(run(instance, 'printf %s "$SPEC"')["StandardOutputContent"])
        self.assertEqual(bytes(spec["user_data"]), user_data)
        self.assertEqual(spec["kind"], "vm")
        self.assertEqual(spec["tags"], {"Name": "a", "cos:bake-id": "b"})
        self.assertTrue(spec["instance_tags"] and spec["token_required"])
        self.assertEqual(spec["role"], "cos-builder")
        described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        self.assertEqual(spec["address"], described["PrivateIpAddress"])
        self.assertEqual(spec["zone"], described["Placement"]["AvailabilityZone"])
        subnet = ec2.describe_subnets(SubnetIds=[described["SubnetId"]])["Subnets"][0]
        self.assertIn(ipaddress.ip_address(spec["address"]), ipaddress.ip_network(subnet["CidrBlock"]))
        self.assertNotIn("StateReason", described)
        self.assertTrue(described["IamInstanceProfile"]["Arn"].endswith("instance-profile/cos-builder"))
        volumes = volumes_of(instance)
        self.assertEqual(sorted(volumes), ["/dev/sdf", "/dev/xvda"])
        self.assertEqual(volumes["/dev/xvda"]["Size"], 12)
        self.assertEqual(volumes["/dev/xvda"]["VolumeType"], "gp3")
        self.assertTrue(volumes["/dev/xvda"]["Attachments"][0]["DeleteOnTermination"])
        self.assertEqual(volumes["/dev/sdf"]["Tags"], [{"Key": "Name", "Value": "disk"}])
        self.assertEqual(run(instance, 'head -c 13 "$ROOT_DISK"')["StandardOutputContent"], "the base disk")
        found = ec2.describe_instances(Filters=[{"Name": "tag:cos:bake-id", "Values": ["b"]}])["Reservations"]
        self.assertIn(instance, [it["Instances"][0]["InstanceId"] for it in found])
        ec2.create_tags(Resources=[instance], Tags=[{"Key": "later", "Value": "1"}])
        spec = json.loads(run(instance, 'printf %s "$SPEC"')["StandardOutputContent"])
        self.assertEqual(spec["tags"]["later"], "1")
        output = ec2.get_console_output(InstanceId=instance, Latest=True)["Output"]
        self.assertEqual(output, f"console of {instance}\n")

    def test_stop_start_and_terminate_are_real(self):
        instance = launch()
        eventually(lambda: online(instance))
        run(instance, 'echo mine > "$ROOT_DISK"')
        stopping = ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
        self.assertEqual(stopping["CurrentState"]["Name"], "stopping")
        self.assertEqual(stopping["PreviousState"]["Name"], "running")
        eventually(lambda: state(instance) == "stopped")
        self.assertFalse(online(instance))
        self.refused("InvalidInstanceId", lambda: send("i-00000000000000000", "true"))
        self.refused("InvalidInstanceId", lambda: send(instance, "true"))
        ec2.start_instances(InstanceIds=[instance])
        eventually(lambda: online(instance))
        self.assertEqual(run(instance, 'head -c 5 "$ROOT_DISK"')["StandardOutputContent"], "mine\n")
        ec2.reboot_instances(InstanceIds=[instance])
        eventually(lambda: online(instance))
        volume = volumes_of(instance)["/dev/xvda"]["VolumeId"]
        disk = FOLDER / "disks" / f"{volume}.raw"
        self.assertTrue(disk.exists())
        ec2.terminate_instances(InstanceIds=[instance])
        eventually(lambda: state(instance) == "terminated")
        self.refused("InvalidVolume.NotFound", ec2.describe_volumes, VolumeIds=[volume])
        self.assertFalse(disk.exists())
        self.refused("IncorrectInstanceState", ec2.start_instances, InstanceIds=[instance])

    def test_power_off_from_inside_follows_the_shutdown_behaviour(self):
        for behaviour, end in (("stop", "stopped"), ("terminate", "terminated")):
            instance = launch(InstanceInitiatedShutdownBehavior=behaviour)
            eventually(lambda: online(instance))
            send(instance, "poweroff")
            eventually(lambda: state(instance) == end)
            described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
            self.assertEqual(described["StateReason"]["Code"], "Client.InstanceInitiatedShutdown")
            self.assertEqual(len(volumes_of(instance)), 1 if end == "stopped" else 0)

    def test_a_client_token_launches_once(self):
        token = str(uuid.uuid4())
        arguments = dict(ImageId=base_image(), MinCount=1, MaxCount=1, ClientToken=token)
        first = ec2.run_instances(**arguments)["Instances"][0]["InstanceId"]
        self.assertEqual(ec2.run_instances(**arguments)["Instances"][0]["InstanceId"], first)
        other = {**arguments, "InstanceType": "t3.large"}
        self.refused("IdempotentParameterMismatch", ec2.run_instances, **other)

    def test_dry_runs_and_wrong_input(self):
        arguments = dict(ImageId=base_image(), MinCount=1, MaxCount=1)
        self.refused("DryRunOperation", ec2.run_instances, DryRun=True, **arguments)
        self.refused("InvalidAMIID.NotFound", ec2.run_instances, ImageId="ami-00000000", MinCount=1, MaxCount=1)
        instance = launch()
        self.refused("DryRunOperation", ec2.terminate_instances, InstanceIds=[instance], DryRun=True)
        self.refused("DryRunOperation", ec2.create_image, InstanceId=instance, Name="dry", DryRun=True)
        self.refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=["i-00000000000000000"])
        self.assertEqual(state(instance), "running")

    def test_without_a_profile_nobody_is_online(self):
        instance = ec2.run_instances(ImageId=base_image(), MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        eventually(lambda: state(instance) == "running")
        time.sleep(1)
        self.assertFalse(online(instance))


class Disks(Case):
    def test_an_image_is_the_instances_disks(self):
        instance = launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": True}}])
        eventually(lambda: online(instance))
        run(instance, 'printf baked > "$ROOT_DISK"')
        ec2.stop_instances(InstanceIds=[instance])
        eventually(lambda: state(instance) == "stopped")
        name = f"cos {uuid.uuid4()}"
        arguments = dict(
            InstanceId=instance,
            Name=name,
            Description="d",
            BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "NoDevice": ""}],
            TagSpecifications=[
                {"ResourceType": "image", "Tags": [{"Key": "cos:bake-id", "Value": name}]},
                {"ResourceType": "snapshot", "Tags": [{"Key": "cos:bake-id", "Value": name}]},
            ],
        )
        image_id = ec2.create_image(**arguments)["ImageId"]
        self.refused("InvalidAMIName.Duplicate", ec2.create_image, **arguments)
        self.refused("InvalidAMIName.Malformed", ec2.create_image, InstanceId=instance, Name="a??")
        ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        ec2.terminate_instances(InstanceIds=[instance])
        tagged = [{"Name": "tag:cos:bake-id", "Values": [name]}]
        image = ec2.describe_images(Owners=["self"], Filters=tagged)["Images"][0]
        self.assertEqual(image["ImageId"], image_id)
        self.assertEqual((image["Name"], image["Description"]), (name, "d"))
        self.assertEqual((image["RootDeviceName"], image["Architecture"]), ("/dev/xvda", "x86_64"))
        self.assertEqual([it["DeviceName"] for it in image["BlockDeviceMappings"]], ["/dev/xvda"])
        snapshots = ec2.describe_snapshots(OwnerIds=["self"], Filters=tagged)["Snapshots"]
        self.assertEqual([it["SnapshotId"] for it in snapshots], [image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]])
        self.assertEqual((snapshots[0]["State"], snapshots[0]["Progress"]), ("completed", "100%"))
        self.assertIn(image_id, snapshots[0]["Description"])
        self.assertEqual(ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"][0]["ImageId"], image_id)

        ec2.modify_image_attribute(ImageId=image_id, Description={"Value": "new"})
        ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": "111122223333"}]})
        permissions = ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")["LaunchPermissions"]
        self.assertEqual(permissions, [{"UserId": "111122223333"}])
        self.assertEqual(ec2.describe_images(ImageIds=[image_id])["Images"][0]["Description"], "new")

        again = launch(ImageId=image_id)
        eventually(lambda: online(again))
        self.assertEqual(run(again, 'head -c 5 "$ROOT_DISK"')["StandardOutputContent"], "baked")
        snapshot = snapshots[0]["SnapshotId"]
        self.refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=snapshot)
        gone = ec2.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)
        self.assertEqual(gone["DeleteSnapshotResults"], [{"SnapshotId": snapshot, "ReturnCode": "success"}])
        self.assertFalse((FOLDER / "disks" / f"{snapshot}.raw").exists())
        self.assertEqual(ec2.describe_images(Owners=["self"], Filters=tagged)["Images"], [])

    def test_an_image_of_a_running_instance_reboots_it(self):
        instance = launch()
        eventually(lambda: online(instance))
        run(instance, 'printf hot > "$ROOT_DISK"')
        image = ec2.create_image(InstanceId=instance, Name=f"hot {uuid.uuid4()}")["ImageId"]
        eventually(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
        eventually(lambda: online(instance))
        run(instance, 'printf new > "$ROOT_DISK"')
        again = launch(ImageId=image)
        eventually(lambda: online(again))
        self.assertEqual(run(again, 'head -c 3 "$ROOT_DISK"')["StandardOutputContent"], "hot")
        ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)

    def test_volumes_attach_to_running_machines(self):
        instance = launch()
        eventually(lambda: online(instance))
        zone = volumes_of(instance)["/dev/xvda"]["AvailabilityZone"]
        tags = [{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": "v"}]}]
        volume = ec2.create_volume(Size=1, AvailabilityZone=zone, TagSpecifications=tags)["VolumeId"]
        ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1})
        self.refused("InvalidParameterValue", ec2.attach_volume, VolumeId=volume, InstanceId=instance, Device="/dev/xvda")
        ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        self.assertEqual(ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"], "in-use")
        self.refused("VolumeInUse", ec2.delete_volume, VolumeId=volume)
        run(instance, "printf hello > $VOLUMES")
        snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
        ec2.detach_volume(VolumeId=volume)
        self.assertEqual(ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"], "available")
        ec2.delete_volume(VolumeId=volume)
        self.refused("InvalidVolume.NotFound", ec2.delete_volume, VolumeId=volume)
        second = launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": snapshot, "DeleteOnTermination": True}}])
        eventually(lambda: online(second))
        self.assertEqual(run(second, "head -c 5 $VOLUMES")["StandardOutputContent"], "hello")
        ec2.delete_snapshot(SnapshotId=snapshot)
        self.refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[snapshot])


class Direct(Case):
    BLOCK = 524288

    def put(self, snapshot, index, data, checksum=None):
        digest = hashlib.sha256(data).digest()
        ebs.put_snapshot_block(
            SnapshotId=snapshot,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=checksum or base64.b64encode(digest).decode(),
            ChecksumAlgorithm="SHA256",
        )
        return digest

    def test_blocks_become_a_disk_and_come_back(self):
        tags = [{"Key": "cos:bundle", "Value": str(uuid.uuid4())}]
        token = str(uuid.uuid4())
        started = ebs.start_snapshot(VolumeSize=1, Tags=tags, ClientToken=token, Description="payload")
        snapshot = started["SnapshotId"]
        self.assertEqual(started["BlockSize"], self.BLOCK)
        self.assertEqual(ebs.start_snapshot(VolumeSize=1, Tags=tags, ClientToken=token, Description="payload")["SnapshotId"], snapshot)
        self.assertEqual(ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"], "pending")
        blocks = {index: bytes([index]) * self.BLOCK for index in (0, 1, 7)}
        digests = {index: self.put(snapshot, index, data) for index, data in blocks.items()}
        wrong = base64.b64encode(bytes(32)).decode()
        with self.assertRaises(ebs.exceptions.ValidationException):
            self.put(snapshot, 2, bytes(self.BLOCK), wrong)
        with self.assertRaises(ebs.exceptions.ValidationException):
            self.put(snapshot, 2048, bytes(self.BLOCK))
        with self.assertRaises(ebs.exceptions.ValidationException):
            ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=2)
        linear = hashlib.sha256(b"".join(digests[index] for index in sorted(digests))).digest()
        for checksum in (wrong, base64.b64encode(linear).decode()):
            arguments = dict(
                SnapshotId=snapshot,
                ChangedBlocksCount=3,
                Checksum=checksum,
                ChecksumAlgorithm="SHA256",
                ChecksumAggregationMethod="LINEAR",
            )
            if checksum == wrong:
                with self.assertRaises(ebs.exceptions.ValidationException):
                    ebs.complete_snapshot(**arguments)
            else:
                ebs.complete_snapshot(**arguments)
        with self.assertRaises(ebs.exceptions.ResourceNotFoundException):
            self.put(snapshot, 3, bytes(self.BLOCK))
        found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:cos:bundle", "Values": [tags[0]["Value"]]}])
        self.assertEqual(found["Snapshots"][0]["State"], "completed")
        self.assertEqual(found["Snapshots"][0]["VolumeSize"], 1)
        listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
        self.assertEqual([it["BlockIndex"] for it in listed], [0, 1, 7])
        for it in listed:
            got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=it["BlockIndex"], BlockToken=it["BlockToken"])
            self.assertEqual(got["BlockData"].read(), blocks[it["BlockIndex"]])
        instance = launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": snapshot, "DeleteOnTermination": True}}])
        eventually(lambda: online(instance))
        seen = run(instance, "dd if=$VOLUMES bs=524288 skip=7 count=1 2>/dev/null | sha256sum")["StandardOutputContent"]
        self.assertEqual(seen.split()[0], digests[7].hex())
        self.assertEqual(volumes_of(instance)["/dev/sdf"]["Size"], 1)
        ec2.delete_snapshot(SnapshotId=snapshot)

    def test_a_thousand_blocks_are_quick(self):
        snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        data = os.urandom(self.BLOCK)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: self.put(snapshot, index, data), range(1000)))
        passed = time.monotonic() - began
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1000)
        ec2.delete_snapshot(SnapshotId=snapshot)
        print(f"1000 blocks in {passed:.1f} s")
        self.assertLess(passed, 60)


class Commands(Case):
    def test_results_are_those_of_the_script(self):
        instance = launch()
        eventually(lambda: online(instance))
        done = run(instance, "echo out", "echo err >&2")
        self.assertEqual((done["Status"], done["ResponseCode"]), ("Success", 0))
        self.assertEqual((done["StandardOutputContent"], done["StandardErrorContent"]), ("out\n", "err\n"))
        failed = run(instance, "exit 7")
        self.assertEqual((failed["Status"], failed["ResponseCode"]), ("Failed", 7))
        long = run(instance, "seq 100000", "seq 100000 >&2")
        self.assertEqual((len(long["StandardOutputContent"]), len(long["StandardErrorContent"])), (24000, 8000))
        self.assertTrue(long["StandardOutputContent"].startswith("1\n2\n"))
        slow = run(instance, "sleep 60", executionTimeout=["5"])
        self.assertEqual((slow["Status"], slow["StatusDetails"]), ("TimedOut", "ExecutionTimedOut"))
        with self.assertRaises(ssm.exceptions.InvocationDoesNotExist):
            ssm.get_command_invocation(CommandId=str(uuid.uuid4()), InstanceId=instance)

    def test_several_run_at_once_and_can_be_cancelled(self):
        instance = launch()
        eventually(lambda: online(instance))
        long = send(instance, "sleep 60")
        began = time.monotonic()
        several = [send(instance, "sleep 1") for _ in range(3)]
        self.assertEqual([finished(it, instance)["Status"] for it in several], ["Success"] * 3)
        self.assertLess(time.monotonic() - began, 2.9)
        self.assertEqual(ssm.get_command_invocation(CommandId=long, InstanceId=instance)["Status"], "InProgress")
        ssm.cancel_command(CommandId=long)
        self.assertEqual(finished(long, instance)["Status"], "Cancelled")
        listed = ssm.list_command_invocations(CommandId=long, Details=True)["CommandInvocations"]
        self.assertEqual(listed[0]["Status"], "Cancelled")
        self.assertEqual(ssm.list_commands(CommandId=several[0])["Commands"][0]["Status"], "Success")


class Scaling(Case):
    GROUP = "workers"
    LAUNCH, TERMINATE = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"

    def setUp(self):
        data = {
            "ImageId": base_image(),
            "InstanceType": "t3.small",
            "IamInstanceProfile": {"Name": "cos-node"},
            "UserData": base64.b64encode(b"#cloud-config\n").decode(),
        }
        ec2.create_launch_template(LaunchTemplateName=self.GROUP, LaunchTemplateData=data)
        self.addCleanup(ec2.delete_launch_template, LaunchTemplateName=self.GROUP)

    def group(self, size, *hooks):
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.GROUP,
            LaunchTemplate={"LaunchTemplateName": self.GROUP, "Version": "$Latest"},
            MinSize=0,
            MaxSize=5,
            DesiredCapacity=size,
            AvailabilityZones=["us-east-1a"],
            LifecycleHookSpecificationList=[
                {
                    "LifecycleHookName": name,
                    "LifecycleTransition": transition,
                    "HeartbeatTimeout": timeout,
                    "DefaultResult": "CONTINUE",
                }
                for name, transition, timeout in hooks
            ],
        )
        self.addCleanup(scaling.delete_auto_scaling_group, AutoScalingGroupName=self.GROUP, ForceDelete=True)

    def states(self):
        found = scaling.describe_auto_scaling_instances()["AutoScalingInstances"]
        return {it["InstanceId"]: it["LifecycleState"] for it in found}

    def about(self, instance, hook):
        return {"AutoScalingGroupName": self.GROUP, "LifecycleHookName": hook, "InstanceId": instance}

    def notices(self, instance):
        eventually(lambda: online(instance))
        return json.loads(run(instance, 'echo "$SPEC"')["StandardOutputContent"])["notices"]

    def test_an_instance_waits_at_the_hooks_of_its_way_in_and_out(self):
        self.group(2, ("up", self.LAUNCH, 60), ("down", self.TERMINATE, 60))
        self.assertEqual(set(self.states().values()), {"Pending:Wait"})
        first, second = self.states()
        self.assertEqual(self.notices(first), {"autoscaling/target-lifecycle-state": "InService"})
        scaling.record_lifecycle_action_heartbeat(**self.about(first, "up"))
        scaling.complete_lifecycle_action(**self.about(first, "up"), LifecycleActionResult="CONTINUE")
        self.assertEqual(self.states(), {first: "InService", second: "Pending:Wait"})
        self.refused(
            "ValidationError",
            scaling.complete_lifecycle_action,
            **self.about(first, "up"),
            LifecycleActionResult="CONTINUE",
        )
        # One that cannot be used is ended, and another one comes in its place.
        scaling.complete_lifecycle_action(**self.about(second, "up"), LifecycleActionResult="ABANDON")
        self.assertIn(state(second), ("shutting-down", "terminated"))
        self.assertEqual(sorted(self.states().values()), ["InService", "Pending:Wait"])

        scaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
        self.assertEqual(self.states()[first], "Terminating:Wait")
        listed = next(it for it in control("state")["held"]["instances"] if it["id"] == first)
        self.assertEqual((listed["group"], listed["lifecycle"]), (self.GROUP, "Terminating:Wait"))
        self.assertEqual(self.notices(first), {"autoscaling/target-lifecycle-state": "Terminated"})
        self.assertEqual(len(self.states()), 2)
        scaling.record_lifecycle_action_heartbeat(**self.about(first, "down"))
        scaling.complete_lifecycle_action(**self.about(first, "down"), LifecycleActionResult="CONTINUE")
        self.assertNotIn(first, self.states())
        eventually(lambda: state(first) == "terminated")
        said = [(it["hook"], it["said"]) for it in control("lifecycle") if it["instance"] == first]
        wanted = [("up", "waits"), ("up", "heartbeat"), ("up", "CONTINUE")]
        wanted += [("down", "waits"), ("down", "heartbeat"), ("down", "CONTINUE")]
        self.assertEqual(said, wanted)

    def test_heartbeats_make_a_hook_wait_longer_and_silence_is_its_default(self):
        self.group(1, ("up", self.LAUNCH, 2))
        (instance,) = self.states()
        for _ in range(3):
            time.sleep(1)
            scaling.record_lifecycle_action_heartbeat(**self.about(instance, "up"))
        self.assertEqual(self.states(), {instance: "Pending:Wait"})
        eventually(lambda: self.states() == {instance: "InService"})

    def test_scaling_in_and_out_goes_through_the_hooks(self):
        self.group(1, ("down", self.TERMINATE, 60))
        self.assertEqual(list(self.states().values()), ["InService"])
        (first,) = self.states()
        scaling.set_desired_capacity(AutoScalingGroupName=self.GROUP, DesiredCapacity=0)
        self.assertEqual(self.states(), {first: "Terminating:Wait"})
        scaling.set_desired_capacity(AutoScalingGroupName=self.GROUP, DesiredCapacity=1)
        self.assertEqual(sorted(self.states().values()), ["InService", "Terminating:Wait"])
        # Whoever ends a member by hand gets another one.
        second = next(it for it, where in self.states().items() if where == "InService")
        ec2.terminate_instances(InstanceIds=[second])
        self.assertNotIn(second, self.states())
        self.assertEqual(sorted(self.states().values()), ["InService", "Terminating:Wait"])

    def test_other_states_are_told_too(self):
        self.group(1)
        (instance,) = self.states()
        about = {"AutoScalingGroupName": self.GROUP, "InstanceIds": [instance]}
        for call, target in (
            (lambda: scaling.enter_standby(**about, ShouldDecrementDesiredCapacity=True), "Standby"),
            (lambda: scaling.exit_standby(**about), "InService"),
            (lambda: scaling.detach_instances(**about, ShouldDecrementDesiredCapacity=True), "Detached"),
        ):
            call()
            self.assertEqual(self.notices(instance), {"autoscaling/target-lifecycle-state": target})
        ec2.terminate_instances(InstanceIds=[instance])
        self.refused(
            "ValidationError",
            scaling.terminate_instance_in_auto_scaling_group,
            InstanceId=instance,
            ShouldDecrementDesiredCapacity=True,
        )


class Notices(Case):
    def test_an_instance_is_told_and_its_end_is_not_done(self):
        instance = launch()
        eventually(lambda: online(instance))
        told = {"instance": instance, "notice": "spot", "after": 120, "action": "terminate"}
        self.assertEqual(control("notice", told)["path"], "spot/instance-action")
        control("notice", {"instance": instance, "notice": "rebalance"})
        seen = json.loads(run(instance, 'echo "$SPEC"')["StandardOutputContent"])["notices"]
        self.assertEqual(json.loads(seen["spot/instance-action"])["action"], "terminate")
        control("notice", {"instance": instance, "notice": "withdraw", "kind": "spot"})
        seen = json.loads(run(instance, 'echo "$SPEC"')["StandardOutputContent"])["notices"]
        self.assertEqual(list(seen), ["events/recommendations/rebalance"])
        with self.assertRaises(urllib.error.HTTPError) as refused:
            control("notice", {"instance": "i-0", "notice": "rebalance"})
        self.assertEqual(refused.exception.code, 404)


class Faults(Case):
    def test_errors_throttles_and_not_found(self):
        control("faults", "ec2:DescribeRegions:nth=2:error=500\nssm:GetParameter:first=1:throttle\nec2:DescribeImages:not-found=1")
        ec2.describe_regions()
        self.assertEqual(self.refused("InternalError", ec2.describe_regions)["ResponseMetadata"]["HTTPStatusCode"], 500)
        ec2.describe_regions()
        self.refused("ThrottlingException", base_image)
        image = base_image()
        self.refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=[image])
        ec2.describe_images(ImageIds=[image])
        control("faults", "sts:*:error=ExpiredToken")
        self.refused("ExpiredToken", boto3.client("sts", config=ONCE).get_caller_identity)

    def test_a_dropped_reply_was_done(self):
        control("faults", "ec2:CreateSecurityGroup:nth=1:drop")
        with self.assertRaises((EndpointConnectionError, HTTPClientError)):
            ec2.create_security_group(GroupName="dropped", Description="d")
        groups = ec2.describe_security_groups(GroupNames=["dropped"])["SecurityGroups"]
        self.assertEqual(len(groups), 1)
        ec2.delete_security_group(GroupId=groups[0]["GroupId"])

    def test_a_reply_can_hang(self):
        control("faults", "ec2:DescribeRegions:nth=1:hang=1")
        began = time.monotonic()
        ec2.describe_regions()
        self.assertGreater(time.monotonic() - began, 1)

    def test_wrong_rules_are_refused(self):
        with self.assertRaises(urllib.error.HTTPError):
            control("faults", "nonsense")

    def test_calls_are_recorded(self):
        instance = launch()
        self.refused("InvalidAMIName.Malformed", ec2.create_image, InstanceId=instance, Name="a??")
        lines = [json.loads(line) for line in (FOLDER / "record.jsonl").read_text().splitlines()]
        run_line = next(it for it in reversed(lines) if it["operation"] == "RunInstances" and it["status"] == 200)
        self.assertEqual(run_line["service"], "ec2")
        self.assertIn(instance, run_line["ids"])
        self.assertGreaterEqual(run_line["milliseconds"], 0)
        failed = next(it for it in reversed(lines) if it["operation"] == "CreateImage")
        self.assertEqual((failed["status"], failed["error"]), (400, "InvalidAMIName.Malformed"))


class Zz_Leftovers(Case):
    """Runs last: what the others made must be gone."""

    def test_nothing_is_left(self):
        def look():
            seen = control("state")
            return seen["leftovers"] == 0

        try:
            eventually(look, 20)
        except AssertionError:
            self.fail(json.dumps(control("state"), indent=1))
        instance = launch()
        seen = control("state")
        self.assertIn(instance, [it["id"] for it in seen["held"]["instances"]])
        self.assertIn("stand-in", seen["about"]["notice"])


if __name__ == "__main__":
    unittest.main()
