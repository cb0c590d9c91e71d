"""EBS direct APIs: opening and sealing snapshots. The blocks themselves never come here; the front takes them."""

from cos_volumes import begin
from cos_wire import LOCK, Refused, call
from moto.core.responses import ActionResult
from moto.ebs.responses import EBSResponse
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.utils import random_snapshot_id

BLOCK = 524288


def start_snapshot(response):
    backend = response.ebs_backend
    size = int(response._get_param("VolumeSize") or 0)
    tags = {it["Key"]: it.get("Value", "") for it in response._get_param("Tags") or []}
    description = response._get_param("Description") or ""
    token = response._get_param("ClientToken")
    if not 1 <= size <= 65536:
        raise Refused("ValidationException", "VolumeSize must be between 1 and 65536 GiB")
    if response._get_param("ParentSnapshotId"):
        raise Refused("ValidationException", "the sandbox takes no ParentSnapshotId")
    with LOCK:
        ec2, known = backend.ec2_backend, backend.__dict__.setdefault("cos_tokens", {})
        asked = (size, tuple(sorted(tags.items())), description)
        if token in known:
            before, snapshot = known[token]
            if before != asked:
                raise Refused("ConflictException", f"The client token {token} was used with other parameters")
        else:
            snapshot = Snapshot(ec2, random_snapshot_id(), Volume(ec2, "vol-ffffffff", size, None), description)
            begin(snapshot)
            call("upload_start", id=snapshot.id, gib=size)
            ec2.snapshots[snapshot.id] = snapshot
            snapshot.add_tags(tags)
            if token:
                known[token] = (asked, snapshot)
        return ActionResult(
            {
                "SnapshotId": snapshot.id,
                "OwnerId": snapshot.owner_id,
                "Status": "pending",
                "StartTime": snapshot.start_time,
                "VolumeSize": size,
                "BlockSize": BLOCK,
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                "Description": description,
            }
        )


def complete_snapshot(response):
    snapshot_id = response._get_param("SnapshotId")
    changed = int(response._get_param("ChangedBlocksCount") or 0)
    checksum = response._get_param("Checksum")
    with LOCK:
        call("upload_complete", id=snapshot_id, changed=changed, checksum=checksum)
        snapshot = response.ebs_backend.ec2_backend.snapshots.get(snapshot_id)
        if snapshot is None:
            raise Refused("ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.")
    # As in AWS, it is pending until EC2 lists it as completed.
    return ActionResult({"Status": "pending"})


def install():
    EBSResponse.start_snapshot = start_snapshot
    EBSResponse.complete_snapshot = complete_snapshot
