output "asg_name" {
  description = "Name of the Auto Scaling group."
  value       = module.data_center.asg_name
}

output "sg_datacenter_id" {
  description = "Id of the datacenter's own security group."
  value       = module.data_center.security_group_id
}

output "alb_https_targetgroup_arn" {
  description = "ARN of the target group behind the load balancer; null without one."
  value       = one(aws_lb_target_group.ingress[*].arn)
}

output "iam_role_arn" {
  description = "ARN of the nodes' role."
  value       = module.data_center.iam_role_arn
}

output "user_data" {
  description = "What the nodes get as user-data; holds no secret."
  value       = module.data_center.user_data
}
