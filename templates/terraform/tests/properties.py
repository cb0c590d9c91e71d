"""What must be true of the platform that was applied, read from `terraform show -json` and from AWS itself."""

import copy
import csv
import json
import pathlib
import re

RULES = pathlib.Path(__file__).resolve().parent.parent / "modules" / "sgrules" / "rules.csv"
DATACENTERS = ["backoffice", "content-connector", "private-services", "public-services"]
GROUPS = ["consul-server", "nomad-server", *DATACENTERS]
WORLD = ("0.0.0.0/0", "::/0")


def resources(module):
    """All resources below a module, data sources left out."""
    for it in module.get("resources", []):
        if it["mode"] == "managed":
            yield it
    for child in module.get("child_modules", []):
        yield from resources(child)


def check(state, failed):
    """All checks; every one that does not hold is named."""
    everything = list(resources(state["values"]["root_module"]))

    def of(kind):
        return [it for it in everything if it["type"] == kind]

    faults = [
        *routes(of), *flows(of), *roles(of), *endpoints(of), *machines(of), *buckets(of), *balancers(of), *secrets(everything),
    ]
    if faults:
        raise failed("\n".join(f"- {it}" for it in faults))


def values(resource):
    return resource["values"]


def routes(of):
    """Only public and content-connector have a way beyond the VPC, and no subnet gives public addresses."""
    tables = {values(it)["id"]: it["index"] for it in of("aws_route_table")}
    for it in of("aws_route_table"):
        inline = [route for route in values(it).get("route") or [] if route.get("cidr_block") in WORLD]
        if inline and it["index"].split("-")[0] not in ("public", "content"):
            yield f"route table {it['index']} has a default route"
    for it in of("aws_route"):
        table = tables[values(it)["route_table_id"]]
        way = "gateway_id" if table == "public" else "nat_gateway_id"
        if not table.startswith(("public", "content-connector")) or not values(it)[way]:
            yield f"route table {table} has the route {values(it)['destination_cidr_block']}"
    subnets = {values(it)["id"]: it["index"] for it in of("aws_subnet")}
    if any(values(it)["map_public_ip_on_launch"] for it in of("aws_subnet")):
        yield "a subnet gives its instances public addresses"
    for it in of("aws_route_table_association"):
        subnet, table = subnets[values(it)["subnet_id"]], tables[values(it)["route_table_id"]]
        if not subnet.startswith(table.rsplit("-0", 1)[0]):
            yield f"subnet {subnet} has the route table of {table}"
    for it in of("aws_autoscaling_group"):
        public = [subnets[id] for id in values(it)["vpc_zone_identifier"] if subnets[id].startswith("public")]
        if public:
            yield f"{values(it)['name']} stands in public subnets"


def flows(of):
    """The rules are those of rules.csv, worked out here a second time, and nothing else."""
    names = {values(it)["id"]: values(it)["name"].removeprefix("cos-playground-") for it in of("aws_security_group")}
    present = set(names.values())
    outside = {"ingress-users": ["0.0.0.0/0"], "backoffice-users": ["10.0.0.0/8"], "ui-users": ["10.0.0.0/8"], "internet": ["0.0.0.0/0"]}

    expected = set()
    with RULES.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["when"] in ("no-tls", "http", "content-connector-http"):
                continue
            for start in DATACENTERS if row["from"] == "datacenters" else [row["from"]]:
                for end in DATACENTERS if row["to"] == "datacenters" else [start if row["to"] == "self" else row["to"]]:
                    ports = tuple(int(it) for it in (row["ports"].split("-") * 2)[:2])
                    if end in present:
                        expected |= {("in", end, peer, row["protocol"], *ports) for peer in ([start] if start in present else outside.get(start, []))}
                    if start in present:
                        peers = ["prefix-list"] if end == "s3" else [end] if end in present else outside.get(end, [])
                        expected |= {("out", start, peer, row["protocol"], *ports) for peer in peers}

    found = set()
    for side, kind in (("in", "aws_vpc_security_group_ingress_rule"), ("out", "aws_vpc_security_group_egress_rule")):
        for it in of(kind):
            rule = values(it)
            peer = names.get(rule["referenced_security_group_id"]) or rule["cidr_ipv4"] or "prefix-list"
            found.add((side, names[rule["security_group_id"]], peer, rule["ip_protocol"], rule["from_port"], rule["to_port"]))
    yield from (f"a rule is missing: {it}" for it in sorted(expected - found))
    yield from (f"a rule is in no table: {it}" for it in sorted(found - expected))
    for side, group, peer, *_, last in found:
        if side == "in" and peer in WORLD and (group, last) != ("alb-ingress", 443):
            yield f"the world reaches {group} on {last}"
    for it in of("aws_security_group"):
        if values(it).get("timeouts") is None and names[values(it)["id"]] not in GROUPS + ["agents", "endpoints", "alb-ui", "alb-ingress", "alb-backoffice"]:
            yield f"a security group nobody knows: {names[values(it)['id']]}"


