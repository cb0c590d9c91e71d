# rules.csv is the only place where a flow is allowed. Each row becomes one rule on the group that the flow leaves and
# one on the group that it enters; a row with an end that this cluster does not have is left out.

locals {
  table = concat(csvdecode(file("${path.module}/rules.csv")), var.additional_rules)

  classes = {
    datacenters = var.datacenters
  }

  # What the column `when` may name. A typing error there fails the plan, for want of the key.
  applies = {
    ""                       = true
    "tls"                    = var.tls
    "no-tls"                 = !var.tls
    "content-connector-http" = var.content_connector_http
    # These depend on the ends of a flow, too.
    "http"          = true
    "https"         = true
    "service-calls" = true
  }

  # Names of classes become their members; `self` becomes the group that the flow leaves.
  flows = flatten([
    for row in local.table : [
      for from in lookup(local.classes, row.from, [row.from]) : [
        for to in row.to == "self" ? [from] : lookup(local.classes, row.to, [row.to]) : {
          from     = from
          to       = to
          protocol = row.protocol
          first    = tonumber(split("-", row.ports)[0])
          last     = tonumber(reverse(split("-", row.ports))[0])
          why      = row.why
          } if(
          row.when == "service-calls" ? contains(lookup(var.service_calls, from, var.datacenters), to) :
          row.when == "http" ? contains(var.plain_http, to) :
          row.when == "https" ? !contains(var.plain_http, to) : true
        )
      ]
    ] if local.applies[row.when]
  ])

  # Two rows may allow the same; AWS takes each rule once.
  distinct_flows = {
    for flow in local.flows :
    "${flow.from}>${flow.to}:${flow.protocol}:${flow.first}-${flow.last}" => flow...
  }

  # An end of a flow is a security group, a prefix list, or addresses, of which each is a rule of its own.
  ends = merge(
    { for name, id in var.security_group_ids : name => { (name) = { group = id, list = null, cidr = null } } },
    { for name, id in var.prefix_list_ids : name => { (name) = { group = null, list = id, cidr = null } } },
    {
      for name, blocks in merge({ internet = { all = "0.0.0.0/0" } }, var.cidr_blocks) :
      name => { for label, block in blocks : "${name}.${label}" => { group = null, list = null, cidr = block } }
    },
  )

  ingress = merge([
    for key, flows in local.distinct_flows : {
      for label, end in lookup(local.ends, flows[0].from, {}) : "${key}:${label}" => merge(flows[0], { end = end })
    } if contains(keys(var.security_group_ids), flows[0].to)
  ]...)

  egress = merge([
    for key, flows in local.distinct_flows : {
      for label, end in lookup(local.ends, flows[0].to, {}) : "${key}:${label}" => merge(flows[0], { end = end })
    } if contains(keys(var.security_group_ids), flows[0].from)
  ]...)
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each = local.ingress

  security_group_id            = var.security_group_ids[each.value.to]
  referenced_security_group_id = each.value.end.group
  prefix_list_id               = each.value.end.list
  cidr_ipv4                    = each.value.end.cidr
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.first
  to_port                      = each.value.last
  description                  = each.value.why
  tags                         = merge(var.tags, { Name = "from ${each.value.from}" })
}

resource "aws_vpc_security_group_egress_rule" "this" {
  for_each = local.egress

  security_group_id            = var.security_group_ids[each.value.from]
  referenced_security_group_id = each.value.end.group
  prefix_list_id               = each.value.end.list
  cidr_ipv4                    = each.value.end.cidr
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.first
  to_port                      = each.value.last
  description                  = each.value.why
  tags                         = merge(var.tags, { Name = "to ${each.value.to}" })
}
