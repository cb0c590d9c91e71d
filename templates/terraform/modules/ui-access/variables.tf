variable "cluster_name" {
  description = "Name of the cluster; what belongs to it is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name must be 2 to 20 lower-case letters, digits and hyphens: names of load balancers and roles are made of it."
  }
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the load balancers: private ones where internal, public ones otherwise."
  type        = list(string)
}

variable "nomad_server_asg_name" {
  description = "Auto Scaling group of the Nomad servers."
  type        = string
}

variable "consul_server_asg_name" {
  description = "Auto Scaling group of the Consul servers."
  type        = string
}

variable "fabio_server_asg_name" {
  description = "Auto Scaling group of the nodes that run the ingress proxy."
  type        = string
}

variable "nomad_ui_port" {
  description = "Port of Nomad's web interface."
  type        = number
  default     = 4646
}

variable "consul_ui_port" {
  description = "Port of Consul's web interface; 8501 with TLS, 8500 without if null."
  type        = number
  default     = null
}

variable "fabio_ui_port" {
  description = "Port of the proxy's web interface."
  type        = number
  default     = 9998
}

variable "tls" {
  description = "Whether Consul and Nomad speak TLS."
  type        = bool
  default     = true
}

variable "internal" {
  description = "Whether the load balancers have only private addresses."
  type        = bool
  default     = true
}

variable "ui_alb_https_listener_cert_arn" {
  description = "Certificate of ACM for HTTPS; needed unless allow_http."
  type        = string
  default     = null
}

variable "allow_http" {
  description = "Whether the interfaces are shown by plain HTTP in the place of HTTPS; only internally."
  type        = bool
  default     = false
}

variable "oidc" {
  description = "Identity provider at which users sign in before they see an interface. AWS wants the client's secret here, so that it lies in Terraform's state: give these load balancers a client of their own."
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
  description = "Whether the load balancers refuse to be destroyed."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
