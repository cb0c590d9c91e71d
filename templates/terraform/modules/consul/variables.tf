variable "cluster" {
  description = "What all nodes of one cluster share; the output `cluster` of the root module is one."
  type = object({
    name                     = string
    vpc_id                   = string
    agents_security_group_id = string
    consul_cluster_tag_key   = optional(string, "cos:consul")
    consul_datacenter        = optional(string)
    nomad_region             = optional(string)
    tls                      = optional(bool, true)
    gossip_encryption        = optional(bool, true)
    acl                      = optional(bool, true)
    kms_key_arn              = optional(string)
    snapshot_bucket_arn      = optional(string)
    permissions_boundary_arn = optional(string)
    tags                     = optional(map(string), {})
  })

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster.name))
    error_message = "cluster.name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }

  validation {
    condition     = alltrue([for key in keys(var.cluster.tags) : can(regex("^[A-Za-z0-9+=.,_:@-]+$", key)) && !can(regex("^(cos|aws):", key))])
    error_message = "cluster.tags must have keys that the instance metadata service can show (no spaces, no slashes) and that do not begin with cos: or aws:, which the agent and AWS read."
  }
}

variable "subnet_ids" {
  description = "Subnets of the nodes, one in each zone."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids must name at least one subnet."
  }
}

variable "ami_id" {
  description = "Image of the nodes. Either this or ami_parameter."
  type        = string
  default     = null
}

variable "ami_parameter" {
  description = "Parameter of Systems Manager that names the image, as a bake writes it. It is read at plan, so that a newly published image shows there."
  type        = string
  default     = null
}

variable "resolve_ami_at_launch" {
  description = "Whether the parameter is read at each launch and not at plan. A new image then comes without a plan, without a refresh, and cannot be rolled back by itself."
  type        = bool
  default     = false
}

variable "instance_type" {
  description = "Instance type of the nodes."
  type        = string
  default     = "t3.medium"
}

variable "root_volume_size" {
  description = "Size of the root volume in GiB."
  type        = number
  default     = 50
}

variable "extra_policy_arns" {
  description = "Policies that the role of the nodes has besides what COS itself needs, by a name of your own."
  type        = map(string)
  default     = {}
}

variable "additional_instance_tags" {
  description = "More tags of the instances."
  type = list(object({
    key                 = string
    value               = string
    propagate_at_launch = optional(bool, true)
  }))
  default = []
}

variable "num_servers" {
  description = "How many Consul servers form the quorum."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5, 7], var.num_servers)
    error_message = "num_servers must be 1, 3, 5 or 7: an even number of servers bears no more failures."
  }
}

variable "verify_https_client" {
  description = "Whether users of Consul's HTTPS API must show a certificate; a load balancer cannot, so that the web interface needs false."
  type        = bool
  default     = true
}
