variable "cluster_name" {
  description = "Name of the cluster; what belongs to it is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }
}

variable "ip_prefix" {
  description = "First two numbers of the VPC's addresses; it gets the /16 below them."
  type        = string
  default     = "10.128"

  validation {
    condition     = can(cidrnetmask("${var.ip_prefix}.0.0/16"))
    error_message = "ip_prefix must be two numbers such as 10.128."
  }
}

variable "availability_zones" {
  description = "Zones of the subnets; the first zone_count of the region if empty."
  type        = list(string)
  default     = []

  validation {
    condition     = length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "availability_zones must be distinct: a quorum in one zone falls with it."
  }
}

variable "zone_count" {
  description = "In how many zones there are subnets, where availability_zones does not say."
  type        = number
  default     = 3

  validation {
    condition     = var.zone_count >= 2 && var.zone_count <= 3
    error_message = "zone_count must be 2 or 3: a load balancer needs two zones, and the addresses are laid out for three."
  }
}

variable "nat_mode" {
  description = "How the content connector reaches the internet: none, single (one NAT gateway, which falls with its zone) or per_az. No other subnet does."
  type        = string
  default     = "single"

  validation {
    condition     = contains(["none", "single", "per_az"], var.nat_mode)
    error_message = "nat_mode must be none, single or per_az."
  }
}

variable "endpoints" {
  description = "Interface endpoints: what the nodes and Session Manager need."
  type        = set(string)
  default     = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "kms", "ssm", "ssmmessages"]
}

variable "endpoint_service_names" {
  description = "Full names of endpoint services, by their short one, where AWS does not follow its own rule, as for some in China."
  type        = map(string)
  default     = {}
}

variable "endpoint_zone_count" {
  description = "In how many zones the interface endpoints stand; all if null. Each costs by zone and hour."
  type        = number
  default     = null

  validation {
    condition     = var.endpoint_zone_count == null || coalesce(var.endpoint_zone_count, 1) >= 1
    error_message = "endpoint_zone_count must be 1 or more."
  }
}

variable "s3_read_bucket_arns" {
  description = "Buckets of other accounts that nodes may read through the endpoint of S3, such as those of package repositories."
  type        = list(string)
  default     = []
}

variable "ingress" {
  description = "Load balancer before public-services; none if null. HTTPS with certificate_arn, or plain HTTP by allow_http where internal."
  type = object({
    certificate_arn = optional(string)
    internal        = optional(bool, false)
    allow_http      = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.ingress == null || try(var.ingress.allow_http || var.ingress.certificate_arn != null, true)
    error_message = "ingress.certificate_arn must be given: HTTPS needs one, and plain HTTP comes only by ingress.allow_http = true."
  }
}

variable "backoffice" {
  description = "Load balancer before the backoffice, always internal; none if null. HTTPS with certificate_arn, or plain HTTP by allow_http."
  type = object({
    certificate_arn = optional(string)
    allow_http      = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.backoffice == null || try(var.backoffice.allow_http || var.backoffice.certificate_arn != null, true)
    error_message = "backoffice.certificate_arn must be given: HTTPS needs one, and plain HTTP comes only by backoffice.allow_http = true."
  }
}

variable "access_log_bucket" {
  description = "Bucket of the load balancers' access logs; none are kept without."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether load balancers refuse to be destroyed."
  type        = bool
  default     = true
}

variable "flow_log_destination_arn" {
  description = "Bucket that gets the VPC's flow logs; none are kept without."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
