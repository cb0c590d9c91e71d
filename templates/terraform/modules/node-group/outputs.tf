output "asg_name" {
  description = "Name of the Auto Scaling group."
  value       = aws_autoscaling_group.this.name
}

output "launch_template_id" {
  description = "Id of the launch template."
  value       = aws_launch_template.this.id
}

output "security_group_id" {
  description = "Id of the group's own security group."
  value       = aws_security_group.this.id
}

output "iam_role_arn" {
  description = "ARN of the role of the nodes."
  value       = aws_iam_role.this.arn
}

output "iam_role_id" {
  description = "Id of the role of the nodes."
  value       = aws_iam_role.this.id
}

output "user_data" {
  description = "What the nodes get as user-data; holds no secret."
  value       = local.user_data
}
