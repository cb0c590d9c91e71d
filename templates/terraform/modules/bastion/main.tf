# One machine in a public subnet. Session Manager reaches the nodes without it; it is for those who must have SSH, and
# for tunnels from a fixed address. What it may reach is in the table of the module sgrules under bastion.

data "aws_region" "current" {}

locals {
  name = "${var.cluster_name}-bastion"
  tags = merge(var.tags, { Name = local.name })
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  name                 = "${local.name}-${data.aws_region.current.id}"
  description          = "bastion of the COS cluster ${var.cluster_name}"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

resource "aws_iam_instance_profile" "this" {
  name = aws_iam_role.this.name
  role = aws_iam_role.this.name
  tags = local.tags
}

module "session_manager" {
  source      = "../session-manager"
  iam_role_id = aws_iam_role.this.id
}

resource "aws_security_group" "this" {
  name        = local.name
  description = "bastion of the COS cluster ${var.cluster_name}"
  vpc_id      = var.vpc_id
  tags        = local.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_instance" "this" {
  ami                         = var.ami_id
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  vpc_security_group_ids      = [aws_security_group.this.id]
  iam_instance_profile        = aws_iam_instance_profile.this.name
  key_name                    = var.ssh_key_name
  monitoring                  = true
  ebs_optimized               = true
  associate_public_ip_address = true
  tags                        = local.tags

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }
}

resource "aws_eip" "this" {
  domain   = "vpc"
  instance = aws_instance.this.id
  tags     = local.tags
}
