# The keys of a cluster: `data` for disks, secrets and snapshots, `keyring` for Nomad's root key alone, so that a role
# that may use one has no way to what the other guards. Key policies leave the rest to IAM of this account.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

locals {
  arn     = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}"
  scaling = "${local.arn}:role/aws-service-role/autoscaling.${data.aws_partition.current.dns_suffix}/AWSServiceRoleForAutoScaling"
  keys = {
    data    = "disks, secrets and snapshots"
    keyring = "Nomad's root key"
  }
}

data "aws_iam_policy_document" "this" {
  for_each = local.keys

  statement {
    sid       = "AccountDecides"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["${local.arn}:root"]
    }
  }

  # Auto Scaling starts instances with encrypted disks under a role of its own.
  dynamic "statement" {
    for_each = each.key == "data" ? [1] : []
    content {
      sid       = "EncryptDisks"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
      resources = ["*"]
      principals {
        type        = "AWS"
        identifiers = [local.scaling]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "data" ? [1] : []
    content {
      sid       = "HandDisksToInstances"
      actions   = ["kms:CreateGrant"]
      resources = ["*"]
      principals {
        type        = "AWS"
        identifiers = [local.scaling]
      }
      condition {
        test     = "Bool"
        variable = "kms:GrantIsForAWSResource"
        values   = ["true"]
      }
    }
  }
}

resource "aws_kms_key" "this" {
  for_each = local.keys

  description             = "COS cluster ${var.cluster_name}: ${each.value}"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_in_days
  policy                  = data.aws_iam_policy_document.this[each.key].json
  tags                    = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_kms_alias" "this" {
  for_each = local.keys

  name          = "alias/cos/${var.cluster_name}/${each.key}"
  target_key_id = aws_kms_key.this[each.key].key_id
}
