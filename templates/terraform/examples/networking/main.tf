# The network alone, with a gateway of its own for each zone.

module "networking" {
  source = "../../modules/networking"

  cluster_name = "cos-networking"
  nat_mode     = "per_az"
}

output "vpc_id" {
  description = "VPC of the network."
  value       = module.networking.vpc_id
}
