# One Consul server and three Nomad servers.

variable "ami_id" {
  description = "Image of the nodes, as a bake makes it."
  type        = string
}

# Without secrets: for trying things out, where a bake's image is all there is.
locals {
  name = "cos-nomad"

  cluster = {
    name                     = local.name
    vpc_id                   = module.networking.vpc_id
    agents_security_group_id = aws_security_group.agents.id
    tls                      = false
    gossip_encryption        = false
    acl                      = false
  }
}

module "networking" {
  source = "../../modules/networking"

  cluster_name        = local.name
  nat_mode            = "none"
  endpoint_zone_count = 1
}

resource "aws_security_group" "agents" {
  name        = "${local.name}-agents"
  description = "Every node of the COS cluster ${local.name}"
  vpc_id      = module.networking.vpc_id
}

module "consul" {
  source = "../../modules/consul"

  cluster     = local.cluster
  num_servers = 1
  subnet_ids  = module.networking.backoffice_subnet_ids
  ami_id      = var.ami_id
}

module "nomad" {
  source = "../../modules/nomad"

  cluster    = local.cluster
  subnet_ids = module.networking.backoffice_subnet_ids
  ami_id     = var.ami_id
}

module "sgrules" {
  source = "../../modules/sgrules"

  tls             = local.cluster.tls
  prefix_list_ids = module.networking.prefix_list_ids
  security_group_ids = merge(module.networking.security_group_ids, {
    agents        = aws_security_group.agents.id
    consul-server = module.consul.security_group_id_consul_servers
    nomad-server  = module.nomad.security_group_id_nomad_servers
  })
}

output "asg_name" {
  description = "Auto Scaling group of the Nomad servers."
  value       = module.nomad.asg_name_nomad_servers
}
