# A load balancer for each web interface: Nomad's, Consul's, and the ingress proxy's. Who may reach them, and what they
# reach, is in the table of the module sgrules under alb-ui and ui-users.

locals {
  speaks = var.tls ? "HTTPS" : "HTTP"

  interfaces = {
    nomad  = { port = var.nomad_ui_port, protocol = local.speaks, group = var.nomad_server_asg_name, health = "/v1/status/leader" }
    consul = { port = coalesce(var.consul_ui_port, var.tls ? 8501 : 8500), protocol = local.speaks, group = var.consul_server_asg_name, health = "/v1/status/leader" }
    fabio  = { port = var.fabio_ui_port, protocol = "HTTP", group = var.fabio_server_asg_name, health = "/health" }
  }
}

resource "aws_security_group" "this" {
  name        = "${var.cluster_name}-alb-ui"
  description = "Load balancers of the web interfaces"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.cluster_name}-alb-ui" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_target_group" "this" {
  for_each = local.interfaces

  name_prefix          = "cos-"
  vpc_id               = var.vpc_id
  port                 = each.value.port
  protocol             = each.value.protocol
  deregistration_delay = 30
  tags                 = merge(var.tags, { Name = "${var.cluster_name}-${each.key}-ui" })

  health_check {
    path     = each.value.health
    protocol = each.value.protocol
    interval = 15
    timeout  = 3
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_autoscaling_attachment" "this" {
  for_each = local.interfaces

  autoscaling_group_name = each.value.group
  lb_target_group_arn    = aws_lb_target_group.this[each.key].arn
}

module "load_balancer" {
  source   = "../load-balancer"
  for_each = local.interfaces

  name                = "${var.cluster_name}-${each.key}-ui"
  subnet_ids          = var.subnet_ids
  security_group_ids  = [aws_security_group.this.id]
  internal            = var.internal
  certificate_arn     = var.ui_alb_https_listener_cert_arn
  allow_http          = var.allow_http
  target_group_arn    = aws_lb_target_group.this[each.key].arn
  oidc                = var.oidc
  access_log_bucket   = var.access_log_bucket
  deletion_protection = var.deletion_protection
  tags                = var.tags
}
