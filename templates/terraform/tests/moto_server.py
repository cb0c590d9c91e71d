"""Starts moto's server, mended where its pretence would show in a plan of ours. `moto_server.py PORT`.

The sandbox has a plug-in of its own (tests/moto/) that makes instances real; here nothing needs to run.
"""

import ctypes
import logging
import signal
import sys
import uuid

from moto.autoscaling.models import LifecycleHook
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ecr.responses import ECRResponse


def wrap(owner, name):
    def decorator(replacement):
        original = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: replacement(original, *args, **kwargs))

    return decorator


class Unknown(ServiceException):
    """A refusal: the provider repeats what ends in status 500 for ten minutes."""

    code = "InvalidAction"


@wrap(BaseResponse, "call_action")
def refuse_what_is_unknown(original, self):
    try:
        return original(self)
    except NotImplementedError as error:
        status, headers, body = self.serialized(ActionResult(Unknown(str(error))))
        return status, headers, body


# --- Auto Scaling: what it forgets of a group, and the refresh that it does not have ------------------------------

def remember(original, self):
    answer = original(self)
    asked = self._get_params()
    group = self.autoscaling_backend.autoscaling_groups[asked["AutoScalingGroupName"]]
    for key, attribute in (
        ("InstanceMaintenancePolicy", "instance_maintenance_policy"),
        ("DefaultInstanceWarmup", "default_instance_warmup"),
    ):
        if key in asked:
            setattr(group, attribute, asked[key])
    return answer


wrap(AutoScalingResponse, "create_auto_scaling_group")(remember)
wrap(AutoScalingResponse, "update_auto_scaling_group")(remember)
AutoScalingResponse.start_instance_refresh = lambda self: ActionResult({"InstanceRefreshId": str(uuid.uuid4())})


# A hook that asks for no notification has none.
@wrap(LifecycleHook, "__init__")
def without_notification(original, self, *args, **kwargs):
    original(self, *args, **kwargs)
    self.role_arn = self.notification_target_arn = None


# --- EC2: a rule's description is there for every kind of peer ---------------------------------------------------

@wrap(SecurityGroupRule, "__init__")
def keep_prefix_list(original, self, *args, **kwargs):
    original(self, *args, **kwargs)
    peers = [it for it in (*args, *kwargs.values()) if isinstance(it, dict)]
    self.cos_description = next((it["Description"] for it in peers if it.get("Description")), None)


SecurityGroupRule.description = property(lambda self: self.cos_description)


# --- EC2: a launch template's own tags belong to it, and not to what it launches ----------------------------------

@wrap(LaunchTemplateBackend, "create_launch_template")
def keep_tags_apart(original, self, name, description, template_data, tag_spec):
    tags = template_data.get("TagSpecifications", [])
    template_data["TagSpecifications"] = [it for it in tags if it.get("ResourceType") != "launch-template"]
    return original(self, name, description, template_data, tag_spec)


# --- ECR: pull-through caches -------------------------------------------------------------------------------------

CACHES = {}


class NoCache(ServiceException):
    code = "PullThroughCacheRuleNotFoundException"


def create_cache(self):
    rule = {key: self._get_param(key) for key in ("ecrRepositoryPrefix", "upstreamRegistryUrl", "credentialArn")}
    rule["registryId"] = self.current_account
    CACHES[rule["ecrRepositoryPrefix"]] = rule
    return ActionResult(rule)


def describe_caches(self):
    wanted = self._get_param("ecrRepositoryPrefixes") or list(CACHES)
    if any(prefix not in CACHES for prefix in wanted):
        raise NoCache("no such rule")
    return ActionResult({"pullThroughCacheRules": [CACHES[prefix] for prefix in wanted]})


def delete_cache(self):
    return ActionResult(CACHES.pop(self._get_param("ecrRepositoryPrefix")))


ECRResponse.create_pull_through_cache_rule = create_cache
ECRResponse.describe_pull_through_cache_rules = describe_caches
ECRResponse.delete_pull_through_cache_rule = delete_cache


if __name__ == "__main__":
    # moto must not outlive the test, also when that is killed (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    from moto.server import main

    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
