# --- The cluster ------------------------------------------------------------------------------------------------

variable "stack_name" {
  description = "First part of the cluster's name."
  type        = string
  default     = "cos"
}

variable "env_name" {
  description = "Second part of the cluster's name, after a hyphen."
  type        = string
  default     = "playground"
}

variable "unique_postfix" {
  description = "Last part of the cluster's name."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", lower("${var.stack_name}-${var.env_name}${var.unique_postfix}")))
    error_message = "stack_name, env_name and unique_postfix must give a name of 2 to 20 letters, digits and hyphens together: names of load balancers and roles are made of it."
  }
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of every role."
  type        = string
  default     = null
}

variable "consul_datacenter" {
  description = "Consul's datacenter; the AWS region if null."
  type        = string
  default     = null
}

variable "nomad_region" {
  description = "Nomad's region; the AWS region if null."
  type        = string
  default     = null
}

variable "tls" {
  description = "Whether Consul and Nomad speak TLS. Certificates and keys must be in the parameters that the guide names."
  type        = bool
  default     = true
}

variable "gossip_encryption" {
  description = "Whether gossip is encrypted. Keys must be in the parameters that the guide names."
  type        = bool
  default     = true
}

variable "acl" {
  description = "Whether Consul and Nomad control access. Tokens must be in the parameters that the guide names."
  type        = bool
  default     = true
}

variable "client_introduction" {
  description = "What Nomad servers ask of clients that they do not know yet: none, warn or strict; Nomad's own default if null. strict needs tokens that COS does not make yet."
  type        = string
  default     = null
}

# --- The servers ------------------------------------------------------------------------------------------------

variable "consul_ami_id" {
  description = "Image of the Consul servers; what ami_parameter names if null."
  type        = string
  default     = null
}

variable "nomad_ami_id_servers" {
  description = "Image of the Nomad servers; what ami_parameter names if null."
  type        = string
  default     = null
}

variable "nomad_ami_id_clients" {
  description = "Image of the Nomad clients; what ami_parameter names if null."
  type        = string
  default     = null
}

variable "ami_parameter" {
  description = "Parameter of Systems Manager that names the image of nodes without one of their own. It is read at plan, so that a newly published image shows there."
  type        = string
  default     = "/cos/ami/stable"
}

variable "resolve_ami_at_launch" {
  description = "Whether the parameter is read at each launch and not at plan. A new image then comes without a plan, without a refresh, and cannot be rolled back by itself."
  type        = bool
  default     = false
}

variable "consul_server_subnet_ids" {
  description = "Subnets of the Consul servers, one in each zone."
  type        = list(string)
}

variable "nomad_server_subnet_ids" {
  description = "Subnets of the Nomad servers, one in each zone."
  type        = list(string)
}

variable "consul_num_servers" {
  description = "How many Consul servers form the quorum."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5, 7], var.consul_num_servers)
    error_message = "consul_num_servers must be 1, 3, 5 or 7: an even number of servers bears no more failures."
  }
}

variable "nomad_num_servers" {
  description = "How many Nomad servers form the quorum."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5, 7], var.nomad_num_servers)
    error_message = "nomad_num_servers must be 1, 3, 5 or 7: an even number of servers bears no more failures."
  }
}

variable "consul_instance_type" {
  description = "Instance type of the Consul servers."
  type        = string
  default     = "t3.medium"
}

variable "instance_type_server" {
  description = "Instance type of the Nomad servers."
  type        = string
  default     = "t3.medium"
}

# --- The datacenters --------------------------------------------------------------------------------------------

variable "datacenters" {
  description = "Nomad clients by datacenter. COS's four are public-services, private-services, content-connector and backoffice; rules for them are in the table of the module sgrules, and another one can be added here."
  type = map(object({
    subnet_ids               = list(string)
    min                      = optional(number, 1)
    max                      = optional(number, 1)
    desired_capacity         = optional(number)
    instance_type            = optional(string, "t3.medium")
    root_volume_size         = optional(number, 50)
    node_pool                = optional(string)
    meta                     = optional(map(string), {})
    docker_privileged        = optional(bool, false)
    extra_policy_arns        = optional(map(string), {})
    additional_instance_tags = optional(list(object({ key = string, value = string, propagate_at_launch = optional(bool, true) })), [])
    ebs_block_devices = optional(list(object({
      device_name           = string
      volume_size           = number
      volume_type           = optional(string, "gp3")
      iops                  = optional(number)
      throughput            = optional(number)
      delete_on_termination = optional(bool, true)
    })), [])
    device_to_mount_target_map = optional(list(string), [])
    fs_type                    = optional(string, "xfs")
    efs = optional(list(object({
      file_system  = string
      mount        = string
      iam          = optional(bool, false)
      access_point = optional(string)
    })), [])
    host_volumes = optional(map(object({ path = string, read_only = optional(bool, false) })), {})
    spot = optional(object({
      on_demand_base       = optional(number, 0)
      on_demand_percentage = optional(number, 0)
      instance_types       = list(string)
    }))
    attach_ingress_alb_listener = optional(bool, false)
    alb_ingress_listener_arn    = optional(string)
  }))

  validation {
    condition     = contains(keys(var.datacenters), "public-services")
    error_message = "datacenters must have public-services: the ingress proxy runs there."
  }
}

