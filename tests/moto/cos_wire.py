"""The line to the executor: one JSON line asks, one JSON line answers. One connection per thread."""

import json
import os
import socket
import threading

from moto.core.exceptions import ServiceException

with open(os.environ["COS_SANDBOX_CONFIGURATION"], encoding="utf-8") as file:
    CONFIGURATION = json.load(file)

# Held while models change, so that the watch and a request never see half of an act.
LOCK = threading.RLock()

_local = threading.local()


class Refused(ServiceException):
    """The executor's refusal, with AWS's error code."""


def call(act, **fields):
    """Asks the executor for an act and returns its answer."""
    line = json.dumps({"act": act, **fields}).encode() + b"\n"
    for attempt in (1, 2):
        stream = getattr(_local, "stream", None)
        if stream is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(CONFIGURATION["socket"])
            stream = _local.stream = connection.makefile("rwb")
        try:
            stream.write(line)
            stream.flush()
            break
        except OSError:
            _local.stream = None
            if attempt == 2:
                raise
    reply = stream.readline()
    if not reply:
        _local.stream = None
        raise Refused("InternalError", f"the executor broke off during {act}")
    answer = json.loads(reply)
    if "error" in answer:
        raise Refused(answer["error"]["code"], answer["error"]["message"])
    return answer["ok"]


class _Quiet(threading.local):
    depth = 0


_quiet = _Quiet()


class quiet:
    """While it lasts, this thread's changes to models stay in moto."""

    def __enter__(self):
        _quiet.depth += 1

    def __exit__(self, *_):
        _quiet.depth -= 1


def is_quiet():
    return _quiet.depth > 0


def patch(owner, name):
    """Replaces a method; the new one gets the old one as its first argument."""

    def decorate(function):
        original = getattr(owner, name)

        def method(*args, **kwargs):
            return function(original, *args, **kwargs)

        method.__name__ = name
        setattr(owner, name, method)
        return function

    return decorate


def tags_of(specifications, kind):
    """The tags for one resource type in TagSpecifications."""
    tags = {}
    for specification in specifications or []:
        if specification.get("ResourceType") == kind:
            tags.update({tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags", [])})
    return tags
