"""Run Command: scripts really run on the machines. And the public parameters that name the base images."""

import datetime
import uuid

from cos_wire import CONFIGURATION, LOCK, Refused, call
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2 import ec2_backends
from moto.ssm.models import Parameter, ParameterDict
from moto.ssm.responses import SimpleSystemManagerResponse

DOCUMENT = "AWS-RunShellScript"
FINAL = ("Success", "Failed", "TimedOut", "Cancelled")


def machines(response):
    """All instances of the region, by id."""
    ec2 = ec2_backends[response.current_account][response.region]
    ec2.describe_instances()
    return {it.id: it for it in ec2.all_instances()}


def describe_instance_information(response):
    wanted = {}
    for it in response._get_param("Filters", []) or []:
        wanted[it["Key"]] = it["Values"]
    for it in response._get_param("InstanceInformationFilterList", []) or []:
        wanted[it["key"]] = it["valueSet"]
    listed = []
    for instance in machines(response).values():
        if not getattr(instance, "cos_online", False):
            continue
        if instance.id not in wanted.get("InstanceIds", [instance.id]):
            continue
        if "Online" not in wanted.get("PingStatus", ["Online"]):
            continue
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        if any(key[4:] not in tags or tags[key[4:]] not in it for key, it in wanted.items() if key.startswith("tag:")):
            continue
        listed.append(
            {
                "InstanceId": instance.id,
                "PingStatus": "Online",
                "LastPingDateTime": utcnow(),
                "AgentVersion": "3.3.0.0",
                "IsLatestVersion": True,
                "PlatformType": "Linux",
                "PlatformName": "Debian stand-in",
                "ResourceType": "EC2Instance",
                "IPAddress": instance.private_ip,
                "ComputerName": instance.private_dns_name,
                "RegistrationDate": instance.launch_time,
            }
        )
    return ActionResult({"InstanceInformationList": listed})


def targets(response, instances):
    wanted = list(response._get_param("InstanceIds", []) or [])
    for target in response._get_param("Targets", []) or []:
        key, values = target["Key"], target["Values"]
        if key == "InstanceIds":
            wanted += values
        elif key.startswith("tag:"):
            for instance in instances.values():
                tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
                if getattr(instance, "cos_online", False) and tags.get(key[4:]) in values:
                    wanted.append(instance.id)
        else:
            raise Refused("InvalidTarget", f"the sandbox does not know the target key {key}")
    return list(dict.fromkeys(wanted))


def send_command(response):
    document = response._get_param("DocumentName")
    if document != DOCUMENT:
        raise Refused("InvalidDocument", f"the sandbox runs {DOCUMENT} only, not {document}")
    parameters = response._get_param("Parameters", {}) or {}
    script = "\n".join(parameters.get("commands", []))
    if not script:
        raise Refused("InvalidParameters", "the parameter commands is empty")
    execution = number(parameters.get("executionTimeout", ["3600"])[0])
    if not 5 <= execution <= 172800:
        # The agent does not complain either.
        execution = 3600
    folder = (parameters.get("workingDirectory") or [""])[0]
    if folder:
        script = f"cd '{folder}' || exit 1\n{script}"
    delivery = int(response._get_param("TimeoutSeconds") or 3600)
    if not 30 <= delivery <= 2592000:
        raise Refused("ValidationException", "TimeoutSeconds must be between 30 and 2592000")
    comment = response._get_param("Comment") or ""
    if len(comment) > 100:
        raise Refused("ValidationException", "Comment is limited to 100 characters")
    instances = machines(response)
    chosen = targets(response, instances)
    offline = [it for it in chosen if it not in instances or not getattr(instances[it], "cos_online", False)]
    if offline or not chosen:
        raise Refused("InvalidInstanceId", f"Instances [{offline}] not in a valid state for account {response.current_account}")
    command = {
        "CommandId": str(uuid.uuid4()),
        "Comment": comment,
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "InstanceIds": list(response._get_param("InstanceIds", []) or []),
        "Targets": list(response._get_param("Targets", []) or []),
        "Parameters": parameters,
        "RequestedDateTime": utcnow(),
        "ExpiresAfter": utcnow() + datetime.timedelta(seconds=delivery + execution),
        "TimeoutSeconds": delivery,
        "TargetCount": len(chosen),
        "MaxConcurrency": "50",
        "MaxErrors": "0",
    }
    for instance in chosen:
        call(
            "command_send",
            command=command["CommandId"],
            instance=instance,
            script=script,
            delivery=delivery,
            execution=execution,
        )
    commands(response)[command["CommandId"]] = (command, chosen)
    return ActionResult({"Command": {**command, "Status": "Pending", "StatusDetails": "Pending"}})


