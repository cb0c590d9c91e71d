output "num_nomad_servers" {
  description = "How many servers form the quorum."
  value       = var.num_servers
}

output "asg_name_nomad_servers" {
  description = "Name of the Auto Scaling group."
  value       = module.servers.asg_name
}

output "launch_template_id_nomad_servers" {
  description = "Id of the launch template."
  value       = module.servers.launch_template_id
}

output "iam_role_arn_nomad_servers" {
  description = "ARN of the servers' role."
  value       = module.servers.iam_role_arn
}

output "iam_role_id_nomad_servers" {
  description = "Id of the servers' role."
  value       = module.servers.iam_role_id
}

output "security_group_id_nomad_servers" {
  description = "Id of the servers' own security group."
  value       = module.servers.security_group_id
}

output "nomad_servers_cluster_tag_key" {
  description = "Key of a tag that only the servers of all clusters have."
  value       = "cos:role"
}

output "nomad_servers_cluster_tag_value" {
  description = "Value of that tag."
  value       = "nomad-server"
}

output "user_data" {
  description = "What the servers get as user-data; holds no secret."
  value       = module.servers.user_data
}
