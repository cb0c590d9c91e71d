"""Instances: each is a machine of the executor, and shows what that machine really does."""

import base64
import copy

from cos_volumes import usable
from cos_wire import LOCK, Refused, call, is_quiet, patch, quiet
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import InvalidAMIIdError
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociationBackend
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState, MetadataOptions, StateReason
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import filter_iam_instance_profiles

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
# GetConsoleOutput shows the last 64 KB.
CONSOLE = 64 * 1024

originals = {name: getattr(Instance, name) for name in ("start", "stop", "terminate")}


def enter(instance, state, reason=None):
    instance._state.name, instance._state.code = state, CODES[state]
    instance.state_reason = None
    if reason:
        instance.state_reason = StateReason(reason["message"], reason["code"])
        if state in ("stopping", "stopped", "shutting-down", "terminated"):
            instance._reason = f"{reason['message'].split(': ', 1)[-1]} ({utcnow():%Y-%m-%d %H:%M:%S} UTC)"


def apply(backend, seen):
    for instance in backend.all_instances():
        now = seen.get(instance.id)
        if not now:
            continue
        old, new = instance.state, now["state"]
        instance.cos_online = now["online"]
        if old == new or old == "terminated":
            continue
        if new == "terminated":
            # Volumes and addresses go now; EC2 keeps the instance itself in its lists for a while.
            originals["terminate"](instance)
        elif new == "stopped":
            originals["stop"](instance)
        elif new == "running":
            originals["start"](instance)
        enter(instance, new, now["reason"])


def image_of(backend, image_id):
    image = backend.amis.get(image_id or "")
    if image is None:
        raise InvalidAMIIdError(image_id or "")
    if image.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image id '[{image_id}]' is not available: {image.state}")
    if getattr(image, "cos_refuse", None):
        raise Refused("Unsupported", f"{image_id}: {image.cos_refuse}")
    return image


def merged_mappings(backend, image, wanted):
    """The image's devices, changed and added to by the launch's."""
    merged = {it["DeviceName"]: dict(it["Ebs"]) for it in image.cos_mappings}
    for it in wanted or []:
        device = it["DeviceName"]
        if it.get("NoDevice") is not None:
            merged.pop(device, None)
            continue
        given = {key: value for key, value in (it.get("Ebs") or {}).items() if value is not None}
        if device not in merged:
            # The stricter reading: who does not say so keeps the volume, and sees it among the leftovers.
            given.setdefault("DeleteOnTermination", False)
        merged[device] = {**merged.get(device, {}), **given}
    mappings = []
    for device, ebs in merged.items():
        if ebs.get("SnapshotId"):
            smallest = usable(backend, ebs["SnapshotId"]).volume.size
            ebs.setdefault("VolumeSize", smallest)
            if int(ebs["VolumeSize"]) < smallest:
                message = f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot, expect size >= {smallest}GB"
                raise Refused("InvalidBlockDeviceMapping", message)
        elif not ebs.get("VolumeSize"):
            raise Refused("MissingParameter", f"The request must contain the parameter size or snapshotId for {device}")
        ebs["VolumeSize"] = int(ebs["VolumeSize"])
        mappings.append({"DeviceName": device, "Ebs": {"VolumeType": "gp2", **ebs}})
    return mappings


def run_instances(original, backend, image_id, count, user_data, security_group_names, **kwargs):
    with LOCK:
        token = kwargs.get("client_token")
        token = None if token == "ABCDE" else token
        asked = repr((image_id, count, str(user_data), sorted((k, repr(v)) for k, v in kwargs.items())))
        known = backend.__dict__.setdefault("cos_tokens", {})
        if token in known:
            before, reservation = known[token]
            if before != asked:
                message = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
                raise Refused("IdempotentParameterMismatch", message)
            return reservation
        template = {}
        if kwargs.get("launch_template"):
            template = backend._get_template_from_args(kwargs["launch_template"]).data
        image_id = image_id or template.get("ImageId")
        image = image_of(backend, image_id)
        wanted = kwargs.get("block_device_mappings") or template.get("BlockDeviceMappings")
        kwargs["block_device_mappings"] = merged_mappings(backend, image, wanted)
        options = dict(kwargs.get("metadata_options") or template.get("MetadataOptions") or {})
        if getattr(image, "imds_support", None) == "v2.0":
            options.setdefault("HttpTokens", "required")
        if user_data is not None and len(base64.b64decode(str(user_data))) > 16384:
            raise Refused("InvalidParameterValue", "User data is limited to 16384 bytes")
        kwargs["metadata_options"] = options
        place(backend, kwargs)
        with quiet():
            reservation = original(backend, image_id, count, user_data, security_group_names, **kwargs)
        for instance in reservation.instances:
            instance.metadata_options = MetadataOptions(options)
            instance.ena_support = True
            instance._state, instance.state_reason = InstanceState(), None
            launch(backend, instance, image, role_of(backend, kwargs, template))
        if token:
            known[token] = (asked, reservation)
        return reservation


