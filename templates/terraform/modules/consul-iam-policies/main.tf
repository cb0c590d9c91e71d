# What Consul and the agent ask of AWS on every node: who the servers are, and how large the own group is. AWS takes no
# narrower resource for these calls than all.

data "aws_iam_policy_document" "this" {
  statement {
    sid = "FindServers"
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLifecycleHooks",
      "ec2:DescribeInstances",
      "ec2:DescribeTags",
      "ec2:DescribeVolumes",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "this" {
  name   = "auto-discover-cluster"
  role   = var.iam_role_id
  policy = data.aws_iam_policy_document.this.json
}
