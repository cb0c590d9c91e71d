# What nodes need of AWS without a way to the internet. Each endpoint lets in this account's own principals only, and
# only for what nodes do there, so that a stolen node cannot carry data to another account's registry or bucket.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  service = "${join(".", reverse(split(".", data.aws_partition.current.dns_suffix)))}.${data.aws_region.current.id}"
  arn     = "arn:${data.aws_partition.current.partition}"

  pull = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:BatchImportUpstreamImage",
    "ecr:CreateRepository",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
  ]

  # A service that is not named here may be asked for anything its caller's role allows.
  actions = {
    "autoscaling" = [
      "autoscaling:CompleteLifecycleAction",
      "autoscaling:DescribeAutoScalingGroups",
      "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLifecycleHooks",
      "autoscaling:RecordLifecycleActionHeartbeat",
    ]
    "ec2"     = ["ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeVolumes"]
    "ecr.api" = local.pull
    "ecr.dkr" = local.pull
    "kms"     = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
  }

  endpoint_subnets = slice(local.subnet_ids["backoffice"], 0, min(length(local.zones), coalesce(var.endpoint_zone_count, length(local.zones))))
}

data "aws_iam_policy_document" "endpoint" {
  for_each = var.endpoints

  statement {
    actions   = lookup(local.actions, each.key, ["*"])
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "s3" {
  statement {
    sid       = "OwnBuckets"
    actions   = ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceAccount"
      values   = [local.account]
    }
  }

  # ECR hands out layers of images by addresses in this bucket of AWS, signed by nobody of this account.
  statement {
    sid       = "ImageLayers"
    actions   = ["s3:GetObject"]
    resources = concat(["${local.arn}:s3:::prod-${data.aws_region.current.id}-starport-layer-bucket/*"], [for arn in var.s3_read_bucket_arns : "${arn}/*"])
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.cluster_name}-endpoints"
  description = "Interface endpoints"
  vpc_id      = aws_vpc.this.id
  tags        = merge(var.tags, { Name = "${var.cluster_name}-endpoints" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.endpoints

  vpc_id              = aws_vpc.this.id
  service_name        = lookup(var.endpoint_service_names, each.key, "${local.service}.${each.key}")
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = local.endpoint_subnets
  security_group_ids  = [aws_security_group.endpoints.id]
  policy              = data.aws_iam_policy_document.endpoint[each.key].json
  tags                = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${data.aws_region.current.id}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for key, class in local.tables : aws_route_table.this[key].id if class != "public"]
  policy            = data.aws_iam_policy_document.s3.json
  tags              = merge(var.tags, { Name = "${var.cluster_name}-s3" })
}
