output "cluster" {
  description = "What all nodes of the cluster share, for more groups of nodes by the modules nomad-datacenter, nomad and consul."
  value       = local.cluster
}

output "cluster_prefix" {
  description = "Name of the cluster, with which the names of its parts begin."
  value       = local.name
}

output "vpc_id" {
  description = "VPC of the cluster."
  value       = var.vpc_id
}

output "nomad_servers_cluster_tag_key" {
  description = "Key of a tag that only Nomad servers have."
  value       = module.nomad.nomad_servers_cluster_tag_key
}

output "nomad_servers_cluster_tag_value" {
  description = "Value of that tag."
  value       = module.nomad.nomad_servers_cluster_tag_value
}

output "num_nomad_servers" {
  description = "How many Nomad servers form the quorum."
  value       = module.nomad.num_nomad_servers
}

output "consul_servers_cluster_tag_key" {
  description = "Key of the tag by which the Consul servers are found."
  value       = module.consul.consul_servers_cluster_tag_key
}

output "consul_servers_cluster_tag_value" {
  description = "Value of the tag by which the Consul servers are found."
  value       = module.consul.consul_servers_cluster_tag_value
}

output "consul_servers_sg_id" {
  description = "Security group of the Consul servers."
  value       = module.consul.security_group_id_consul_servers
}

output "nomad_servers_sg_id" {
  description = "Security group of the Nomad servers."
  value       = module.nomad.security_group_id_nomad_servers
}

output "agents_sg_id" {
  description = "Security group that every node is in."
  value       = aws_security_group.agents.id
}

output "datacenters" {
  description = "Of each datacenter: Auto Scaling group, security group, role, and target group behind the load balancer."
  value = { for name, it in module.datacenter : name => {
    asg_name                  = it.asg_name
    sg_id                     = it.sg_datacenter_id
    iam_role_arn              = it.iam_role_arn
    alb_https_targetgroup_arn = it.alb_https_targetgroup_arn
  } }
}

output "ui" {
  description = "Of each web interface: DNS name, hosted zone, listener and target group of its load balancer; empty without."
  value = merge([for it in module.ui_access : {
    nomad  = { dns_name = it.nomad_ui_alb_dns_name, zone_id = it.nomad_ui_alb_zone_id, listener_arn = it.nomad_ui_alb_https_listener_arn, targetgroup_arn = it.nomad_ui_alb_https_targetgroup_arn }
    consul = { dns_name = it.consul_ui_alb_dns_name, zone_id = it.consul_ui_alb_zone_id, listener_arn = it.consul_ui_alb_https_listener_arn, targetgroup_arn = it.consul_ui_alb_https_targetgroup_arn }
    fabio  = { dns_name = it.fabio_ui_alb_dns_name, zone_id = it.fabio_ui_alb_zone_id, listener_arn = it.fabio_ui_alb_https_listener_arn, targetgroup_arn = it.fabio_ui_alb_https_targetgroup_arn }
  }]...)
}

output "ecr_repository_urls" {
  description = "Addresses of the repositories, by name."
  value       = module.ecr.repository_urls
}

output "kms_key_arn" {
  description = "Key for disks, secrets and snapshots."
  value       = module.keys.data_key_arn
}

output "snapshot_bucket" {
  description = "Bucket of Consul's and Nomad's snapshots."
  value       = module.snapshots.bucket_name
}

output "rules" {
  description = "Every rule of the security groups as a sentence."
  value       = module.sgrules.rules
}

output "user_data" {
  description = "What each group of nodes gets as user-data; holds no secret."
  value = merge(
    { consul-server = module.consul.user_data, nomad-server = module.nomad.user_data },
    { for name, datacenter in module.datacenter : name => datacenter.user_data },
  )
}
