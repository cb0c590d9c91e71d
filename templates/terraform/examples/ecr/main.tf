# A repository, and a cache of Amazon's public gallery.

module "ecr" {
  source = "../../modules/ecr"

  ecr_repositories    = ["ping-service"]
  pull_through_caches = { ecr-public = { upstream_registry_url = "public.ecr.aws" } }
}

output "repository_urls" {
  description = "Addresses of the repositories, by name."
  value       = module.ecr.repository_urls
}
