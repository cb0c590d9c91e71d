# The real provider in a region of China: policies are rendered, not mocked.

provider "aws" {
  region                      = "cn-north-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_region_validation      = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_subnet.this
  values = { availability_zone = "cn-north-1a" }
}

run "every_name_is_of_the_partition" {
  command = plan

  module { source = "./modules/node-group" }

  variables {
    cluster = {
      name                     = "cos-test"
      vpc_id                   = "vpc-1"
      agents_security_group_id = "sg-1"
      kms_key_arn              = "arn:aws-cn:kms:cn-north-1:123456789012:key/one"
      permissions_boundary_arn = "arn:aws-cn:iam::123456789012:policy/boundary"
      tags                     = { team = "platform" }
    }
    name             = "backoffice"
    role             = "nomad-client"
    parameter_prefix = "client/backoffice"
    size             = { min = 1, max = 1 }
    subnet_ids       = ["subnet-1"]
    ami_id           = "ami-12345678"
  }

  assert {
    condition     = !can(regex("arn:aws:", data.aws_iam_policy_document.this.json))
    error_message = "a policy names resources of another partition"
  }

  assert {
    condition     = strcontains(data.aws_iam_policy_document.this.json, "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/cos/cos-test/client/backoffice/*")
    error_message = "the role cannot read its own parameters"
  }

  assert {
    condition     = strcontains(data.aws_iam_policy_document.this.json, "ssm.cn-north-1.amazonaws.com.cn")
    error_message = "the role cannot decrypt its own parameters"
  }

  assert {
    condition     = aws_iam_role.this.permissions_boundary == "arn:aws-cn:iam::123456789012:policy/boundary"
    error_message = "the role has no permissions boundary"
  }

  assert {
    condition     = contains([for tag in aws_autoscaling_group.this.tag : tag.key], "team")
    error_message = "the instances have no tags of the user's"
  }
}
