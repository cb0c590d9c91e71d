# A VPC whose classes of subnets hold what they say: only `public` has a way to the internet gateway, only
# `content-connector` a way out by NAT, and `services` and `backoffice` have no route beyond the VPC at all.

data "aws_availability_zones" "available" {
  state = "available"

  # Local zones have other prices, other instance types and no place for NAT.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = length(var.availability_zones) > 0 ? var.availability_zones : slice(data.aws_availability_zones.available.names, 0, var.zone_count)
  cidr  = "${var.ip_prefix}.0.0/16"

  # Size of a subnet in bits beyond the VPC's, and the number of the first zone's subnet among subnets of that size.
  classes = {
    services          = { bits = 3, first = 0 }
    public            = { bits = 8, first = 128 }
    content-connector = { bits = 7, first = 66 }
    backoffice        = { bits = 8, first = 140 }
  }

  subnets = merge([
    for class, it in local.classes : {
      for index, zone in local.zones : "${class}-${index}" => {
        class = class
        index = index
        zone  = zone
        cidr  = cidrsubnet(local.cidr, it.bits, it.first + index)
      }
    }
  ]...)

  # Only content connectors in several zones with a gateway each need a table each.
  per_zone   = var.nat_mode == "per_az"
  gateways   = { none = 0, single = 1, per_az = length(local.zones) }[var.nat_mode]
  nat_tables = local.per_zone ? length(local.zones) : 1
  tables = merge(
    { for class in ["public", "services", "backoffice"] : class => class },
    { for index in range(local.nat_tables) : "content-connector-${index}" => "content-connector" },
  )
  table_of = {
    for key, subnet in local.subnets :
    key => subnet.class == "content-connector" ? "content-connector-${local.per_zone ? subnet.index : 0}" : subnet.class
  }

  subnet_ids = { for class in keys(local.classes) : class => [for index in range(length(local.zones)) : aws_subnet.this["${class}-${index}"].id] }
}

resource "aws_vpc" "this" {
  cidr_block           = local.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = var.cluster_name })
}

# Whatever is put into the default group by mistake can talk to nobody.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.cluster_name}-default-closed" })
}

resource "aws_flow_log" "this" {
  count = var.flow_log_destination_arn == null ? 0 : 1

  vpc_id               = aws_vpc.this.id
  traffic_type         = "ALL"
  log_destination_type = "s3"
  log_destination      = var.flow_log_destination_arn
  tags                 = merge(var.tags, { Name = var.cluster_name })
}

resource "aws_subnet" "this" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.value.zone
  cidr_block              = each.value.cidr
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${var.cluster_name}-${each.value.class}-${each.value.zone}" })
}

# --- Routes -----------------------------------------------------------------------------------------------------

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = var.cluster_name })
}

resource "aws_route_table" "this" {
  for_each = local.tables

  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_route_table_association" "this" {
  for_each = local.table_of

  subnet_id      = aws_subnet.this[each.key].id
  route_table_id = aws_route_table.this[each.value].id
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.this["public"].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_eip" "nat" {
  count = local.gateways

  domain = "vpc"
  tags   = merge(var.tags, { Name = "${var.cluster_name}-nat-${count.index}" })

  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count = local.gateways

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.this["public-${count.index}"].id
  tags          = merge(var.tags, { Name = "${var.cluster_name}-${count.index}" })
}

resource "aws_route" "content_connector" {
  count = var.nat_mode == "none" ? 0 : local.nat_tables

  route_table_id         = aws_route_table.this["content-connector-${count.index}"].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[count.index].id
}

# --- Load balancers ---------------------------------------------------------------------------------------------

locals {
  balancers = merge(
    var.ingress == null ? {} : { alb-ingress = { listen = var.ingress, internal = var.ingress.internal, name = "ingress" } },
    var.backoffice == null ? {} : { alb-backoffice = { listen = var.backoffice, internal = true, name = "backoffice" } },
  )
}

resource "aws_security_group" "balancer" {
  for_each = local.balancers

  name        = "${var.cluster_name}-${each.key}"
  description = "Load balancer of the ${each.value.name}"
  vpc_id      = aws_vpc.this.id
  tags        = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })

  lifecycle {
    create_before_destroy = true
  }
}

module "balancer" {
  source   = "../load-balancer"
  for_each = local.balancers

  name                = "${var.cluster_name}-${each.value.name}"
  subnet_ids          = local.subnet_ids[each.value.internal ? "backoffice" : "public"]
  security_group_ids  = [aws_security_group.balancer[each.key].id]
  internal            = each.value.internal
  certificate_arn     = each.value.listen.certificate_arn
  allow_http          = each.value.listen.allow_http
  has_targets         = false
  access_log_bucket   = var.access_log_bucket
  deletion_protection = var.deletion_protection
  tags                = var.tags
}
