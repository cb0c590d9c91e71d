variable "cluster_name" {
  description = "Name of the cluster; what belongs to it is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }
}

variable "deletion_window_in_days" {
  description = "How long a deleted key can be had back; 7 to 30."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_in_days >= 7 && var.deletion_window_in_days <= 30
    error_message = "deletion_window_in_days must be 7 to 30."
  }
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
