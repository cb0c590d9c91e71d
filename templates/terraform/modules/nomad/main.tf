# The Nomad servers of a cluster.

locals {
  own = "ssm:/cos/${var.cluster.name}/nomad-server"
}

data "aws_iam_policy_document" "keyring" {
  dynamic "statement" {
    for_each = var.keyring_kms_key_arn[*]
    content {
      sid       = "WrapKeyring"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt"]
      resources = [statement.value]
    }
  }
}

module "servers" {
  source = "../node-group"

  cluster                  = var.cluster
  name                     = "nomad-server"
  role                     = "nomad-server"
  parameter_prefix         = "nomad-server"
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
  policy_documents         = [data.aws_iam_policy_document.keyring.json]
  instance_tags            = { "cos:datacenter" = var.datacenter_name }

  node = merge(
    {
      datacenter = var.datacenter_name
      nomad = merge(
        { bootstrap_expect = var.num_servers },
        { for key, value in {
          region              = var.cluster.nomad_region
          client_introduction = var.client_introduction
          kms_key             = var.keyring_kms_key_arn
        } : key => value if value != null },
        { for key, value in { gossip_key = "${local.own}/gossip" } : key => value if var.cluster.gossip_encryption },
        { for key, value in {
          acl          = true
          consul_token = "${local.own}/nomad-consul"
        } : key => value if var.cluster.acl },
        { for key, value in { tls = {
          ca          = "ssm:/cos/${var.cluster.name}/public/nomad-ca"
          certificate = "${local.own}/tls-certificate"
          key         = "${local.own}/tls-key"
        } } : key => value if var.cluster.tls },
      )
    },
    { for key, value in { consul = { acl = { enabled = true, agent_token = "${local.own}/consul-agent" } } } : key => value if var.cluster.acl },
  )
}
