variable "name" {
  description = "Name of the load balancer."
  type        = string

  validation {
    condition     = length(var.name) <= 32
    error_message = "name must have 32 characters at most: AWS takes no more for a load balancer."
  }
}

variable "security_group_ids" {
  description = "Security groups of the load balancer."
  type        = list(string)
}

variable "subnet_ids" {
  description = "Subnets of the load balancer, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must name subnets in at least two zones: AWS asks it of a load balancer."
  }
}

variable "internal" {
  description = "Whether it has only private addresses."
  type        = bool
  default     = true
}

variable "certificate_arn" {
  description = "Certificate of ACM for HTTPS; needed unless allow_http."
  type        = string
  default     = null
}

variable "allow_http" {
  description = "Whether it speaks plain HTTP on port 80 in the place of HTTPS on port 443."
  type        = bool
  default     = false

  validation {
    condition     = var.allow_http || var.certificate_arn != null
    error_message = "certificate_arn must be given: HTTPS needs one, and plain HTTP comes only by allow_http = true."
  }

  validation {
    condition     = !var.allow_http || var.internal
    error_message = "allow_http must be false on a load balancer with public addresses."
  }
}

variable "has_targets" {
  description = "Whether target_group_arn is given. Without it requests are answered by 503, until a rule says more."
  type        = bool
  default     = true
}

variable "target_group_arn" {
  description = "Where requests go."
  type        = string
  default     = null
}

variable "oidc" {
  description = "Identity provider at which users sign in before their requests go on. AWS wants the client's secret here, so that it lies in Terraform's state: give this load balancer a client of its own."
  type = object({
    issuer                 = string
    authorization_endpoint = string
    token_endpoint         = string
    user_info_endpoint     = string
    client_id              = string
    client_secret          = string
    scope                  = optional(string, "openid")
  })
  default   = null
  sensitive = true
}

variable "access_log_bucket" {
  description = "Bucket of access logs; none are kept without."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether it refuses to be destroyed."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