def statements(document):
    for it in json.loads(document)["Statement"]:
        listed = lambda key: it[key] if isinstance(it.get(key), list) else [it.get(key)]
        yield it, listed("Action"), listed("Resource")


def roles(of):
    """A role for each group of nodes; none may use a whole service, and no two read each other's parameters."""
    if len(of("aws_iam_role")) != len(GROUPS):
        yield f"there are {len(of('aws_iam_role'))} roles for {len(GROUPS)} groups"
    own = {}
    for it in of("aws_iam_role_policy"):
        for statement, actions, targets in statements(values(it)["policy"]):
            wild = [action for action in actions if action.endswith(":*") or action == "*"]
            if wild:
                yield f"{values(it)['role']} may do {wild}"
            if "*" in targets and any(not re.match(r"(ec2|autoscaling):Describe|ec2messages:|ssmmessages:|ssm:(Describe|Get)Document|ssm:(List|Update)Instance|ecr:GetAuthorizationToken", action) for action in actions):
                yield f"{values(it)['role']} may do {actions} to everything"
            if any(action.startswith("ssm:GetParameter") for action in actions):
                if "ssm:GetParametersByPath" in actions:
                    yield f"{values(it)['role']} may read parameters by path"
                paths = {target.split(":parameter", 1)[1] for target in targets}
                own[values(it)["role"]] = {path for path in paths if not re.search("/(public|agent)/[*]$", path)}
            if "kms:Decrypt" in actions and statement["Sid"] != "WrapKeyring":
                condition = statement.get("Condition", {})
                if "kms:ViaService" not in condition.get("StringEquals", {}) or "kms:EncryptionContext:PARAMETER_ARN" not in condition.get("StringLike", {}):
                    yield f"{values(it)['role']} may decrypt anything"
    if len(own) != len(GROUPS):
        yield f"{len(own)} roles read parameters, and {len(GROUPS)} should"
    for first, paths in own.items():
        for second, others in own.items():
            for path in paths:
                if first != second and any(other.rstrip("*").startswith(path.rstrip("*")) for other in others):
                    yield f"{first} reads parameters of {second}: {path}"


def endpoints(of):
    """Every endpoint asks for principals of this account; S3 for its own buckets, but for image layers."""
    if len(of("aws_vpc_endpoint")) != 8:
        yield f"there are {len(of('aws_vpc_endpoint'))} endpoints, and 8 should be"
    for it in of("aws_vpc_endpoint"):
        for statement, _, targets in statements(values(it)["policy"]):
            layers = all("starport-layer-bucket" in target for target in targets)
            if not layers and "aws:PrincipalAccount" not in json.dumps(statement.get("Condition", {})):
                yield f"{values(it)['service_name']} lets in other accounts"
    gateway = [values(it) for it in of("aws_vpc_endpoint") if values(it)["vpc_endpoint_type"] == "Gateway"]
    if any(len(it["route_table_ids"]) != 3 for it in gateway):
        yield "the endpoint of S3 is not in the three private route tables"


