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

variable "datacenter_name" {
  description = "Nomad's datacenter of the nodes."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.datacenter_name))
    error_message = "datacenter_name must be 2 to 24 lower-case letters, digits and hyphens: it names a role, a group and a path of secrets."
  }

  validation {
    condition     = !contains(["consul-server", "nomad-server", "agents", "endpoints", "bastion"], var.datacenter_name)
    error_message = "datacenter_name must not be consul-server, nomad-server, agents, endpoints or bastion, which name other groups."
  }
}

variable "node_scaling_cfg" {
  description = "How many nodes. Without desired_capacity, whoever scales the group decides."
  type = object({
    min              = number
    max              = number
    desired_capacity = optional(number)
  })
  default = { min = 1, max = 1 }

  validation {
    condition     = var.node_scaling_cfg.min >= 0 && var.node_scaling_cfg.min <= var.node_scaling_cfg.max
    error_message = "node_scaling_cfg must have 0 <= min <= max."
  }

  validation {
    condition = (
      coalesce(var.node_scaling_cfg.desired_capacity, var.node_scaling_cfg.min) >= var.node_scaling_cfg.min &&
      coalesce(var.node_scaling_cfg.desired_capacity, var.node_scaling_cfg.min) <= var.node_scaling_cfg.max
    )
    error_message = "node_scaling_cfg must have min <= desired_capacity <= max."
  }
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

variable "device_to_mount_target_map" {
  description = "Where the agent mounts the volumes, as device:folder, such as /dev/sdf:/data. A volume is formatted only if it is blank."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for entry in var.device_to_mount_target_map : can(regex("^/dev/[a-z0-9/]+:/[^:]+$", entry))])
    error_message = "device_to_mount_target_map must hold entries such as /dev/sdf:/data."
  }

  validation {
    condition     = alltrue([for entry in var.device_to_mount_target_map : contains(var.ebs_block_devices[*].device_name, split(":", entry)[0])])
    error_message = "device_to_mount_target_map must name only devices of ebs_block_devices."
  }
}

variable "fs_type" {
  description = "File system of the volumes: xfs or ext4."
  type        = string
  default     = "xfs"

  validation {
    condition     = contains(["xfs", "ext4"], var.fs_type)
    error_message = "fs_type must be xfs or ext4."
  }
}

variable "efs" {
  description = "EFS file systems that the agent mounts."
  type = list(object({
    file_system  = string
    mount        = string
    iam          = optional(bool, false)
    access_point = optional(string)
  }))
  default = []
}

variable "host_volumes" {
  description = "Folders that jobs may mount, by name."
  type = map(object({
    path      = string
    read_only = optional(bool, false)
  }))
  default = {}
}

variable "node_pool" {
  description = "Nomad's node pool of the nodes; Nomad's own default if null."
  type        = string
  default     = null
}

variable "meta" {
  description = "Metadata of the nodes, which jobs may constrain on."
  type        = map(string)
  default     = {}
}

variable "docker_privileged" {
  description = "Whether jobs may ask for privileged containers."
  type        = bool
  default     = false
}

variable "ecr_registries" {
  description = "Registries of Amazon ECR beside the own account's in the own region."
  type = list(object({
    account = string
    region  = string
  }))
  default = []
}

variable "pull_through_prefixes" {
  description = "Prefixes of repositories that ECR fills from upstream at the first pull, as the module ecr gives them."
  type        = list(string)
  default     = []
}

variable "attach_ingress_alb_listener" {
  description = "Whether the proxy of this datacenter stands behind a load balancer."
  type        = bool
  default     = false
}

variable "alb_ingress_listener_arn" {
  description = "Listener of that load balancer."
  type        = string
  default     = null
}

variable "ingress_controller_port" {
  description = "Port of the proxy."
  type        = number
  default     = 9999
}

variable "ingress_health_port" {
  description = "Port at which the proxy answers /health."
  type        = number
  default     = 9998
}
