"""What is there when the sandbox starts: two instance profiles, so that SSM works on builders and nodes."""

import json

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam import iam_backends

PROFILES = ("cos-builder", "cos-node")
MANAGED = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def install():
    iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for name in PROFILES:
        iam.create_role(
            role_name=name,
            assume_role_policy_document=json.dumps(TRUST),
            path="/",
            permissions_boundary=None,
            description="made by the sandbox",
            tags=[],
            max_session_duration="3600",
        )
        iam.attach_role_policy(MANAGED, name)
        iam.create_instance_profile(name=name, path="/", role_names=[])
        iam.add_role_to_instance_profile(name, name)
