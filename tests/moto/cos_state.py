"""Writes the executor's states into moto's models: before every description, and twice a second by itself."""

import json
import threading
import time
import traceback

import cos_images
import cos_instances
import cos_scaling
import cos_volumes
from cos_wire import LOCK, call, is_quiet, patch
from moto.autoscaling import autoscaling_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2 import ec2_backends
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.instances import InstanceBackend
from moto.moto_api._internal import urls
from moto.ssm import ssm_backends

WATCH = 0.5


_busy = False


def sync():
    """Not while it is at work already: what it changes calls methods that want to see the newest state, too."""
    global _busy
    with LOCK:
        if _busy or is_quiet():
            return
        _busy = True
        try:
            write_states()
        finally:
            _busy = False


def write_states():
    seen = call("observe")
    for backend in list(ec2_backends[DEFAULT_ACCOUNT_ID].values()):
        cos_volumes.apply(backend, seen["volumes"], seen["snapshots"])
        cos_images.apply(backend)
        cos_instances.apply(backend, seen["instances"])
    cos_scaling.look()


def before(owner, *names):
    for name in names:

        @patch(owner, name)
        def synced(original, *args, **kwargs):
            with LOCK:
                sync()
                return original(*args, **kwargs)


def watch():
    while True:
        try:
            sync()
        except Exception:
            traceback.print_exc()
        time.sleep(WATCH)


def held():
    """Ids by kind in all regions, but for base images and what AWS itself puts into an empty account."""
    kinds = {}

    def add(kind, identity, **more):
        kinds.setdefault(kind, []).append({"id": identity, **more})

    members = {}
    for backend in list(autoscaling_backends[DEFAULT_ACCOUNT_ID].values()):
        for member in backend.describe_auto_scaling_instances([]):
            members[member.instance_id] = {"group": member.auto_scaling_group_name, "lifecycle": member.lifecycle_state}
    for region, backend in list(ec2_backends[DEFAULT_ACCOUNT_ID].items()):
        for instance in backend.all_instances():
            if instance.state != "terminated":
                member = members.get(instance.id, {})
                add("instances", instance.id, state=instance.state, region=region, **member)
        for volume in list(backend.volumes.values()):
            add("volumes", volume.id, state=volume.status, region=region)
        for snapshot in list(backend.snapshots.values()):
            if snapshot.owner_id == DEFAULT_ACCOUNT_ID:
                add("snapshots", snapshot.id, state=snapshot.status, region=region)
        for image in list(backend.amis.values()):
            if image.owner_id == DEFAULT_ACCOUNT_ID:
                add("images", image.id, state=image.state, name=image.name, region=region)
        for name in list(backend.key_pairs):
            add("key-pairs", name, region=region)
        for template in list(backend.launch_templates.values()):
            add("launch-templates", template.id, region=region)
        for group in backend.describe_security_groups():
            if group.name != "default":
                add("security-groups", group.id, region=region)
    for region, backend in list(autoscaling_backends[DEFAULT_ACCOUNT_ID].items()):
        for name in list(backend.autoscaling_groups):
            add("auto-scaling-groups", name, region=region)
    for region, backend in list(ssm_backends[DEFAULT_ACCOUNT_ID].items()):
        for name in list(backend._parameters):
            if not name.startswith("/aws/"):
                add("parameters", name, region=region)
    return kinds


def answer_held(request, full_url, headers):
    with LOCK:
        sync()
        return 200, {"Content-Type": "application/json"}, json.dumps(held())


def install():
    before(
        InstanceBackend,
        "describe_instances",
        "get_reservations_by_instance_ids",
        "describe_instance_status",
        "run_instances",
        "start_instances",
        "stop_instances",
        "terminate_instances",
        "reboot_instances",
    )
    before(AmiBackend, "describe_images", "create_image", "copy_image", "deregister_image")
    before(EBSBackend, "describe_volumes", "describe_snapshots", "attach_volume", "detach_volume", "delete_volume")
    urls.url_paths["{0}/moto-api/cos/held$"] = answer_held
    threading.Thread(target=watch, daemon=True).start()