def machines(of):
    """One template and one group for each; IMDSv2, encrypted gp3, hooks, and servers that are replaced one at a time."""
    for kind in ("aws_launch_template", "aws_autoscaling_group", "aws_iam_instance_profile"):
        if len(of(kind)) != len(GROUPS):
            yield f"there are {len(of(kind))} of {kind} for {len(GROUPS)} groups"
    for it in map(values, of("aws_launch_template")):
        metadata = it["metadata_options"][0]
        if (metadata["http_tokens"], metadata["http_put_response_hop_limit"], metadata["instance_metadata_tags"]) != ("required", 1, "enabled"):
            yield f"{it['name']} has the metadata options {metadata}"
        for device in it["block_device_mappings"]:
            if device["ebs"][0]["encrypted"] != "true" or device["ebs"][0]["volume_type"] != "gp3" or not device["ebs"][0]["kms_key_id"]:
                yield f"{it['name']} has a disk that is not encrypted gp3 under the cluster's key"
        if it["key_name"]:
            yield f"{it['name']} has a key pair"
    hooks = {}
    for it in map(values, of("aws_autoscaling_lifecycle_hook")):
        hooks.setdefault(it["autoscaling_group_name"], {})[it["lifecycle_transition"].rsplit("_", 1)[1]] = it["default_result"]
    for it in map(values, of("aws_autoscaling_group")):
        if hooks.get(it["name"]) != {"LAUNCHING": "ABANDON", "TERMINATING": "CONTINUE"}:
            yield f"{it['name']} has the hooks {hooks.get(it['name'])}"
        if it["health_check_type"] != "EC2":
            yield f"{it['name']} is judged by {it['health_check_type']}"
        refresh = it["instance_refresh"][0]["preferences"][0]
        if it["name"].endswith(("consul-server", "nomad-server")):
            facts = (it["min_size"], it["desired_capacity"], it["max_size"], it["suspended_processes"])
            if facts != (3, 3, 4, ["AZRebalance"]):
                yield f"{it['name']} has size and processes {facts}"
            facts = (refresh["min_healthy_percentage"], refresh["max_healthy_percentage"], refresh["auto_rollback"], refresh["checkpoint_percentages"])
            if facts != (100, 134, True, [34, 67, 100]):
                yield f"{it['name']} is refreshed by {facts}"


def buckets(of):
    if [values(it)["versioning_configuration"][0]["status"] for it in of("aws_s3_bucket_versioning")] != ["Enabled"]:
        yield "snapshots are not versioned"
    if len(of("aws_s3_bucket_server_side_encryption_configuration")) != 1:
        yield "snapshots are not encrypted"
    if any(not values(it)["enable_key_rotation"] for it in of("aws_kms_key")):
        yield "a key does not rotate"


def balancers(of):
    for it in map(values, of("aws_lb")):
        if it["internal"] != (it["name"] != "cos-playground-ingress"):
            yield f"{it['name']} has internal = {it['internal']}"
    for it in map(values, of("aws_lb_listener")):
        if (it["port"], it["protocol"]) != (443, "HTTPS"):
            yield f"a listener speaks {it['protocol']} on {it['port']}"


def secrets(everything):
    """Nothing in the state looks like a secret: keys, tokens, certificates."""
    looks = re.compile(r"-----BEGIN|(?<![\w/-])[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![\w-])|AKIA[0-9A-Z]{16}")
    for it in everything:
        for key, value in it["values"].items():
            if key in ("user_data", "policy", "value") and looks.search(str(value)):
                yield f"{it['address']}.{key} looks like a secret"
        if it["type"] in ("aws_ssm_parameter", "aws_secretsmanager_secret_version", "aws_key_pair"):
            yield f"{it['address']} could hold a secret"


# --- The checks themselves ----------------------------------------------------------------------------------------

