"""Lifecycle hooks: an instance waits at them on its way into a group and out of it, and its metadata says where to.

States and rules: Auto Scaling user guide, "Amazon EC2 Auto Scaling lifecycle hooks" and "Retrieve the target lifecycle
state through instance metadata"; shapes: botocore's service model. moto knows hooks, but nobody waits at them.
"""

import json
import time
import uuid

from cos_wire import LOCK, Refused, call, patch
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup, TerminateInstanceActivity
from moto.autoscaling.responses import AutoScalingResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import EmptyResult
from moto.core.utils import utcnow
from moto.moto_api._internal import urls

LAUNCHING, TERMINATING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"
# The longest that heartbeats can stretch a hook: 48 hours, or a hundred times its timeout.
LONGEST, MOST_TIMEOUTS = 48 * 3600, 100

# What was said at hooks, in order.
SAID = []


class Wait:
    """An instance at a hook."""

    def __init__(self, hook):
        now = time.monotonic()
        self.hook, self.token = hook, str(uuid.uuid4())
        self.limit = now + min(LONGEST, MOST_TIMEOUTS * int(hook.heartbeat_timeout))
        self.beat()

    def beat(self):
        self.deadline = min(self.limit, time.monotonic() + int(self.hook.heartbeat_timeout))


def say(state, hook, word):
    SAID.append(
        {
            "time": f"{utcnow():%Y-%m-%dT%H:%M:%S.%fZ}",
            "group": state.auto_scaling_group_name,
            "hook": hook.name,
            "instance": state.instance.id,
            "said": word,
        }
    )


def tell(instance_id, target):
    call("notice", id=instance_id, path="autoscaling/target-lifecycle-state", document=target)


def waits(state):
    return state.__dict__.setdefault("cos_waits", {})


def begin(state, transition):
    """The instance waits at every hook of its group for this transition."""
    group = state.auto_scaling_group
    hooks = group.autoscaling_backend.describe_lifecycle_hooks(group.name)
    # A second reason to go finds it on its way; who leaves waits at the hooks of the way in no more.
    state.cos_waits = {hook.name: Wait(hook) for hook in hooks if hook.lifecycle_transition == transition}
    for wait in waits(state).values():
        say(state, wait.hook, "waits")


def arrive(state):
    tell(state.instance.id, "InService")
    begin(state, LAUNCHING)
    state.lifecycle_state = "Pending:Wait" if waits(state) else "InService"


def leave(state):
    if state.lifecycle_state.startswith("Terminating"):
        return
    tell(state.instance.id, "Terminated")
    begin(state, TERMINATING)
    state.lifecycle_state = "Terminating:Wait"
    if not waits(state):
        end(state)


def end(state):
    """The instance goes, and group and load balancer forget it, as they do when a user terminates one."""
    state.lifecycle_state, state.cos_waits = "Terminating:Proceed", {}
    backend, instances = state.auto_scaling_group.autoscaling_backend, [state.instance.id]
    backend.ec2_backend.terminate_instances(instances)
    backend.notify_terminate_instances(instances)
    backend.elbv2_backend.notify_terminate_instances(instances)


def complete(state, wait, result):
    del waits(state)[wait.hook.name]
    group, terminating = state.auto_scaling_group, state.lifecycle_state.startswith("Terminating")
    if terminating and (result == "ABANDON" or not waits(state)):
        end(state)
    elif result == "ABANDON":
        # The group wants another one in its place.
        leave_at_once(state)
        group.set_desired_capacity(group.desired_capacity)
    elif not terminating and not waits(state):
        state.lifecycle_state = "InService"


def leave_at_once(state):
    tell(state.instance.id, "Terminated")
    end(state)


def look():
    """Whoever was silent for too long gets the hook's default result."""
    for backend in list(groups_of_all_regions()):
        for group in list(backend.autoscaling_groups.values()):
            for state in list(group.instance_states):
                for wait in list(waits(state).values()):
                    if time.monotonic() >= wait.deadline and wait.hook.name in waits(state):
                        say(state, wait.hook, f"timeout {wait.hook.default_result}")
                        complete(state, wait, wait.hook.default_result)


def groups_of_all_regions():
    from moto.autoscaling import autoscaling_backends

    return autoscaling_backends[DEFAULT_ACCOUNT_ID].values()


def active_instances(group):
    """Those that count for the capacity: on their way in, or in."""
    return [it for it in group.instance_states if it.lifecycle_state == "InService" or "Pending" in it.lifecycle_state]


def replace_instances(original, group, count_needed, propagated_tags):
    with LOCK:
        known = list(group.instance_states)
        original(group, count_needed, propagated_tags)
        for state in group.instance_states:
            if state not in known:
                arrive(state)


