"""Images: base images from the sandbox's list, and those that CreateImage makes of an instance's very disks."""

import re

from cos_volumes import begin, usable
from cos_wire import CONFIGURATION, LOCK, Refused, call, patch, quiet, tags_of
from moto.core.parse import default_timestamp_parser as parse_timestamp
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.utils import random_ami_id, random_snapshot_id

AMAZON = "137112412989"
NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


def create_ami(original, ami, backend, ami_id, **kwargs):
    """moto gives every image a snapshot of 15 GiB; ours have those that they were made of."""
    mappings = kwargs.pop("cos_mappings", [])
    with quiet():
        original(ami, backend, ami_id, **kwargs)
    backend.snapshots.pop(ami.ebs_snapshot.id, None)
    ami.cos_mappings = mappings
    ami.root_device_type = "ebs"
    ami.ena_support = True
    ami.image_location = f"{ami.owner_id}/{ami.name}"


def block_device_mappings(ami):
    """Snapshot ids show only once the image is available, as in EC2."""
    if ami.state != "pending":
        return ami.cos_mappings
    return [{**it, "Ebs": {k: v for k, v in it["Ebs"].items() if k != "SnapshotId"}} for it in ami.cos_mappings]


def apply(backend):
    for image in list(backend.amis.values()):
        if image.state != "pending":
            continue
        snapshots = [backend.snapshots.get(it["Ebs"]["SnapshotId"]) for it in image.cos_mappings]
        if any(it is None or it.status == "error" for it in snapshots):
            image.state = "failed"
            image.state_reason = {"Code": "Client.InternalError", "Message": "a snapshot of the image failed"}
        elif all(it.status == "completed" for it in snapshots):
            image.state = "available"


def load_base_images(backend):
    if backend.region_name != CONFIGURATION["region"]:
        return
    for base in CONFIGURATION["images"]:
        volume = Volume(backend, "vol-ffffffff", base["gib"], None)
        snapshot = Snapshot(backend, base["snapshot"], volume, base["description"], owner_id=AMAZON)
        backend.snapshots[snapshot.id] = snapshot
        mapping = ebs_mapping("/dev/xvda", snapshot.id, base["gib"], "gp2", True)
        ami = Ami(
            backend,
            base["image"],
            name=base["name"],
            description=base["description"],
            owner_id=AMAZON,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture=base["architecture"],
            creation_date=parse_timestamp(base["created"]),
            hypervisor="xen",
            root_device_name="/dev/xvda",
            boot_mode="legacy-bios" if base["architecture"] == "x86_64" else "uefi",
            region_name=f"{backend.region_name}a",
            cos_mappings=[mapping],
        )
        ami.cos_base, ami.cos_refuse = base["base"], base["refuse"]
        ami.image_location = f"amazon/{base['name']}"
        if base["base"] == "al2023":
            ami.imds_support = "v2.0"
        backend.amis[ami.id] = ami


def ebs_mapping(device, snapshot, size, kind, delete):
    return {
        "DeviceName": device,
        "Ebs": {
            "SnapshotId": snapshot,
            "VolumeSize": size,
            "DeleteOnTermination": delete,
            "VolumeType": kind,
            "Encrypted": False,
        },
    }


