# A COS cluster: Consul and Nomad servers, Nomad clients by datacenter, and what guards and shows them. The network it
# stands in is the caller's; the module networking makes one that fits.

locals {
  name = lower("${var.stack_name}-${var.env_name}${var.unique_postfix}")

  cluster = {
    name                     = local.name
    vpc_id                   = var.vpc_id
    agents_security_group_id = aws_security_group.agents.id
    consul_cluster_tag_key   = "cos:consul"
    consul_datacenter        = var.consul_datacenter
    nomad_region             = var.nomad_region
    tls                      = var.tls
    gossip_encryption        = var.gossip_encryption
    acl                      = var.acl
    kms_key_arn              = module.keys.data_key_arn
    snapshot_bucket_arn      = module.snapshots.bucket_arn
    permissions_boundary_arn = var.permissions_boundary_arn
    tags                     = var.tags
  }
}

# Every node is in this group besides its own: what all agents may do is said of it once.
resource "aws_security_group" "agents" {
  name        = "${local.name}-agents"
  description = "Every node of the COS cluster ${local.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${local.name}-agents" })

  lifecycle {
    create_before_destroy = true
  }
}

module "keys" {
  source = "./modules/keys"

  cluster_name = local.name
  tags         = var.tags
}

module "snapshots" {
  source = "./modules/snapshots"

  cluster_name  = local.name
  kms_key_arn   = module.keys.data_key_arn
  force_destroy = !var.deletion_protection
  tags          = var.tags
}

module "ecr" {
  source = "./modules/ecr"

  ecr_repositories    = var.ecr_repositories
  pull_through_caches = var.pull_through_caches
  tags                = var.tags
}

module "consul" {
  source = "./modules/consul"

  cluster               = local.cluster
  num_servers           = var.consul_num_servers
  subnet_ids            = var.consul_server_subnet_ids
  ami_id                = var.consul_ami_id
  ami_parameter         = var.consul_ami_id == null ? var.ami_parameter : null
  resolve_ami_at_launch = var.consul_ami_id == null && var.resolve_ami_at_launch
  instance_type         = var.consul_instance_type
  # A load balancer has no certificate to show.
  verify_https_client = !var.ui_access
}

module "nomad" {
  source = "./modules/nomad"

  cluster               = local.cluster
  num_servers           = var.nomad_num_servers
  subnet_ids            = var.nomad_server_subnet_ids
  ami_id                = var.nomad_ami_id_servers
  ami_parameter         = var.nomad_ami_id_servers == null ? var.ami_parameter : null
  resolve_ami_at_launch = var.nomad_ami_id_servers == null && var.resolve_ami_at_launch
  instance_type         = var.instance_type_server
  client_introduction   = var.client_introduction
  keyring_kms_key_arn   = module.keys.keyring_key_arn
}

module "datacenter" {
  source   = "./modules/nomad-datacenter"
  for_each = var.datacenters

  cluster                     = local.cluster
  datacenter_name             = each.key
  subnet_ids                  = each.value.subnet_ids
  ami_id                      = var.nomad_ami_id_clients
  ami_parameter               = var.nomad_ami_id_clients == null ? var.ami_parameter : null
  resolve_ami_at_launch       = var.nomad_ami_id_clients == null && var.resolve_ami_at_launch
  node_scaling_cfg            = { min = each.value.min, max = each.value.max, desired_capacity = each.value.desired_capacity }
  instance_type               = each.value.instance_type
  root_volume_size            = each.value.root_volume_size
  node_pool                   = each.value.node_pool
  meta                        = each.value.meta
  docker_privileged           = each.value.docker_privileged
  extra_policy_arns           = each.value.extra_policy_arns
  additional_instance_tags    = each.value.additional_instance_tags
  ebs_block_devices           = each.value.ebs_block_devices
  device_to_mount_target_map  = each.value.device_to_mount_target_map
  fs_type                     = each.value.fs_type
  efs                         = each.value.efs
  host_volumes                = each.value.host_volumes
  spot                        = each.value.spot
  attach_ingress_alb_listener = each.value.attach_ingress_alb_listener
  alb_ingress_listener_arn    = each.value.alb_ingress_listener_arn
  pull_through_prefixes       = keys(var.pull_through_caches)
}

module "ui_access" {
  source = "./modules/ui-access"
  count  = var.ui_access ? 1 : 0

  cluster_name                   = local.name
  vpc_id                         = var.vpc_id
  subnet_ids                     = var.alb_subnet_ids
  nomad_server_asg_name          = module.nomad.asg_name_nomad_servers
  consul_server_asg_name         = module.consul.asg_name_consul_servers
  fabio_server_asg_name          = module.datacenter["public-services"].asg_name
  tls                            = var.tls
  internal                       = var.ui_alb_internal
  ui_alb_https_listener_cert_arn = var.ui_alb_https_listener_cert_arn
  allow_http                     = var.ui_alb_allow_http
  oidc                           = var.ui_alb_oidc
  access_log_bucket              = var.access_log_bucket
  deletion_protection            = var.deletion_protection
  tags                           = var.tags
}

module "sgrules" {
  source = "./modules/sgrules"

  security_group_ids = merge(
    var.security_group_ids,
    {
      agents        = aws_security_group.agents.id
      consul-server = module.consul.security_group_id_consul_servers
      nomad-server  = module.nomad.security_group_id_nomad_servers
    },
    { for name, datacenter in module.datacenter : name => datacenter.sg_datacenter_id },
    { for name in ["alb-ui"] : name => module.ui_access[0].security_group_id if var.ui_access },
  )
  datacenters     = keys(var.datacenters)
  prefix_list_ids = var.prefix_list_ids
  cidr_blocks = {
    ui-users         = var.allowed_cidr_blocks_for_ui_alb
    ingress-users    = coalesce(var.allowed_cidr_blocks_for_ingress, { world = "0.0.0.0/0" })
    backoffice-users = var.allowed_cidr_blocks_for_backoffice
  }
  service_calls          = var.service_calls
  tls                    = var.tls
  plain_http             = concat(var.plain_http, var.ui_alb_allow_http ? ["alb-ui"] : [])
  content_connector_http = var.content_connector_http
  additional_rules       = var.additional_rules
  tags                   = var.tags
}