def policy(change):
    """Changes the first statement of a policy."""

    def plant(it):
        document = json.loads(it["policy"])
        change(document["Statement"][0])
        it["policy"] = json.dumps(document)

    return plant


# A mistake: kind of resource, which one by a part of its address, and what is done to it.
MISTAKES = {
    "backoffice has a way out": ("aws_route_table", "backoffice", lambda it: it.update(route=[{"cidr_block": "0.0.0.0/0"}])),
    "private instances get public addresses": ("aws_subnet", "services-0", lambda it: it.update(map_public_ip_on_launch=True)),
    "the world reaches servers": ("aws_vpc_security_group_ingress_rule", "agents>consul-server:tcp:8300", lambda it: it.update(referenced_security_group_id="", cidr_ipv4="0.0.0.0/0")),
    "gossip is closed": ("aws_vpc_security_group_ingress_rule", "agents>agents:udp:8301", lambda it: it.update(ip_protocol="icmp")),
    "a port range is too wide": ("aws_vpc_security_group_egress_rule", "content-connector>internet", lambda it: it.update(from_port=0)),
    "a role may use a service": ("aws_iam_role_policy", '"backoffice"].module.data_center.aws_iam_role_policy.this', policy(lambda it: it.update(Action="s3:*"))),
    "a role deletes anything": ("aws_iam_role_policy", "nomad.module.servers.aws_iam_role_policy.this", policy(lambda it: it.update(Action="kms:ScheduleKeyDeletion", Resource="*"))),
    "a role reads all parameters": ("aws_iam_role_policy", "consul.module.servers.aws_iam_role_policy.this", policy(lambda it: it.update(Resource="arn:aws:ssm:r:1:parameter/cos/cos-playground/*"))),
    "an endpoint lets in anyone": ("aws_vpc_endpoint", '"kms"', policy(lambda it: it.pop("Condition"))),
    "IMDSv1 answers": ("aws_launch_template", "nomad", lambda it: it["metadata_options"][0].update(http_tokens="optional")),
    "a disk is in clear": ("aws_launch_template", "consul", lambda it: it["block_device_mappings"][0]["ebs"][0].update(encrypted="false")),
    "a load balancer ends servers": ("aws_autoscaling_group", "consul", lambda it: it.update(health_check_type="ELB")),
    "a node is not waited for": ("aws_autoscaling_lifecycle_hook", '"launch"', lambda it: it.update(default_result="CONTINUE")),
    "servers go before their successors": ("aws_autoscaling_group", "nomad.module.servers", lambda it: it["instance_refresh"][0]["preferences"][0].update(min_healthy_percentage=50)),
    "zones are evened out": ("aws_autoscaling_group", "consul", lambda it: it.update(suspended_processes=[])),
    "an interface is public": ("aws_lb", '"consul"', lambda it: it.update(internal=False)),
    "an interface speaks HTTP": ("aws_lb_listener", '"nomad"', lambda it: it.update(port=80, protocol="HTTP")),
    "a key does not rotate": ("aws_kms_key", "keyring", lambda it: it.update(enable_key_rotation=False)),
    "snapshots are overwritten": ("aws_s3_bucket_versioning", "snapshots", lambda it: it["versioning_configuration"][0].update(status="Suspended")),
}


def planted(state, failed):
    """Every mistake that is planted into the state is found."""
    for name, (kind, part, plant) in MISTAKES.items():
        wrong = copy.deepcopy(state)
        everything = list(resources(wrong["values"]["root_module"]))
        chosen = [it for it in everything if it["type"] == kind and part in it["address"]]
        if not chosen:
            raise failed(f"nowhere to plant: {name}")
        plant(chosen[0]["values"])
        try:
            check(wrong, failed)
        except failed:
            continue
        raise failed(f"a planted mistake was not found: {name}")


# --- User-data ----------------------------------------------------------------------------------------------------

