variable "cluster_name" {
  description = "Name of the cluster; what belongs to it is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }
}

variable "ami_id" {
  description = "Image of the bastion; one with the agent of Systems Manager, such as Amazon Linux."
  type        = string
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
}

variable "subnet_id" {
  description = "Public subnet of the bastion."
  type        = string
}

variable "instance_type" {
  description = "Instance type of the bastion."
  type        = string
  default     = "t3.micro"
}

variable "ssh_key_name" {
  description = "Key pair for SSH; none, for Session Manager alone, if null."
  type        = string
  default     = null
}

variable "allowed_ssh_cidr_blocks" {
  description = "Who may reach SSH, by a label of your own; nobody if empty."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for block in values(var.allowed_ssh_cidr_blocks) : can(cidrnetmask(block)) && try(tonumber(split("/", block)[1]) >= 8, false)])
    error_message = "allowed_ssh_cidr_blocks must hold IPv4 CIDR blocks no wider than /8: SSH is never open to the world."
  }

  validation {
    condition     = length(var.allowed_ssh_cidr_blocks) == 0 || var.ssh_key_name != null
    error_message = "ssh_key_name must be given where allowed_ssh_cidr_blocks opens SSH."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the bastion's disk; AWS's own if null."
  type        = string
  default     = null
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the bastion's role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
