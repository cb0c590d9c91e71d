"""Writes what botocore knows of the calls that the agent makes, as one JSON file, to standard output.

    python3 models.py > models.json

It takes a Python that has botocore (tests/moto/requirements.txt names the version). The file holds, for each operation,
protocol, target and the shapes of request and answer; for each service the host of its endpoint by partition and
variant; and the partitions. The suite `aws` compares it with what the agent sends, and, where COS_TESTS_PYTHON
names a Python, the file with what this script writes.
"""

import json
import sys

import botocore
import botocore.loaders
from botocore.endpoint_provider import EndpointProvider

OPERATIONS = {
    "autoscaling": [
        "CompleteLifecycleAction",
        "DescribeAutoScalingGroups",
        "DescribeAutoScalingInstances",
        "DescribeLifecycleHooks",
        "RecordLifecycleActionHeartbeat",
    ],
    "ec2": ["DescribeInstances", "DescribeTags", "DescribeVolumes"],
    "ecr": ["GetAuthorizationToken"],
    "ecr-public": ["GetAuthorizationToken"],
    "ssm": ["GetParameters", "GetServiceSetting"],
}


LOADER = botocore.loaders.create_loader()


def shape(model, reference):
    """A shape with all that it holds; documentation is left out, and so are long lists of values."""
    found = model["shapes"][reference["shape"]]
    told = {key: found[key] for key in ("type", "required", "min", "max", "flattened") if key in found}
    if len(found.get("enum", [])) in range(1, 10):
        told["enum"] = found["enum"]
    told |= {key: reference[key] for key in ("locationName", "queryName", "flattened") if key in reference}
    if found["type"] == "structure":
        told["members"] = {name: shape(model, member) for name, member in found["members"].items()}
    if found["type"] == "list":
        told["member"] = shape(model, found["member"])
    return told


def operation(model, name):
    found = model["operations"][name]
    metadata = model["metadata"]
    told = {key: metadata[key] for key in ("protocol", "apiVersion", "jsonVersion") if key in metadata}
    if "targetPrefix" in metadata:
        told["target"] = f"{metadata['targetPrefix']}.{name}"
    told["signingName"] = metadata.get("signingName", metadata["endpointPrefix"])
    told["input"] = shape(model, found["input"])
    if "output" in found:
        told["output"] = shape(model, found["output"])
    return told


def hosts(service, partitions):
    """Hosts with the region left open; a partition whose regions do not agree is an error."""
    provider = EndpointProvider(LOADER.load_service_model(service, "endpoint-rule-set-1"), partitions)
    told = {}
    for partition in partitions["partitions"]:
        regions = [region for region in partition["regions"] if "global" not in region]
        for fips in (False, True):
            for dual in (False, True):
                found = set()
                for region in regions:
                    url = provider.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual).url
                    found.add(url.removeprefix("https://").replace(region, "REGION"))
                variant = "-".join(["fips"] * fips + ["dual"] * dual) or "plain"
                (told[f"{partition['id']} {variant}"],) = found
    return told


def main():
    partitions = LOADER.load_data("partitions")
    models = {service: LOADER.load_service_model(service, "service-2") for service in OPERATIONS}
    told = {
        "botocore": botocore.__version__,
        "partitions": {
            partition["id"]: {
                "domain": partition["outputs"]["dnsSuffix"],
                "dual_stack_domain": partition["outputs"]["dualStackDnsSuffix"],
                "regions": sorted(region for region in partition["regions"] if "global" not in region),
            }
            for partition in partitions["partitions"]
        },
        "endpoint_variables": {
            service: model["metadata"]["serviceId"].replace(" ", "_").upper() for service, model in models.items()
        },
        "hosts": {service: hosts(service, partitions) for service in OPERATIONS},
        "operations": {
            f"{service}:{name}": operation(models[service], name)
            for service, names in OPERATIONS.items()
            for name in names
        },
    }
    json.dump(told, sys.stdout, indent=1, sort_keys=True)
    print()


main()