variable "ecr_repositories" {
  description = "Names of repositories of Amazon ECR."
  type        = list(string)
  default     = []
}

variable "pull_through_caches" {
  description = "Upstream registries that ECR fetches from at the first pull, by the prefix under which their images appear; see the module ecr."
  type = map(object({
    upstream_registry_url = string
    credential_arn        = optional(string)
  }))
  default = {}
}

# --- Who may reach what -----------------------------------------------------------------------------------------

variable "security_group_ids" {
  description = "Security groups made elsewhere by their name in the table of the module sgrules: endpoints, alb-ingress, alb-backoffice, bastion. The module networking gives the first three."
  type        = map(string)
  default     = {}
}

variable "prefix_list_ids" {
  description = "Prefix lists by their name in the table of the module sgrules, as the module networking gives them."
  type        = map(string)
  default     = {}
}

variable "plain_http" {
  description = "Load balancers made elsewhere that speak plain HTTP, as the module networking gives them."
  type        = list(string)
  default     = []
}

variable "allowed_cidr_blocks_for_ui_alb" {
  description = "Who may reach the web interfaces, by a label of your own; nobody if empty."
  type        = map(string)
  default     = {}

  validation {
    condition     = var.ui_alb_open_to_world || !contains(values(var.allowed_cidr_blocks_for_ui_alb), "0.0.0.0/0")
    error_message = "allowed_cidr_blocks_for_ui_alb must not hold 0.0.0.0/0, unless ui_alb_open_to_world = true says that it is meant."
  }
}

variable "ui_alb_open_to_world" {
  description = "Whether the world may be let to the web interfaces. OIDC should stand before them then."
  type        = bool
  default     = false
}

variable "allowed_cidr_blocks_for_ingress" {
  description = "Who may reach the load balancer before public-services, by a label of your own; the world if null, which a load balancer with public addresses is for."
  type        = map(string)
  default     = null
}

variable "allowed_cidr_blocks_for_backoffice" {
  description = "Who may reach the load balancer before the backoffice, by a label of your own; nobody if empty."
  type        = map(string)
  default     = {}
}

variable "service_calls" {
  description = "Which datacenters the services of a datacenter may call on dynamic ports; all datacenters where one is not named."
  type        = map(list(string))
  default     = {}
}

variable "content_connector_http" {
  description = "Whether the content connector may fetch by plain HTTP too."
  type        = bool
  default     = false
}

variable "additional_rules" {
  description = "More flows, in the form of the table of the module sgrules."
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

# --- The web interfaces -----------------------------------------------------------------------------------------

variable "ui_access" {
  description = "Whether the web interfaces stand behind load balancers. Session Manager's tunnels reach them without."
  type        = bool
  default     = true
}

variable "alb_subnet_ids" {
  description = "Subnets of the web interfaces' load balancers: private ones where internal, public ones otherwise."
  type        = list(string)
  default     = []

  validation {
    condition     = !var.ui_access || length(var.alb_subnet_ids) >= 2
    error_message = "alb_subnet_ids must name subnets in at least two zones, or ui_access be false."
  }
}

variable "ui_alb_internal" {
  description = "Whether the web interfaces' load balancers have only private addresses."
  type        = bool
  default     = true
}

variable "ui_alb_https_listener_cert_arn" {
  description = "Certificate of ACM for the web interfaces; needed unless ui_alb_allow_http."
  type        = string
  default     = null

  validation {
    condition     = !var.ui_access || var.ui_alb_allow_http || var.ui_alb_https_listener_cert_arn != null
    error_message = "ui_alb_https_listener_cert_arn must be given: HTTPS needs a certificate, and plain HTTP comes only by ui_alb_allow_http = true."
  }
}

variable "ui_alb_allow_http" {
  description = "Whether the web interfaces are shown by plain HTTP in the place of HTTPS; only internally."
  type        = bool
  default     = false

  validation {
    condition     = !var.ui_alb_allow_http || var.ui_alb_internal
    error_message = "ui_alb_allow_http must be false where ui_alb_internal is: tokens would cross the internet in clear text."
  }
}

variable "ui_alb_oidc" {
  description = "Identity provider at which users sign in before they see an interface; see the module ui-access."
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
  description = "Bucket of the load balancers' access logs; none are kept without."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether load balancers refuse to be destroyed, and the bucket of snapshots with snapshots in it."
  type        = bool
  default     = true
}
