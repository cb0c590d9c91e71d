# One kind of node: its role, launch template, and Auto Scaling group. consul, nomad and nomad-datacenter are this
# module with other words; nothing about nodes is written twice.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null && !var.resolve_ami_at_launch ? 1 : 0
  name  = coalesce(var.ami_parameter, "missing")

  lifecycle {
    precondition {
      condition     = (var.ami_id == null) != (var.ami_parameter == null)
      error_message = "ami_id or ami_parameter must be given, and not both."
    }
  }
}

data "aws_subnet" "this" {
  count = length(var.subnet_ids)
  id    = var.subnet_ids[count.index]
}

locals {
  name    = "${var.cluster.name}-${var.name}"
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.id
  arn     = "arn:${data.aws_partition.current.partition}"

  # insecure_value: an image id is no secret, and it must show in the plan.
  image_id = coalesce(var.ami_id, var.resolve_ami_at_launch ? "resolve:ssm:${coalesce(var.ami_parameter, "missing")}" : one(data.aws_ssm_parameter.ami[*].insecure_value))

  tags = merge(var.cluster.tags, { Name = local.name, "cos:role" = var.role }, var.instance_tags)
}

# --- The user-data ----------------------------------------------------------------------------------------------

locals {
  parameters = "/cos/${var.cluster.name}"

  # Where secrets are, never what they are.
  shared_node = {
    version = 1
    role    = var.role
    consul = merge(
      {
        retry_join = {
          tag_key   = var.cluster.consul_cluster_tag_key
          tag_value = var.cluster.name
        }
      },
      { for key, value in { datacenter = var.cluster.consul_datacenter } : key => value if value != null },
      { for key, value in { gossip_key = "ssm:${local.parameters}/agent/consul-gossip" } : key => value if var.cluster.gossip_encryption },
      { for key, value in { tls = merge({ ca = "ssm:${local.parameters}/public/consul-ca" }, var.consul_tls) } : key => value if var.cluster.tls },
    )
  }
  consul = merge(local.shared_node.consul, lookup(var.node, "consul", {}))
  node   = merge(local.shared_node, var.node, { consul = local.consul })

  user_data = join("\n", ["#cloud-config", yamlencode({
    write_files = [{
      path        = "/etc/cos/node.yaml"
      permissions = "0644"
      content     = yamlencode(local.node)
    }]
    runcmd = [["cos-agent", "apply"]]
  })])
}

# --- The role ---------------------------------------------------------------------------------------------------

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  name                 = "${local.name}-${local.region}"
  description          = "${var.name} of the COS cluster ${var.cluster.name}"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.cluster.permissions_boundary_arn
  tags                 = merge(local.tags, { Name = local.name })
}

resource "aws_iam_instance_profile" "this" {
  name = aws_iam_role.this.name
  role = aws_iam_role.this.name
  tags = local.tags
}

module "find_servers" {
  source      = "../consul-iam-policies"
  iam_role_id = aws_iam_role.this.id
}

module "session_manager" {
  source      = "../session-manager"
  iam_role_id = aws_iam_role.this.id
}

locals {
  # Each group reads its own prefix and the two that all share. No GetParametersByPath: who may read a path reads all
  # below it, whatever else denies it.
  readable = [
    for prefix in ["public", "agent", var.parameter_prefix] :
    "${local.arn}:ssm:${local.region}:${local.account}:parameter${local.parameters}/${prefix}/*"
  ]
}

