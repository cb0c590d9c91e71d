variable "cluster_name" {
  description = "Name of the cluster; what belongs to it is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the snapshots."
  type        = string
}

variable "kept_days" {
  description = "How many days a snapshot is kept."
  type        = number
  default     = 30

  validation {
    condition     = var.kept_days >= 1
    error_message = "kept_days must be 1 or more."
  }
}

variable "force_destroy" {
  description = "Whether the bucket may be destroyed with snapshots in it."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
