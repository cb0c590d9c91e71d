output "repository_urls" {
  description = "Addresses of the repositories, by name."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "pull_through_prefixes" {
  description = "Prefixes of the caches, for the module nomad-datacenter."
  value       = keys(aws_ecr_pull_through_cache_rule.this)
}
