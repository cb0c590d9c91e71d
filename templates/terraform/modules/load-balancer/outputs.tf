output "arn" {
  description = "ARN of the load balancer."
  value       = aws_lb.this.arn
}

output "dns_name" {
  description = "DNS name of the load balancer."
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "Hosted zone of that name, for an alias."
  value       = aws_lb.this.zone_id
}

output "listener_arn" {
  description = "ARN of the listener."
  value       = aws_lb_listener.this.arn
}