def check_name(backend, name):
    if not name or not NAME.fullmatch(name):
        message = (
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "and only the following characters: ( ) [ ] space . / - ' @ _"
        )
        raise Refused("InvalidAMIName.Malformed", message)
    for image in backend.amis.values():
        if image.name == name and image.owner_id == backend.account_id:
            raise Refused("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def new_image(backend, name, description, tags, template, mappings, **more):
    image = Ami(backend, random_ami_id(), name=name, description=description, cos_mappings=mappings, **more)
    for key in ("virtualization_type", "architecture", "root_device_name", "hypervisor", "boot_mode", "imds_support"):
        if getattr(template, key, None):
            setattr(image, key, getattr(template, key))
    image.state = "pending"
    backend.amis[image.id] = image
    image.add_tags(tags)
    return image


def create_image(response):
    backend = response.ec2_backend
    name = response._get_param("Name")
    description = response._get_param("Description") or ""
    instance_id = response._get_param("InstanceId")
    no_reboot = response._get_bool_param("NoReboot", False)
    specifications = response._get_param("TagSpecifications", []) or []
    wanted = {it["DeviceName"]: it for it in response._get_param("BlockDeviceMappings", []) or []}
    backend.describe_instances()
    with LOCK:
        instance = backend.get_instance(instance_id)
        check_name(backend, name)
        if instance.state not in ("running", "stopped"):
            message = f"The instance '{instance_id}' is not in the 'running' or 'stopped' state: {instance.state}"
            raise Refused("IncorrectState", message)
        response.error_on_dryrun()
        source = backend.amis.get(instance.image_id)
        mappings, snapshots = [], []
        snapshot_tags = tags_of(specifications, "snapshot")
        for device, block in instance.get_block_device_mapping:
            asked = wanted.get(device, {})
            if asked.get("NoDevice") is not None:
                continue
            volume = backend.get_volume(block.volume_id)
            snapshot = Snapshot(backend, random_snapshot_id(), volume, "")
            begin(snapshot)
            backend.snapshots[snapshot.id] = snapshot
            snapshot.add_tags(snapshot_tags)
            delete = asked.get("Ebs", {}).get("DeleteOnTermination", block.delete_on_termination)
            mappings.append(ebs_mapping(device, snapshot.id, volume.size, volume.volume_type, delete))
            snapshots.append(snapshot)
        image = new_image(
            backend,
            name,
            description,
            tags_of(specifications, "image"),
            source or instance,
            mappings,
            region_name=instance.placement.zone,
        )
        image.root_device_name = instance.root_device_name
        image.architecture = instance.architecture
        image.source_image_id, image.instance_id = instance.image_id, instance_id
        for snapshot in snapshots:
            snapshot.description = f"Created by CreateImage({instance_id}) for {image.id}"
        call(
            "snapshot_create",
            snapshots=[{"id": it.id, "volume": it.volume.id} for it in snapshots],
            reboot=instance_id if instance.state == "running" and not no_reboot else None,
        )
        return ActionResult({"ImageId": image.id})


def copy_image(response):
    backend = response.ec2_backend
    name = response._get_param("Name")
    source_region = response._get_param("SourceRegion")
    source_id = response._get_param("SourceImageId")
    specifications = response._get_param("TagSpecifications", []) or []
    from moto.ec2.models import ec2_backends

    with LOCK:
        source_backend = ec2_backends[response.current_account][source_region]
        source = source_backend.describe_images(ami_ids=[source_id])[0]
        check_name(backend, name)
        if source.state != "available":
            raise Refused("InvalidAMIID.Unavailable", f"The image {source_id} is not available: {source.state}")
        response.error_on_dryrun()
        mappings = []
        for mapping in source.cos_mappings:
            ebs = mapping["Ebs"]
            volume = Volume(backend, "vol-ffffffff", ebs["VolumeSize"], None)
            snapshot = Snapshot(backend, random_snapshot_id(), volume, f"Copied for {source_id} from {source_region}")
            begin(snapshot)
            backend.snapshots[snapshot.id] = snapshot
            snapshot.add_tags(tags_of(specifications, "snapshot"))
            call("snapshot_copy", id=snapshot.id, source=ebs["SnapshotId"])
            mappings.append({**mapping, "Ebs": {**ebs, "SnapshotId": snapshot.id}})
        description = response._get_param("Description") or source.description
        tags = tags_of(specifications, "image")
        zone = f"{backend.region_name}a"
        image = new_image(backend, name, description, tags, source, mappings, region_name=zone)
        image.cos_refuse = getattr(source, "cos_refuse", None)
        return ActionResult({"ImageId": image.id})


def register_image(response):
    backend = response.ec2_backend
    name = response._get_param("Name")
    root = response._get_param("RootDeviceName") or "/dev/sda1"
    specifications = response._get_param("TagSpecifications", []) or []
    with LOCK:
        check_name(backend, name)
        response.error_on_dryrun()
        mappings = []
        for it in response._get_param("BlockDeviceMappings", []) or []:
            ebs = it.get("Ebs", {})
            snapshot = usable(backend, ebs.get("SnapshotId"))
            size = int(ebs.get("VolumeSize") or snapshot.volume.size)
            delete = ebs.get("DeleteOnTermination", True)
            kind = ebs.get("VolumeType", "gp2")
            mappings.append(ebs_mapping(it["DeviceName"], snapshot.id, size, kind, delete))
        if not any(it["DeviceName"] == root for it in mappings):
            raise Refused("InvalidBlockDeviceMapping", f"No snapshot is given for the root device {root}")
        description = response._get_param("Description") or ""
        tags, zone = tags_of(specifications, "image"), f"{backend.region_name}a"
        image = new_image(backend, name, description, tags, None, mappings, region_name=zone)
        # EC2's own defaults are traps, and here they are the same.
        image.architecture = response._get_param("Architecture") or "i386"
        image.virtualization_type = response._get_param("VirtualizationType") or "paravirtual"
        image.root_device_name = root
        image.imds_support = response._get_param("ImdsSupport")
        return ActionResult({"ImageId": image.id})


def deregister_image(response):
    backend = response.ec2_backend
    image_id = response._get_param("ImageId")
    with_snapshots = response._get_bool_param("DeleteAssociatedSnapshots", False)
    with LOCK:
        image = backend.amis.get(image_id)
        if image and image.owner_id != backend.account_id:
            raise Refused("AuthFailure", f"Not authorized for image:{image_id}")
        response.error_on_dryrun()
        backend.deregister_image(image_id)
        results = []
        if with_snapshots and image:
            for mapping in image.cos_mappings:
                snapshot_id = mapping["Ebs"]["SnapshotId"]
                code = "success"
                try:
                    backend.delete_snapshot(snapshot_id)
                except Exception as error:
                    code = "client-error" if getattr(error, "code", "") != "InternalError" else "internal-error"
                results.append({"SnapshotId": snapshot_id, "ReturnCode": code})
        return ActionResult({"Return": True, "DeleteSnapshotResults": results})


def modify_image_attribute(original, response):
    image_id = response._get_param("ImageId")
    attribute = response._get_param("Attribute")
    value = response._get_param("Value")
    description = response._get_param("Description.Value")
    support = response._get_param("ImdsSupport.Value")
    if attribute == "description":
        description = value
    if attribute == "imdsSupport":
        support = value
    if description is None and support is None:
        return original(response)
    image = response.ec2_backend.describe_images(ami_ids=[image_id])[0]
    if image.owner_id != response.current_account:
        raise Refused("AuthFailure", f"Not authorized for image:{image_id}")
    response.error_on_dryrun()
    if description is not None:
        image.description = description
    if support is not None:
        image.imds_support = support
    return EmptyResult()


def install():
    patch(Ami, "__init__")(create_ami)
    Ami.block_device_mappings = property(block_device_mappings)
    AmiBackend._load_amis = load_base_images
    AmisResponse.create_image = create_image
    AmisResponse.copy_image = copy_image
    AmisResponse.register_image = register_image
    AmisResponse.deregister_image = deregister_image
    patch(AmisResponse, "modify_image_attribute")(modify_image_attribute)