def place(backend, kwargs):
    """The default subnet, where the caller names none; moto would make up an address outside of every subnet."""
    nics = kwargs.get("nics") or []
    if kwargs.get("subnet_id") or any("SubnetId" in nic or "NetworkInterfaceId" in nic for nic in nics):
        return
    subnets = {it.availability_zone: it.id for it in backend.get_default_subnets().values()}
    zone = kwargs.get("placement") or min(subnets, default=None)
    if zone not in subnets:
        raise Refused("MissingInput", f"No default subnet for availability zone: '{zone}'")
    if nics:
        nics[0]["SubnetId"] = subnets[zone]
    else:
        kwargs["subnet_id"] = subnets[zone]


def role_of(backend, kwargs, template):
    profile = template.get("IamInstanceProfile") or {}
    name = kwargs.get("iam_instance_profile_name") or profile.get("Name")
    arn = kwargs.get("iam_instance_profile_arn") or profile.get("Arn")
    if not name and not arn:
        return None
    profile = filter_iam_instance_profiles(backend.account_id, backend.partition, arn, name)
    return profile.roles[0].name if profile and profile.roles else None


def exact_user_data(instance):
    """Base64 of the bytes. Some callers inside moto hand over plain text."""
    if instance.user_data is None:
        return None
    text = str(instance.user_data)
    try:
        base64.b64decode(text, validate=True)
        return text
    except ValueError:
        return base64.b64encode(text.encode()).decode()


def launch(backend, instance, image, role):
    volumes = []
    for device, block in instance.get_block_device_mapping:
        volume = backend.get_volume(block.volume_id)
        volumes.append({"volume": volume.id, "device": device, "snapshot": volume.snapshot_id, "gib": volume.size})
    call(
        "launch",
        id=instance.id,
        address=instance.private_ip,
        image=image.id,
        root_device=image.root_device_name,
        volumes=volumes,
        account=backend.account_id,
        region=backend.region_name,
        zone=instance.placement.zone,
        instance_type=instance.instance_type,
        architecture=image.architecture,
        user_data=exact_user_data(instance),
        tags={tag["key"]: tag["value"] for tag in instance.get_tags()},
        instance_tags=instance.metadata_options.instance_metadata_tags == "enabled",
        token_required=instance.metadata_options.http_tokens == "required",
        role=role,
        terminate_on_shutdown=instance.instance_initiated_shutdown_behavior == "terminate",
    )


def start(instance):
    before = copy.copy(instance._state)
    call("start", id=instance.id)
    if before.name == "stopped":
        enter(instance, "pending")
    return before


def stop(instance):
    before = copy.copy(instance._state)
    call("stop", id=instance.id, force=flag("Force"))
    if before.name in ("pending", "running"):
        enter(instance, "stopping")
    return before


def terminate(instance):
    before = copy.copy(instance._state)
    call("terminate", id=instance.id, now=flag("Force") or flag("SkipOsShutdown"))
    if before.name not in ("shutting-down", "terminated"):
        enter(instance, "shutting-down")
    return before


def flag(name):
    """A flag of the request at hand that moto's responses do not pass on."""
    from flask import has_request_context, request

    return has_request_context() and request.values.get(name, "").lower() == "true"


def teardown_defaults(original, instance):
    """The machine is gone when this runs: nothing is left to unplug."""
    for device, block in instance.get_block_device_mapping:
        with quiet():
            instance.ec2_backend.detach_volume(block.volume_id, instance.id, device)
        if block.delete_on_termination:
            instance.ec2_backend.delete_volume(block.volume_id)


def associate(original, backend, instance_id, iam_instance_profile_name=None, iam_instance_profile_arn=None):
    done = original(backend, instance_id, iam_instance_profile_name, iam_instance_profile_arn)
    roles = done.iam_instance_profile.roles
    call("role", id=instance_id, role=roles[0].name if roles else None)
    return done


def parse_block_device_mapping(response):
    """As the caller wrote it: moto fills in values that would hide what the image says."""
    mappings = copy.deepcopy(response._get_param("BlockDeviceMappings", []) or [])
    for mapping in mappings:
        if mapping.get("NoDevice") not in (None, ""):
            raise Refused("InvalidRequest", "NoDevice takes an empty string")
    return mappings


def get_console_output(response):
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    try:
        output = base64.b64decode(call("console", id=instance.id))[-CONSOLE:]
    except Refused:
        output = b""
    text = base64.b64encode(output).decode()
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": text})


def install():
    patch(InstanceBackend, "run_instances")(run_instances)
    Instance.start, Instance.stop, Instance.terminate = start, stop, terminate
    Instance.reboot = lambda instance: call("reboot", id=instance.id)
    patch(Instance, "teardown_defaults")(teardown_defaults)
    patch(IamInstanceProfileAssociationBackend, "associate_iam_instance_profile")(associate)
    InstanceResponse._parse_block_device_mapping = parse_block_device_mapping
    General.get_console_output = get_console_output
