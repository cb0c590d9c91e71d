output "asg_name_consul_servers" {
  description = "Name of the Auto Scaling group."
  value       = module.servers.asg_name
}

output "security_group_id_consul_servers" {
  description = "Id of the servers' own security group."
  value       = module.servers.security_group_id
}

output "consul_servers_cluster_tag_key" {
  description = "Key of the tag by which the servers are found."
  value       = var.cluster.consul_cluster_tag_key
}

output "consul_servers_cluster_tag_value" {
  description = "Value of the tag by which the servers are found."
  value       = var.cluster.name
}

output "iam_role_arn_consul_servers" {
  description = "ARN of the servers' role."
  value       = module.servers.iam_role_arn
}

output "user_data" {
  description = "What the servers get as user-data; holds no secret."
  value       = module.servers.user_data
}
