# The Consul servers of a cluster.

locals {
  own = "ssm:/cos/${var.cluster.name}/consul-server"
}

module "servers" {
  source = "../node-group"

  cluster                  = var.cluster
  name                     = "consul-server"
  role                     = "consul-server"
  parameter_prefix         = "consul-server"
  quorum                   = true
  size                     = { min = var.num_servers, max = var.num_servers, desired_capacity = var.num_servers }
  subnet_ids               = var.subnet_ids
  ami_id                   = var.ami_id
  ami_parameter            = var.ami_parameter
  resolve_ami_at_launch    = var.resolve_ami_at_launch
  instance_type            = var.instance_type
  root_volume_size         = var.root_volume_size
  extra_policy_arns        = var.extra_policy_arns
  additional_instance_tags = var.additional_instance_tags

  # By this tag every agent of the cluster finds the servers.
  instance_tags = { (var.cluster.consul_cluster_tag_key) = var.cluster.name }

  node = {
    consul = merge(
      { bootstrap_expect = var.num_servers },
      { for key, value in { acl = {
        enabled                  = true
        agent_token              = "${local.own}/consul-agent"
        initial_management_token = "${local.own}/initial-management"
      } } : key => value if var.cluster.acl },
    )
  }
  consul_tls = {
    certificate         = "${local.own}/tls-certificate"
    key                 = "${local.own}/tls-key"
    auto_encrypt        = true
    verify_https_client = var.verify_https_client
  }
}
