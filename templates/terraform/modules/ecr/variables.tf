variable "ecr_repositories" {
  description = "Names of repositories."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.ecr_repositories : can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", name))])
    error_message = "ecr_repositories must be lower-case names such as team/service."
  }
}

variable "pull_through_caches" {
  description = "Upstream registries that ECR fetches from at the first pull, by the prefix under which their images appear. Docker Hub and GitHub ask for a credential: a secret of Secrets Manager whose name begins with ecr-pullthroughcache/."
  type = map(object({
    upstream_registry_url = string
    credential_arn        = optional(string)
  }))
  default = {}

  validation {
    condition = alltrue([
      for it in values(var.pull_through_caches) : it.credential_arn != null
      if contains(["registry-1.docker.io", "ghcr.io"], it.upstream_registry_url)
    ])
    error_message = "pull_through_caches must give credential_arn for registry-1.docker.io and ghcr.io: they serve nobody without."
  }
}

variable "kept_images" {
  description = "How many images a repository keeps; older ones expire."
  type        = number
  default     = 50
}

variable "kms_key_arn" {
  description = "Key that encrypts images; AWS's own if null."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
