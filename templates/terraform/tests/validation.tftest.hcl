# Every wrong input is refused at plan, by the variable that holds it. The provider is a mock: nothing is looked up.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "eu-central-1a" }
  }
}

variables {
  vpc_id                         = "vpc-1"
  consul_server_subnet_ids       = ["subnet-1"]
  nomad_server_subnet_ids        = ["subnet-1"]
  consul_num_servers             = 1
  nomad_num_servers              = 1
  datacenters                    = { public-services = { subnet_ids = ["subnet-1"] } }
  alb_subnet_ids                 = ["subnet-1", "subnet-2"]
  ui_alb_https_listener_cert_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/one"

  cluster = { name = "cos-test", vpc_id = "vpc-1", agents_security_group_id = "sg-1" }
}

run "the_base_of_these_cases_is_right" {
  command = plan
}

run "an_even_number_of_consul_servers" {
  command = plan
  variables { consul_num_servers = 2 }
  expect_failures = [var.consul_num_servers]
}

run "an_even_number_of_nomad_servers" {
  command = plan
  variables { nomad_num_servers = 4 }
  expect_failures = [var.nomad_num_servers]
}

run "a_name_that_is_too_long" {
  command = plan
  variables { unique_postfix = "-of-more-than-twenty-letters" }
  expect_failures = [var.unique_postfix]
}

run "https_without_a_certificate" {
  command = plan
  variables { ui_alb_https_listener_cert_arn = null }
  expect_failures = [var.ui_alb_https_listener_cert_arn]
}

run "plain_http_on_the_internet" {
  command = plan
  variables {
    ui_alb_allow_http = true
    ui_alb_internal   = false
  }
  expect_failures = [var.ui_alb_allow_http]
}

run "the_world_at_the_web_interfaces" {
  command = plan
  variables { allowed_cidr_blocks_for_ui_alb = { all = "0.0.0.0/0" } }
  expect_failures = [var.allowed_cidr_blocks_for_ui_alb]
}

run "no_subnets_for_the_web_interfaces" {
  command = plan
  variables { alb_subnet_ids = [] }
  expect_failures = [var.alb_subnet_ids]
}

run "no_datacenter_for_the_proxy" {
  command = plan
  variables { datacenters = { backoffice = { subnet_ids = ["subnet-1"] } } }
  expect_failures = [var.datacenters]
}

run "servers_in_one_zone" {
  command = plan
  module { source = "./modules/node-group" }
  variables {
    name             = "consul-server"
    role             = "consul-server"
    parameter_prefix = "consul-server"
    quorum           = true
    size             = { min = 3, max = 3, desired_capacity = 3 }
    subnet_ids       = ["subnet-1", "subnet-2", "subnet-3"]
    ami_id           = "ami-1"
  }
  expect_failures = [aws_autoscaling_group.this]
}

run "no_image" {
  command = plan
  module { source = "./modules/node-group" }
  variables {
    name             = "consul-server"
    role             = "consul-server"
    parameter_prefix = "consul-server"
    size             = { min = 1, max = 1 }
    subnet_ids       = ["subnet-1"]
  }
  expect_failures = [data.aws_ssm_parameter.ami]
}

run "a_cluster_name_with_capitals" {
  command = plan
  module { source = "./modules/consul" }
  variables {
    cluster    = { name = "COS", vpc_id = "vpc-1", agents_security_group_id = "sg-1" }
    subnet_ids = ["subnet-1"]
    ami_id     = "ami-1"
  }
  expect_failures = [var.cluster]
}

run "a_tag_that_the_agent_would_read" {
  command = plan
  module { source = "./modules/nomad" }
  variables {
    cluster    = { name = "cos-test", vpc_id = "vpc-1", agents_security_group_id = "sg-1", tags = { "cos:role" = "other" } }
    subnet_ids = ["subnet-1"]
    ami_id     = "ami-1"
  }
  expect_failures = [var.cluster]
}

run "a_mount_without_a_volume" {
  command = plan
  module { source = "./modules/nomad-datacenter" }
  variables {
    datacenter_name            = "backoffice"
    subnet_ids                 = ["subnet-1"]
    ami_id                     = "ami-1"
    device_to_mount_target_map = ["/dev/sdf:/data"]
  }
  expect_failures = [var.device_to_mount_target_map]
}

run "more_nodes_wanted_than_allowed" {
  command = plan
  module { source = "./modules/nomad-datacenter" }
  variables {
    datacenter_name  = "backoffice"
    subnet_ids       = ["subnet-1"]
    ami_id           = "ami-1"
    node_scaling_cfg = { min = 1, max = 2, desired_capacity = 3 }
  }
  expect_failures = [var.node_scaling_cfg]
}

run "two_subnets_in_one_zone" {
  command = plan
  module { source = "./modules/networking" }
  variables {
    cluster_name       = "cos-test"
    availability_zones = ["eu-central-1a", "eu-central-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "an_unknown_way_of_nat" {
  command = plan
  module { source = "./modules/networking" }
  variables {
    cluster_name = "cos-test"
    nat_mode     = "per_zone"
  }
  expect_failures = [var.nat_mode]
}

run "an_ingress_without_a_certificate" {
  command = plan
  module { source = "./modules/networking" }
  variables {
    cluster_name = "cos-test"
    ingress      = {}
  }
  expect_failures = [var.ingress]
}

run "ssh_for_the_world" {
  command = plan
  module { source = "./modules/bastion" }
  variables {
    cluster_name            = "cos-test"
    ami_id                  = "ami-1"
    subnet_id               = "subnet-1"
    ssh_key_name            = "key"
    allowed_ssh_cidr_blocks = { all = "0.0.0.0/0" }
  }
  expect_failures = [var.allowed_ssh_cidr_blocks]
}

run "a_cache_of_docker_hub_without_a_credential" {
  command = plan
  module { source = "./modules/ecr" }
  variables {
    pull_through_caches = { docker-hub = { upstream_registry_url = "registry-1.docker.io" } }
  }
  expect_failures = [var.pull_through_caches]
}
