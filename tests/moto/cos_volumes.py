"""Volumes and snapshots: their bytes are files of the executor."""

from cos_wire import LOCK, Refused, call, is_quiet, patch
from moto.core.responses import ActionResult
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot, Volume, VolumeAttachment
from moto.ec2.models.tags import TagBackend
from moto.ec2.responses.elastic_block_store import ElasticBlockStore


def apply(backend, volumes, snapshots):
    for volume in list(backend.volumes.values()):
        if volume.id in volumes:
            volume.cos_state = volumes[volume.id]
    for snapshot in list(backend.snapshots.values()):
        seen = snapshots.get(snapshot.id)
        if seen:
            snapshot.status = seen["state"]
            snapshot.cos_progress = seen["progress"]
            snapshot.state_message = seen.get("message")


def volume_status(volume):
    if volume.attachment:
        return "in-use"
    return getattr(volume, "cos_state", "available")


def delete_on_termination(attachment):
    block = attachment.instance.block_device_mapping.get(attachment.device)
    return bool(block and block.delete_on_termination)


def usable(backend, snapshot_id):
    """A snapshot that a volume can be made from."""
    snapshot = backend.get_snapshot(snapshot_id)
    if snapshot.status != "completed":
        raise Refused("IncorrectState", f"Snapshot {snapshot_id} is in invalid state - {snapshot.status}")
    return snapshot


def create_volume(original, backend, size=None, zone_name=None, snapshot_id=None, **kwargs):
    with LOCK:
        size = int(size) if size is not None else None
        if snapshot_id and not is_quiet():
            smallest = usable(backend, snapshot_id).volume.size
            if size is not None and size < smallest:
                message = f"The size of a volume cannot be less than the {smallest} GiB of snapshot {snapshot_id}"
                raise Refused("InvalidParameterValue", message)
        volume = original(backend, size, zone_name, snapshot_id, **kwargs)
        if not is_quiet():
            volume.cos_state = "creating"
            call("volume_create", id=volume.id, snapshot=snapshot_id, gib=volume.size)
        return volume


def delete_volume(original, backend, volume_id):
    with LOCK:
        volume = original(backend, volume_id)
        if not is_quiet():
            call("volume_delete", id=volume_id)
        return volume


def modify_volume(original, backend, volume_id, target_size=None, *args, **kwargs):
    with LOCK:
        volume = backend.get_volume(volume_id)
        if target_size and int(target_size) < volume.size:
            raise Refused("InvalidParameterValue", f"New size cannot be smaller than existing size of {volume_id}")
        volume = original(backend, volume_id, target_size, *args, **kwargs)
        if target_size:
            # A machine that runs sees the new size after its next start.
            call("volume_grow", id=volume_id, gib=int(target_size))
        return volume


def attach_volume(original, backend, volume_id, instance_id, device_path, delete_on_termination=False):
    if is_quiet():
        return original(backend, volume_id, instance_id, device_path, delete_on_termination)
    with LOCK:
        volume, instance = backend.get_volume(volume_id), backend.get_instance(instance_id)
        if volume.attachment:
            raise Refused("VolumeInUse", f"{volume_id} is already attached to an instance")
        if volume.status != "available":
            raise Refused("IncorrectState", f"{volume_id} is not 'available'.")
        if instance.state not in ("running", "stopped"):
            raise Refused("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
        if volume.zone.name != instance.placement.zone:
            message = f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'"
            raise Refused("InvalidVolume.ZoneMismatch", message)
        if device_path in instance.block_device_mapping:
            message = f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in use"
            raise Refused("InvalidParameterValue", message)
        call("volume_attach", id=volume_id, instance=instance_id, device=device_path)
        return original(backend, volume_id, instance_id, device_path, delete_on_termination)


def detach_volume(original, backend, volume_id, instance_id=None, device_path=None):
    if is_quiet():
        return original(backend, volume_id, instance_id, device_path)
    with LOCK:
        volume = backend.get_volume(volume_id)
        if not volume.attachment:
            raise Refused("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
        instance = volume.attachment.instance
        if instance_id and instance_id != instance.id:
            message = f"The volume '{volume_id}' is not attached to instance '{instance_id}'"
            raise Refused("InvalidAttachment.NotFound", message)
        if volume.attachment.device == instance.root_device_name and instance.state == "running":
            message = f"Unable to detach root volume '{volume_id}' from instance '{instance.id}'"
            raise Refused("OperationNotPermitted", message)
        call("volume_detach", id=volume_id, instance=instance.id)
        return original(backend, volume_id, instance.id, device_path or volume.attachment.device)


def create_snapshot(original, backend, volume_id, description, owner_id=None, from_ami=None):
    with LOCK:
        snapshot = original(backend, volume_id, description or "", owner_id, from_ami)
        if not is_quiet():
            begin(snapshot)
            call("snapshot_create", snapshots=[{"id": snapshot.id, "volume": volume_id}], reboot=None)
        return snapshot


def begin(snapshot):
    snapshot.status, snapshot.cos_progress = "pending", 0


def copy_snapshot(original, backend, source_snapshot_id, source_region, description, kms_key_id):
    with LOCK:
        snapshot = original(backend, source_snapshot_id, source_region, description, kms_key_id)
        begin(snapshot)
        call("snapshot_copy", id=snapshot.id, source=source_snapshot_id)
        return snapshot


def delete_snapshot(original, backend, snapshot_id):
    with LOCK:
        snapshot = backend.get_snapshot(snapshot_id)
        if snapshot.owner_id != backend.account_id:
            raise Refused("UnauthorizedOperation", f"The snapshot {snapshot_id} belongs to another account.")
        for image in backend.amis.values():
            if any(it["Ebs"]["SnapshotId"] == snapshot_id for it in image.cos_mappings):
                message = f"The snapshot {snapshot_id} is currently in use by {image.id}"
                raise Refused("InvalidSnapshot.InUse", message)
        snapshot.from_ami = None
        original(backend, snapshot_id)
        call("snapshot_delete", id=snapshot_id)
        return snapshot


def describe_snapshots(original, response):
    """moto does not look at the owners; `self` would show Amazon's."""
    owners = response._get_param("OwnerIds", []) or []
    result = original(response)
    if owners:
        account = response.current_account
        wanted = {account if owner == "self" else owner for owner in owners}
        if "amazon" in wanted:
            wanted.add("137112412989")
        found = [it for it in result._result["Snapshots"] if it.owner_id in wanted]
        return ActionResult({"Snapshots": found})
    return result


def tell_tags(original, backend, resource_ids, tags):
    done = original(backend, resource_ids, tags)
    if not is_quiet():
        for identity in resource_ids:
            if identity.startswith("i-"):
                call("tags", id=identity, tags=dict(backend.tags.get(identity, {})))
    return done


def install():
    Volume.status = property(volume_status)
    VolumeAttachment.delete_on_termination = property(delete_on_termination)
    Snapshot.progress = property(lambda it: f"{getattr(it, 'cos_progress', 100)}%")
    for name, function in (
        ("create_volume", create_volume),
        ("delete_volume", delete_volume),
        ("modify_volume", modify_volume),
        ("attach_volume", attach_volume),
        ("detach_volume", detach_volume),
        ("create_snapshot", create_snapshot),
        ("copy_snapshot", copy_snapshot),
        ("delete_snapshot", delete_snapshot),
    ):
        patch(EBSBackend, name)(function)
    patch(ElasticBlockStore, "describe_snapshots")(describe_snapshots)
    patch(TagBackend, "create_tags")(tell_tags)
    patch(TagBackend, "delete_tags")(tell_tags)