data "aws_iam_policy_document" "this" {
  source_policy_documents = var.policy_documents

  statement {
    sid       = "ReadOwnParameters"
    actions   = ["ssm:GetParameter", "ssm:GetParameters"]
    resources = local.readable
  }

  # The second gate before a secret: the key decrypts for this role only what Systems Manager reads from its prefixes.
  dynamic "statement" {
    for_each = var.cluster.kms_key_arn[*]
    content {
      sid       = "DecryptOwnParameters"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["ssm.${local.region}.${data.aws_partition.current.dns_suffix}"]
      }
      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:PARAMETER_ARN"
        values   = local.readable
      }
    }
  }

  statement {
    sid       = "CompleteOwnHooks"
    actions   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
    resources = ["${local.arn}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${local.name}"]
  }

  dynamic "statement" {
    for_each = var.quorum ? var.cluster.snapshot_bucket_arn[*] : []
    content {
      sid       = "WriteSnapshots"
      actions   = ["s3:PutObject"]
      resources = ["${statement.value}/${var.role}/*"]
    }
  }

  dynamic "statement" {
    for_each = var.quorum && var.cluster.snapshot_bucket_arn != null ? var.cluster.kms_key_arn[*] : []
    content {
      sid       = "EncryptSnapshots"
      actions   = ["kms:GenerateDataKey"]
      resources = [statement.value]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["s3.${local.region}.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }
}

resource "aws_iam_role_policy" "this" {
  name   = "cos-node"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.this.json
}

resource "aws_iam_role_policy_attachment" "extra" {
  for_each = var.extra_policy_arns

  role       = aws_iam_role.this.name
  policy_arn = each.value
}

# --- The machines -----------------------------------------------------------------------------------------------

# Without rules of its own: what may flow is in the table of the module sgrules.
resource "aws_security_group" "this" {
  name        = local.name
  description = "${var.name} of the COS cluster ${var.cluster.name}"
  vpc_id      = var.cluster.vpc_id
  tags        = merge(var.cluster.tags, { Name = local.name })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_launch_template" "this" {
  name                   = local.name
  description            = "${var.name} of the COS cluster ${var.cluster.name}"
  image_id               = local.image_id
  instance_type          = var.instance_type
  user_data              = base64encode(local.user_data)
  update_default_version = true
  vpc_security_group_ids = [aws_security_group.this.id, var.cluster.agents_security_group_id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.this.arn
  }

  # One hop: a container behind a bridge cannot reach the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  monitoring {
    enabled = true
  }

  dynamic "block_device_mappings" {
    for_each = concat(
      [{ device_name = "/dev/xvda", volume_size = var.root_volume_size, volume_type = "gp3", iops = null, throughput = null, delete_on_termination = true }],
      var.ebs_block_devices,
    )
    content {
      device_name = block_device_mappings.value.device_name
      ebs {
        volume_size           = block_device_mappings.value.volume_size
        volume_type           = block_device_mappings.value.volume_type
        iops                  = block_device_mappings.value.iops
        throughput            = block_device_mappings.value.throughput
        delete_on_termination = block_device_mappings.value.delete_on_termination
        encrypted             = true
        kms_key_id            = var.cluster.kms_key_arn
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = ["volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(var.cluster.tags, { Name = local.name })
    }
  }

  tags = merge(var.cluster.tags, { Name = local.name })

  lifecycle {
    precondition {
      condition     = (var.ami_id == null) != (var.ami_parameter == null)
      error_message = "ami_id or ami_parameter must be given, and not both."
    }
    precondition {
      condition     = !var.resolve_ami_at_launch || var.ami_parameter != null
      error_message = "resolve_ami_at_launch needs ami_parameter."
    }
  }
}

locals {
  # The agent completes both: a node that never becomes ready is abandoned, one that leaves is let go in any case.
  hooks = {
    launch    = { transition = "autoscaling:EC2_INSTANCE_LAUNCHING", default = "ABANDON" }
    terminate = { transition = "autoscaling:EC2_INSTANCE_TERMINATING", default = "CONTINUE" }
  }
  hook_seconds = 900

  # A voter is replaced by launching its successor first; one more than the quorum's size at a time.
  size           = var.quorum ? merge(var.size, { max = var.size.max + 1 }) : var.size
  step_percent   = var.quorum ? ceil(100 / var.size.max) : 20
  checkpoints    = var.quorum ? [for number in range(1, var.size.max + 1) : min(100, ceil(100 * number / var.size.max))] : []
  needed_zones   = var.quorum ? min(3, var.size.max) : 1
  instance_types = var.spot == null ? [] : var.spot.instance_types
}

resource "aws_autoscaling_group" "this" {
  name                = local.name
  vpc_zone_identifier = var.subnet_ids
  min_size            = local.size.min
  max_size            = local.size.max
  desired_capacity    = local.size.desired_capacity

  # A load balancer must not end servers that have lost their leader: they are the state.
  health_check_type         = "EC2"
  health_check_grace_period = 300
  default_instance_warmup   = 60
  capacity_rebalance        = var.spot != null
  suspended_processes       = var.quorum ? ["AZRebalance"] : []
  termination_policies      = ["OldestLaunchTemplate", "OldestInstance"]
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances"]

  # Nodes are ready when their secrets are there, and those come after the first apply: the hooks wait, not Terraform.
  wait_for_capacity_timeout = "0"

  dynamic "launch_template" {
    for_each = var.spot == null ? [1] : []
    content {
      id      = aws_launch_template.this.id
      version = aws_launch_template.this.latest_version
    }
  }

  dynamic "mixed_instances_policy" {
    for_each = var.spot[*]
    content {
      instances_distribution {
        on_demand_base_capacity                  = mixed_instances_policy.value.on_demand_base
        on_demand_percentage_above_base_capacity = mixed_instances_policy.value.on_demand_percentage
        spot_allocation_strategy                 = "price-capacity-optimized"
      }
      launch_template {
        launch_template_specification {
          launch_template_id = aws_launch_template.this.id
          version            = aws_launch_template.this.latest_version
        }
        dynamic "override" {
          for_each = local.instance_types
          content {
            instance_type = override.value
          }
        }
      }
    }
  }

  # Hooks must be there before the first instance; the resources below keep them as they are from then on.
  dynamic "initial_lifecycle_hook" {
    for_each = local.hooks
    content {
      name                 = initial_lifecycle_hook.key
      lifecycle_transition = initial_lifecycle_hook.value.transition
      default_result       = initial_lifecycle_hook.value.default
      heartbeat_timeout    = local.hook_seconds
    }
  }

  instance_maintenance_policy {
    min_healthy_percentage = 100
    max_healthy_percentage = 100 + local.step_percent
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 100 + local.step_percent
      # AWS cannot roll back to an image that only the launch knows.
      auto_rollback          = !var.resolve_ami_at_launch
      skip_matching          = true
      checkpoint_percentages = local.checkpoints
      checkpoint_delay       = var.quorum ? 60 : null
    }
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  dynamic "tag" {
    for_each = var.additional_instance_tags
    content {
      key                 = tag.value.key
      value               = tag.value.value
      propagate_at_launch = tag.value.propagate_at_launch
    }
  }

  lifecycle {
    precondition {
      condition     = length(distinct(data.aws_subnet.this[*].availability_zone)) >= local.needed_zones
      error_message = "subnet_ids of ${var.name} must lie in at least ${local.needed_zones} distinct zones: servers in fewer lose their quorum with one zone."
    }
  }

  depends_on = [aws_iam_role_policy.this, module.find_servers, module.session_manager]
}

resource "aws_autoscaling_lifecycle_hook" "this" {
  for_each = local.hooks

  name                   = each.key
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = each.value.transition
  default_result         = each.value.default
  heartbeat_timeout      = local.hook_seconds
}
