output "data_key_arn" {
  description = "Key for disks, secrets and snapshots."
  value       = aws_kms_key.this["data"].arn
}

output "keyring_key_arn" {
  description = "Key for Nomad's root key."
  value       = aws_kms_key.this["keyring"].arn
}
