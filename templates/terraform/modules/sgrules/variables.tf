variable "security_group_ids" {
  description = "Security groups by their name in rules.csv: agents, consul-server, nomad-server, a datacenter's name, endpoints, alb-ingress, alb-backoffice, alb-ui, bastion. Rows that name an absent group are left out."
  type        = map(string)
}

variable "datacenters" {
  description = "Names of the groups that rules.csv means by datacenters: those of Nomad clients."
  type        = list(string)
  default     = []
}

variable "prefix_list_ids" {
  description = "Prefix lists by their name in rules.csv: s3."
  type        = map(string)
  default     = {}
}

variable "cidr_blocks" {
  description = "Addresses outside the VPC by their name in rules.csv: ui-users, ingress-users, backoffice-users, ssh-users; each a map of label to CIDR block."
  type        = map(map(string))
  default     = {}

  validation {
    condition     = alltrue([for block in flatten([for blocks in var.cidr_blocks : values(blocks)]) : can(cidrnetmask(block))])
    error_message = "cidr_blocks must hold IPv4 CIDR blocks such as 10.0.0.0/8."
  }
}

variable "service_calls" {
  description = "Which datacenters the services of a datacenter may call on dynamic ports; all datacenters where one is not named."
  type        = map(list(string))
  default     = {}
}

variable "tls" {
  description = "Whether Consul and Nomad speak TLS; decides which ports of Consul are open."
  type        = bool
  default     = true
}

variable "plain_http" {
  description = "Load balancers, by their name in rules.csv, that are reached by plain HTTP on port 80 in the place of HTTPS."
  type        = list(string)
  default     = []
}

variable "content_connector_http" {
  description = "Whether the content connector may fetch by plain HTTP too."
  type        = bool
  default     = false
}

variable "additional_rules" {
  description = "More rows in the form of rules.csv."
  type = list(object({
    from     = string
    to       = string
    protocol = string
    ports    = string
    when     = optional(string, "")
    why      = string
  }))
  default = []
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
