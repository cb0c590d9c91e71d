# A bastion that only Session Manager reaches; give allowed_ssh_cidr_blocks and ssh_key_name for SSH.

variable "ami_id" {
  description = "Image of the bastion; one with the agent of Systems Manager, such as Amazon Linux."
  type        = string
}

variable "allowed_ssh_cidr_blocks" {
  description = "Who may reach SSH, by a label of your own; nobody if empty."
  type        = map(string)
  default     = {}
}

variable "ssh_key_name" {
  description = "Key pair for SSH."
  type        = string
  default     = null
}

module "networking" {
  source = "../../modules/networking"

  cluster_name = "cos-bastion"
  nat_mode     = "none"
  endpoints    = []
}

module "bastion" {
  source = "../../modules/bastion"

  cluster_name            = "cos-bastion"
  ami_id                  = var.ami_id
  vpc_id                  = module.networking.vpc_id
  subnet_id               = module.networking.public_subnet_ids[0]
  ssh_key_name            = var.ssh_key_name
  allowed_ssh_cidr_blocks = var.allowed_ssh_cidr_blocks
}

module "sgrules" {
  source = "../../modules/sgrules"

  security_group_ids = { bastion = module.bastion.security_group_id }
  cidr_blocks        = { ssh-users = var.allowed_ssh_cidr_blocks }
}

output "bastion_instance_id" {
  description = "Target of `aws ssm start-session`."
  value       = module.bastion.bastion_instance_id
}
