output "security_group_id" {
  description = "Security group of the load balancers: alb-ui in the table of the module sgrules."
  value       = aws_security_group.this.id
}

output "nomad_ui_alb_dns_name" {
  description = "DNS name of the load balancer of Nomad's web interface."
  value       = module.load_balancer["nomad"].dns_name
}

output "nomad_ui_alb_zone_id" {
  description = "Hosted zone of the load balancer's name of Nomad's web interface."
  value       = module.load_balancer["nomad"].zone_id
}

output "nomad_ui_alb_https_listener_arn" {
  description = "Listener of the load balancer of Nomad's web interface."
  value       = module.load_balancer["nomad"].listener_arn
}

output "nomad_ui_alb_https_targetgroup_arn" {
  description = "Target group of the load balancer of Nomad's web interface."
  value       = aws_lb_target_group.this["nomad"].arn
}

output "consul_ui_alb_dns_name" {
  description = "DNS name of the load balancer of Consul's web interface."
  value       = module.load_balancer["consul"].dns_name
}

output "consul_ui_alb_zone_id" {
  description = "Hosted zone of the load balancer's name of Consul's web interface."
  value       = module.load_balancer["consul"].zone_id
}

output "consul_ui_alb_https_listener_arn" {
  description = "Listener of the load balancer of Consul's web interface."
  value       = module.load_balancer["consul"].listener_arn
}

output "consul_ui_alb_https_targetgroup_arn" {
  description = "Target group of the load balancer of Consul's web interface."
  value       = aws_lb_target_group.this["consul"].arn
}

output "fabio_ui_alb_dns_name" {
  description = "DNS name of the load balancer of the ingress proxy's web interface."
  value       = module.load_balancer["fabio"].dns_name
}

output "fabio_ui_alb_zone_id" {
  description = "Hosted zone of the load balancer's name of the ingress proxy's web interface."
  value       = module.load_balancer["fabio"].zone_id
}

output "fabio_ui_alb_https_listener_arn" {
  description = "Listener of the load balancer of the ingress proxy's web interface."
  value       = module.load_balancer["fabio"].listener_arn
}

output "fabio_ui_alb_https_targetgroup_arn" {
  description = "Target group of the load balancer of the ingress proxy's web interface."
  value       = aws_lb_target_group.this["fabio"].arn
}