def number(text):
    try:
        return int(text)
    except ValueError:
        return 0


def commands(response):
    with LOCK:
        return response.ssm_backend.__dict__.setdefault("cos_commands", {})


def invocation(response, command, instance):
    """One command on one instance, in the words of GetCommandInvocation."""
    report = call("command_get", command=command["CommandId"], instance=instance)
    started, ended = report["started"], report["ended"]
    return {
        "CommandId": command["CommandId"],
        "InstanceId": instance,
        "Comment": command["Comment"],
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "PluginName": "aws:runShellScript",
        "ResponseCode": report["code"],
        "ExecutionStartDateTime": iso(started),
        "ExecutionElapsedTime": f"PT{ended - started:.3f}S" if started and ended else "",
        "ExecutionEndDateTime": iso(ended),
        "Status": report["status"],
        "StatusDetails": report["details"],
        "StandardOutputContent": report["stdout"],
        "StandardOutputUrl": "",
        "StandardErrorContent": report["stderr"],
        "StandardErrorUrl": "",
    }


def iso(seconds):
    if not seconds:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def get_command_invocation(response):
    identity, instance = response._get_param("CommandId"), response._get_param("InstanceId")
    plugin = response._get_param("PluginName")
    command, chosen = commands(response).get(identity, (None, []))
    if instance not in chosen or plugin not in (None, "", "aws:runShellScript", "aws:RunShellScript"):
        raise Refused("InvocationDoesNotExist", "")
    return ActionResult(invocation(response, command, instance))


def described(response, command, chosen):
    states = [call("command_get", command=command["CommandId"], instance=it)["status"] for it in chosen]
    worst = next((it for it in ("InProgress", "Pending", "TimedOut", "Failed", "Cancelled") if it in states), "Success")
    return {
        **command,
        "Status": worst,
        "StatusDetails": worst,
        "CompletedCount": sum(it in FINAL for it in states),
        "ErrorCount": sum(it in ("Failed", "TimedOut") for it in states),
        "DeliveryTimedOutCount": 0,
    }


def chosen_commands(response):
    identity, instance = response._get_param("CommandId"), response._get_param("InstanceId")
    known = commands(response)
    if identity and identity not in known:
        raise Refused("InvalidCommandId", "")
    found = [known[identity]] if identity else list(known.values())
    return [(command, [it for it in chosen if instance in (None, "", it)]) for command, chosen in found]


def list_commands(response):
    listed = [described(response, command, chosen) for command, chosen in chosen_commands(response) if chosen]
    return ActionResult({"Commands": listed})


def list_command_invocations(response):
    details = response._get_bool_param("Details", False)
    listed = []
    for command, chosen in chosen_commands(response):
        for instance in chosen:
            it = invocation(response, command, instance)
            entry = {key: it[key] for key in ("CommandId", "InstanceId", "Comment", "DocumentName", "Status", "StatusDetails")}
            entry["RequestedDateTime"] = command["RequestedDateTime"]
            if details:
                entry["CommandPlugins"] = [
                    {
                        "Name": it["PluginName"],
                        "Status": it["Status"],
                        "StatusDetails": it["StatusDetails"],
                        "ResponseCode": it["ResponseCode"],
                        # The old field shows the first 2,500 characters.
                        "Output": it["StandardOutputContent"][:2500],
                    }
                ]
            listed.append(entry)
    return ActionResult({"CommandInvocations": listed})


def cancel_command(response):
    identity = response._get_param("CommandId")
    command, chosen = commands(response).get(identity, (None, []))
    if command is None:
        raise Refused("InvalidCommandId", "")
    for instance in response._get_param("InstanceIds", []) or chosen:
        call("command_cancel", command=identity, instance=instance)
    return ActionResult({})


def load_latest_amis(parameters):
    """The public parameters of Amazon's images name our base images, in the sandbox's region."""
    if parameters.region_name != CONFIGURATION["region"]:
        return
    for base in CONFIGURATION["images"]:
        for name in base["parameters"]:
            dict.setdefault(parameters, name, []).append(
                Parameter(
                    account_id=parameters.account_id,
                    name=name,
                    value=base["image"],
                    parameter_type="String",
                    description=None,
                    allowed_pattern=None,
                    keyid=None,
                    last_modified_date=utcnow(),
                    version=1,
                    data_type="text",
                )
            )


def install():
    ParameterDict._load_latest_amis = load_latest_amis
    for function in (
        describe_instance_information,
        send_command,
        get_command_invocation,
        list_commands,
        list_command_invocations,
        cancel_command,
    ):
        setattr(SimpleSystemManagerResponse, function.__name__, function)