def set_desired_capacity(original, group, new_capacity):
    with LOCK:
        wanted = group.min_size if new_capacity is None else new_capacity
        active = group.active_instances()
        free = [it for it in active if not it.protected_from_scale_in]
        for state in free[: max(0, len(active) - int(wanted or 0))]:
            leave(state)
        # moto's own way to scale in would end instances at once.
        original(group, max(int(wanted or 0), len(group.active_instances())))
        group.desired_capacity = wanted


def terminate_instance(original, backend, instance_id, should_decrement):
    with LOCK:
        states = backend.describe_auto_scaling_instances([instance_id])
        if not instance_id or not states:
            message = f"Instance Id not found - No managed instance found for instance ID: {instance_id}"
            raise ValidationError(message)
        (state,) = states
        group = state.auto_scaling_group
        before = group.desired_capacity
        leave(state)
        group.set_desired_capacity(before - 1 if should_decrement else before)
        return TerminateInstanceActivity(state.instance, before)


def delete_auto_scaling_group(original, backend, group_name):
    """By force, as moto has it: hooks and whoever waits at them go with the group."""
    with LOCK:
        group = backend.autoscaling_groups.get(group_name)
        if group:
            group.desired_capacity = group.min_size = 0
            for state in list(group.instance_states):
                leave_at_once(state)
            for hook in backend.describe_lifecycle_hooks(group_name):
                backend.delete_lifecycle_hook(group_name, hook.name)
        return original(backend, group_name)


def enter_standby(original, backend, group_name, instance_ids, should_decrement):
    with LOCK:
        done = original(backend, group_name, instance_ids, should_decrement)
        for instance_id in instance_ids:
            tell(instance_id, "Standby")
        return done


def exit_standby(original, backend, group_name, instance_ids):
    with LOCK:
        done = original(backend, group_name, instance_ids)
        for instance_id in instance_ids:
            tell(instance_id, "InService")
        return done


def detach_instances(original, backend, group_name, instance_ids, should_decrement):
    with LOCK:
        done = original(backend, group_name, instance_ids, should_decrement)
        for instance_id in instance_ids:
            tell(instance_id, "Detached")
        return done


def create_group(original, response):
    """Hooks that a group has from the start: its first instances wait at them."""
    with LOCK:
        name = response._get_param("AutoScalingGroupName")
        for hook in response._get_param("LifecycleHookSpecificationList", []) or []:
            response.autoscaling_backend.create_lifecycle_hook(
                name=hook["LifecycleHookName"],
                as_name=name,
                transition=hook["LifecycleTransition"],
                timeout=hook.get("HeartbeatTimeout"),
                result=hook.get("DefaultResult"),
            )
        return original(response)


def waiting(response):
    """The instance and the hook at which a request says that it waits."""
    name, hook = response._get_param("AutoScalingGroupName"), response._get_param("LifecycleHookName")
    instance_id, token = response._get_param("InstanceId"), response._get_param("LifecycleActionToken")
    group = response.autoscaling_backend.autoscaling_groups.get(name)
    if group is None:
        raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
    for state in group.instance_states:
        wait = waits(state).get(hook)
        if wait and (state.instance.id == instance_id or wait.token == token):
            return state, wait
    raise ValidationError(f"No active Lifecycle Action found with instance ID {instance_id}")


def complete_lifecycle_action(response):
    with LOCK:
        state, wait = waiting(response)
        result = response._get_param("LifecycleActionResult")
        if result not in ("CONTINUE", "ABANDON"):
            raise Refused("ValidationError", f"Invalid LifecycleActionResult: {result}")
        say(state, wait.hook, result)
        complete(state, wait, result)
        return EmptyResult()


def record_heartbeat(response):
    with LOCK:
        state, wait = waiting(response)
        say(state, wait.hook, "heartbeat")
        wait.beat()
        return EmptyResult()


def answer_lifecycle(request, full_url, headers):
    with LOCK:
        return 200, {"Content-Type": "application/json"}, json.dumps(SAID)


def install():
    FakeAutoScalingGroup.active_instances = active_instances
    patch(FakeAutoScalingGroup, "replace_autoscaling_group_instances")(replace_instances)
    patch(FakeAutoScalingGroup, "set_desired_capacity")(set_desired_capacity)
    for name, function in (
        ("terminate_instance", terminate_instance),
        ("delete_auto_scaling_group", delete_auto_scaling_group),
        ("enter_standby_instances", enter_standby),
        ("exit_standby_instances", exit_standby),
        ("detach_instances", detach_instances),
    ):
        patch(AutoScalingBackend, name)(function)
    patch(AutoScalingResponse, "create_auto_scaling_group")(create_group)
    AutoScalingResponse.complete_lifecycle_action = complete_lifecycle_action
    AutoScalingResponse.record_lifecycle_action_heartbeat = record_heartbeat
    urls.url_paths["{0}/moto-api/cos/lifecycle$"] = answer_lifecycle