def node_document(user_data):
    """What cloud-init writes to /etc/cos/node.yaml."""
    import yaml

    if not user_data.startswith("#cloud-config\n"):
        raise ValueError("user-data does not begin with #cloud-config")
    said = yaml.safe_load(user_data)
    assert said["runcmd"] == [["cos-agent", "apply"]], said["runcmd"]
    (file,) = said["write_files"]
    assert file["path"] == "/etc/cos/node.yaml", file["path"]
    return file["content"]


def user_data(by_group):
    import yaml

    assert sorted(by_group) == sorted(GROUPS), sorted(by_group)
    for group, text in by_group.items():
        assert len(text) < 16 * 1024, f"{group}: user-data is too long for EC2"
        node = yaml.safe_load(node_document(text))
        server = group.endswith("-server")
        assert node["version"] == 1 and node["role"] == (group if server else "nomad-client"), node
        assert node["consul"]["retry_join"] == {"tag_key": "cos:consul", "tag_value": "cos-playground"}, node
        # A secret is named, never given; and only below what the role of the group may read.
        own = group if server else f"client/{group}"
        for name in re.findall(r"ssm:(\S+?)\"?$", node_document(text), re.M):
            assert re.match(f"/cos/cos-playground/(public|agent|{own})/", name), f"{group} names {name}"


# --- Later plans --------------------------------------------------------------------------------------------------

def promoted(plan, image, failed):
    """A promoted image changes launch templates and rolls groups, and nothing else."""
    changes = {}
    for it in plan["resource_changes"]:
        if it["change"]["actions"] not in (["no-op"], ["read"]):
            changes.setdefault((it["type"], *it["change"]["actions"]), []).append(it["change"]["after"])
    if set(changes) != {("aws_launch_template", "update"), ("aws_autoscaling_group", "update")}:
        raise failed(f"a promoted image changes {sorted(changes)}")
    images = [it["image_id"] for it in changes["aws_launch_template", "update"]]
    if images != [image] * len(GROUPS) or len(changes["aws_autoscaling_group", "update"]) != len(GROUPS):
        raise failed(f"a promoted image does not reach every group: {images}")


def leftovers(aws):
    """What is still there after destroy, by kind; keys wait for their deletion, as AWS has it."""
    found = {
        "VPCs": [it["VpcId"] for it in aws("ec2").describe_vpcs()["Vpcs"] if not it["IsDefault"]],
        "security groups": [it["GroupId"] for it in aws("ec2").describe_security_groups()["SecurityGroups"] if it["GroupName"] != "default"],
        "addresses": aws("ec2").describe_addresses()["Addresses"],
        "endpoints": [it["ServiceName"] for it in aws("ec2").describe_vpc_endpoints()["VpcEndpoints"] if it["State"] != "deleted"],
        "launch templates": aws("ec2").describe_launch_templates()["LaunchTemplates"],
        "volumes": [it["VolumeId"] for it in aws("ec2").describe_volumes()["Volumes"]],
        "instances": [
            it["InstanceId"] for group in aws("ec2").describe_instances()["Reservations"] for it in group["Instances"]
            if it["State"]["Name"] != "terminated"
        ],
        "NAT gateways": [it["NatGatewayId"] for it in aws("ec2").describe_nat_gateways()["NatGateways"] if it["State"] != "deleted"],
        "groups": aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        "load balancers": aws("elbv2").describe_load_balancers()["LoadBalancers"],
        "target groups": aws("elbv2").describe_target_groups()["TargetGroups"],
        "roles": [it["RoleName"] for it in aws("iam").list_roles()["Roles"] if it["RoleName"].startswith("cos-")],
        "instance profiles": aws("iam").list_instance_profiles()["InstanceProfiles"],
        "buckets": aws("s3").list_buckets()["Buckets"],
        "aliases": [it["AliasName"] for it in aws("kms").list_aliases()["Aliases"] if it["AliasName"].startswith("alias/cos")],
    }
    return {kind: list_ for kind, list_ in found.items() if list_}
