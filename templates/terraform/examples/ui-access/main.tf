# Load balancers before the web interfaces of groups that are there already, by plain HTTP, for one private network.

variable "vpc_id" {
  description = "VPC of the groups."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones."
  type        = list(string)
}

variable "asg_names" {
  description = "Auto Scaling groups of Nomad servers, Consul servers and proxy."
  type        = object({ nomad = string, consul = string, fabio = string })
}

variable "operators" {
  description = "Who may reach the web interfaces, by a label of your own."
  type        = map(string)
  default     = { private = "10.0.0.0/8" }
}

module "ui_access" {
  source = "../../modules/ui-access"

  cluster_name           = "cos-ui-access"
  vpc_id                 = var.vpc_id
  subnet_ids             = var.subnet_ids
  nomad_server_asg_name  = var.asg_names.nomad
  consul_server_asg_name = var.asg_names.consul
  fabio_server_asg_name  = var.asg_names.fabio
  tls                    = false
  allow_http             = true
  deletion_protection    = false
}

module "sgrules" {
  source = "../../modules/sgrules"

  tls                = false
  plain_http         = ["alb-ui"]
  security_group_ids = { alb-ui = module.ui_access.security_group_id }
  cidr_blocks        = { ui-users = var.operators }
}

output "nomad_ui" {
  description = "Where Nomad's web interface is."
  value       = module.ui_access.nomad_ui_alb_dns_name
}
