# One server of each kind, and one datacenter with a volume of its own on spot instances.

variable "ami_id" {
  description = "Image of the nodes, as a bake makes it."
  type        = string
}

# Without secrets: for trying things out, where a bake's image is all there is.
locals {
  name = "cos-datacenter"

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

  cluster     = local.cluster
  num_servers = 1
  subnet_ids  = module.networking.backoffice_subnet_ids
  ami_id      = var.ami_id
}

module "datacenter" {
  source = "../../modules/nomad-datacenter"

  cluster                    = local.cluster
  datacenter_name            = "data-services"
  subnet_ids                 = module.networking.services_subnet_ids
  ami_id                     = var.ami_id
  node_scaling_cfg           = { min = 1, max = 3 }
  spot                       = { on_demand_base = 1, instance_types = ["t3.medium", "t3a.medium"] }
  ebs_block_devices          = [{ device_name = "/dev/sdf", volume_size = 20 }]
  device_to_mount_target_map = ["/dev/sdf:/data"]
  host_volumes               = { data = { path = "/data" } }
}

module "sgrules" {
  source = "../../modules/sgrules"

  tls             = local.cluster.tls
  datacenters     = ["data-services"]
  prefix_list_ids = module.networking.prefix_list_ids
  security_group_ids = merge(module.networking.security_group_ids, {
    agents        = aws_security_group.agents.id
    consul-server = module.consul.security_group_id_consul_servers
    nomad-server  = module.nomad.security_group_id_nomad_servers
    data-services = module.datacenter.sg_datacenter_id
  })
}

output "asg_name" {
  description = "Auto Scaling group of the datacenter."
  value       = module.datacenter.asg_name
}

output "user_data" {
  description = "What the nodes get as user-data."
  value       = module.datacenter.user_data
}
