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

variable "name" {
  description = "What the group is called within the cluster: a server role or a datacenter."
  type        = string
}

variable "role" {
  description = "Role of the nodes: consul-server, nomad-server or nomad-client."
  type        = string

  validation {
    condition     = contains(["consul-server", "nomad-server", "nomad-client"], var.role)
    error_message = "role must be consul-server, nomad-server or nomad-client."
  }
}

variable "parameter_prefix" {
  description = "Where the group's own secrets are, below /cos/CLUSTER. No other group may read there."
  type        = string
}

variable "size" {
  description = "How many nodes. Without desired_capacity, whoever scales the group decides."
  type = object({
    min              = number
    max              = number
    desired_capacity = optional(number)
  })
}

variable "quorum" {
  description = "Whether the nodes vote: they are then replaced one at a time, the new one first, and never to even out zones."
  type        = bool
  default     = false
}

variable "node" {
  description = "The group's part of NodeConfig; what every node of the cluster says is added here."
  type        = any
  default     = {}
}

variable "consul_tls" {
  description = "The node's part of consul.tls, where TLS is on."
  type        = any
  default     = { auto_encrypt = true }
}

variable "policy_documents" {
  description = "More statements of the role, as JSON policy documents."
  type        = list(string)
  default     = []
}

variable "ebs_block_devices" {
  description = "Volumes of the nodes besides the root volume."
  type = list(object({
    device_name           = string
    volume_size           = number
    volume_type           = optional(string, "gp3")
    iops                  = optional(number)
    throughput            = optional(number)
    delete_on_termination = optional(bool, true)
  }))
  default = []
}

variable "spot" {
  description = "Use of spot instances: how many on-demand instances come first, the share of on-demand above them in percent, and instance types to choose from."
  type = object({
    on_demand_base       = optional(number, 0)
    on_demand_percentage = optional(number, 0)
    instance_types       = list(string)
  })
  default = null
}

variable "instance_tags" {
  description = "Tags of the group and its instances."
  type        = map(string)
  default     = {}
}
