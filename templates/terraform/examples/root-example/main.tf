# The whole platform in a network of its own.

variable "certificate_arn" {
  description = "Certificate of ACM for the load balancers."
  type        = string
}

variable "operators" {
  description = "Who may reach the web interfaces and the backoffice, by a label of your own, such as { office = \"10.0.0.0/8\" }."
  type        = map(string)
  default     = {}
}

variable "nat_mode" {
  description = "How the content connector reaches the internet: none, single or per_az."
  type        = string
  default     = "single"
}

variable "deletion_protection" {
  description = "Whether load balancers refuse to be destroyed, and the bucket of snapshots with snapshots in it."
  type        = bool
  default     = true
}

module "networking" {
  source = "../../modules/networking"

  cluster_name = "cos-playground"
  nat_mode     = var.nat_mode
  ingress      = { certificate_arn = var.certificate_arn }
  backoffice   = { certificate_arn = var.certificate_arn }

  deletion_protection = var.deletion_protection
}

module "cos" {
  source = "../.."

  vpc_id                   = module.networking.vpc_id
  consul_server_subnet_ids = module.networking.backoffice_subnet_ids
  nomad_server_subnet_ids  = module.networking.backoffice_subnet_ids

  datacenters = {
    public-services = {
      subnet_ids                  = module.networking.services_subnet_ids
      attach_ingress_alb_listener = true
      alb_ingress_listener_arn    = module.networking.alb_ingress_listener_arn
    }
    private-services  = { subnet_ids = module.networking.services_subnet_ids }
    content-connector = { subnet_ids = module.networking.content_connector_subnet_ids }
    backoffice = {
      subnet_ids                  = module.networking.backoffice_subnet_ids
      attach_ingress_alb_listener = true
      alb_ingress_listener_arn    = module.networking.alb_backoffice_listener_arn
    }
  }

  security_group_ids  = module.networking.security_group_ids
  prefix_list_ids     = module.networking.prefix_list_ids
  plain_http          = module.networking.plain_http
  pull_through_caches = { ecr-public = { upstream_registry_url = "public.ecr.aws" } }

  alb_subnet_ids                     = module.networking.backoffice_subnet_ids
  ui_alb_https_listener_cert_arn     = var.certificate_arn
  allowed_cidr_blocks_for_ui_alb     = var.operators
  allowed_cidr_blocks_for_backoffice = var.operators
  deletion_protection                = var.deletion_protection
}

output "ui" {
  description = "Where the web interfaces are."
  value       = module.cos.ui
}

output "public_services" {
  description = "Where public services are."
  value       = module.networking.alb_public_services_dns
}

output "user_data" {
  description = "What each group of nodes gets as user-data."
  value       = module.cos.user_data
}
