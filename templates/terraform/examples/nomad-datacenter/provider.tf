provider "aws" {
  region = var.aws_region

  default_tags {
    tags = { "managed-by" = "terraform" }
  }
}

variable "aws_region" {
  description = "Region of everything."
  type        = string
  default     = "eu-central-1"
}
