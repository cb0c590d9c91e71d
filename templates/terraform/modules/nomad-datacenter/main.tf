# The Nomad clients of one datacenter.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  own      = "ssm:/cos/${var.cluster.name}/client/${var.datacenter_name}"
  registry = "arn:${data.aws_partition.current.partition}:ecr:${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"

  # What is empty has no key: the agent takes its default.
  clients = { for key, value in {
    node_pool    = var.node_pool
    region       = var.cluster.nomad_region
    meta         = var.meta
    host_volumes = { for name, volume in var.host_volumes : name => { for key, value in volume : key => value } }
    } : key => value if value != null && try(length(value) > 0, true)
  }
  disks = [for entry in var.device_to_mount_target_map : {
    device      = split(":", entry)[0]
    mount       = split(":", entry)[1]
    file_system = var.fs_type
    format      = "if-blank"
  }]
  efs = [for entry in var.efs : { for key, value in entry : key => value if value != null }]
}

data "aws_iam_policy_document" "images" {
  statement {
    sid       = "SignInToRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid     = "PullImages"
    actions = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = concat(
      ["${local.registry}:repository/*"],
      [for it in var.ecr_registries : "arn:${data.aws_partition.current.partition}:ecr:${it.region}:${it.account}:repository/*"],
    )
  }

  dynamic "statement" {
    for_each = length(var.pull_through_prefixes) > 0 ? [var.pull_through_prefixes] : []
    content {
      sid       = "FillPullThroughCache"
      actions   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      resources = [for prefix in statement.value : "${local.registry}:repository/${prefix}/*"]
    }
  }
}

module "data_center" {
  source = "../node-group"

  cluster                  = var.cluster
  name                     = var.datacenter_name
  role                     = "nomad-client"
  parameter_prefix         = "client/${var.datacenter_name}"
  size                     = var.node_scaling_cfg
  subnet_ids               = var.subnet_ids
  ami_id                   = var.ami_id
  ami_parameter            = var.ami_parameter
  resolve_ami_at_launch    = var.resolve_ami_at_launch
  instance_type            = var.instance_type
  root_volume_size         = var.root_volume_size
  extra_policy_arns        = var.extra_policy_arns
  additional_instance_tags = var.additional_instance_tags
  ebs_block_devices        = var.ebs_block_devices
  spot                     = var.spot
  policy_documents         = [data.aws_iam_policy_document.images.json]
  instance_tags            = { "cos:datacenter" = var.datacenter_name }

  node = merge(
    { datacenter = var.datacenter_name },
    { for key, value in {
      nomad = merge(
        local.clients,
        { for key, value in { consul_token = "${local.own}/nomad-consul", acl = true } : key => value if var.cluster.acl },
        { for key, value in { tls = {
          ca          = "ssm:/cos/${var.cluster.name}/public/nomad-ca"
          certificate = "${local.own}/tls-certificate"
          key         = "${local.own}/tls-key"
        } } : key => value if var.cluster.tls },
      )
      ecr   = { for key, value in { registries = var.ecr_registries } : key => value if length(value) > 0 }
      disks = local.disks
      efs   = local.efs
    } : key => value if length(value) > 0 },
    { for key, value in { docker = { privileged = true } } : key => value if var.docker_privileged },
    { for key, value in { consul = { acl = { enabled = true, agent_token = "${local.own}/consul-agent" } } } : key => value if var.cluster.acl },
  )
}

# --- Behind a load balancer -------------------------------------------------------------------------------------

resource "aws_lb_target_group" "ingress" {
  count = var.attach_ingress_alb_listener ? 1 : 0

  name_prefix          = "cos-"
  vpc_id               = var.cluster.vpc_id
  port                 = var.ingress_controller_port
  protocol             = "HTTP"
  deregistration_delay = 30
  tags                 = merge(var.cluster.tags, { Name = "${var.cluster.name}-${var.datacenter_name}" })

  health_check {
    path     = "/health"
    port     = var.ingress_health_port
    interval = 10
    timeout  = 5
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener_rule" "ingress" {
  count = var.attach_ingress_alb_listener ? 1 : 0

  listener_arn = var.alb_ingress_listener_arn
  tags         = var.cluster.tags

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.ingress[0].arn
  }

  condition {
    path_pattern {
      values = ["/*"]
    }
  }
}

resource "aws_autoscaling_attachment" "ingress" {
  count = var.attach_ingress_alb_listener ? 1 : 0

  autoscaling_group_name = module.data_center.asg_name
  lb_target_group_arn    = aws_lb_target_group.ingress[0].arn
}
