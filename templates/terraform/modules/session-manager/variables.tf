variable "iam_role_id" {
  description = "Role that gets the policy."
  type        = string
}
