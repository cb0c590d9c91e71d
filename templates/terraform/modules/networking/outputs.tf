output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "vpc_cidr_block" {
  description = "Addresses of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "services_subnet_ids" {
  description = "Subnets without a way to the internet, for public-services and private-services."
  value       = local.subnet_ids["services"]
}

output "public_subnet_ids" {
  description = "Subnets with a way to and from the internet, for load balancers and NAT gateways only."
  value       = local.subnet_ids["public"]
}

output "backoffice_subnet_ids" {
  description = "Subnets without a way to or from the internet, for servers and the backoffice."
  value       = local.subnet_ids["backoffice"]
}

output "content_connector_subnet_ids" {
  description = "Subnets with a way out by NAT, as nat_mode says."
  value       = local.subnet_ids["content-connector"]
}

output "alb_ingress_listener_arn" {
  description = "Listener before public-services; null without a load balancer."
  value       = try(module.balancer["alb-ingress"].listener_arn, null)
}

output "alb_backoffice_listener_arn" {
  description = "Listener before the backoffice; null without a load balancer."
  value       = try(module.balancer["alb-backoffice"].listener_arn, null)
}

output "alb_public_services_dns" {
  description = "DNS name of the load balancer before public-services; null without one."
  value       = try(module.balancer["alb-ingress"].dns_name, null)
}

output "alb_backoffice_dns" {
  description = "DNS name of the load balancer before the backoffice; null without one."
  value       = try(module.balancer["alb-backoffice"].dns_name, null)
}

output "security_group_ids" {
  description = "Security groups of endpoints and load balancers by their name in the table of the module sgrules."
  value = merge(
    { endpoints = aws_security_group.endpoints.id },
    { for name, group in aws_security_group.balancer : name => group.id },
  )
}

output "prefix_list_ids" {
  description = "Prefix lists by their name in the table of the module sgrules."
  value       = { s3 = aws_vpc_endpoint.s3.prefix_list_id }
}

output "plain_http" {
  description = "Load balancers that speak plain HTTP, by their name in the table of the module sgrules."
  value       = [for name, it in local.balancers : name if it.listen.allow_http]
}
