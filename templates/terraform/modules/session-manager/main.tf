# Session Manager and Run Command, as AmazonSSMManagedInstanceCore has them, but without its right to read every
# parameter of the account: that would undo the prefixes of the roles.

data "aws_iam_policy_document" "this" {
  statement {
    sid = "BeManaged"
    actions = [
      "ec2messages:AcknowledgeMessage",
      "ec2messages:DeleteMessage",
      "ec2messages:FailMessage",
      "ec2messages:GetEndpoint",
      "ec2messages:GetMessages",
      "ec2messages:SendReply",
      "ssm:DescribeDocument",
      "ssm:GetDocument",
      "ssm:ListInstanceAssociations",
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "this" {
  name   = "session-manager"
  role   = var.iam_role_id
  policy = data.aws_iam_policy_document.this.json
}
