output "bastion_ip" {
  description = "Public address of the bastion."
  value       = aws_eip.this.public_ip
}

output "bastion_instance_id" {
  description = "Instance of the bastion, for Session Manager."
  value       = aws_instance.this.id
}

output "ssh_key_name" {
  description = "Key pair for SSH; null without."
  value       = var.ssh_key_name
}

output "security_group_id" {
  description = "Security group of the bastion: bastion in the table of the module sgrules."
  value       = aws_security_group.this.id
}
