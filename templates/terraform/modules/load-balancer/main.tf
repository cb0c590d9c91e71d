# An application load balancer with one listener: HTTPS, or plain HTTP where that was chosen.

resource "aws_lb" "this" {
  name                       = var.name
  internal                   = var.internal
  load_balancer_type         = "application"
  security_groups            = var.security_group_ids
  subnets                    = var.subnet_ids
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.deletion_protection
  tags                       = merge(var.tags, { Name = var.name })

  dynamic "access_logs" {
    for_each = var.access_log_bucket[*]
    content {
      bucket  = access_logs.value
      prefix  = var.name
      enabled = true
    }
  }
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  port              = var.allow_http ? 80 : 443
  protocol          = var.allow_http ? "HTTP" : "HTTPS"
  certificate_arn   = var.allow_http ? null : var.certificate_arn
  ssl_policy        = var.allow_http ? null : "ELBSecurityPolicy-TLS13-1-2-2021-06"
  tags              = var.tags

  dynamic "default_action" {
    for_each = nonsensitive(var.oidc != null) ? [1] : []
    content {
      type  = "authenticate-oidc"
      order = 1
      authenticate_oidc {
        issuer                 = var.oidc.issuer
        authorization_endpoint = var.oidc.authorization_endpoint
        token_endpoint         = var.oidc.token_endpoint
        user_info_endpoint     = var.oidc.user_info_endpoint
        client_id              = var.oidc.client_id
        client_secret          = var.oidc.client_secret
        scope                  = var.oidc.scope
      }
    }
  }

  dynamic "default_action" {
    for_each = var.has_targets ? [1] : []
    content {
      type             = "forward"
      order            = 2
      target_group_arn = var.target_group_arn
    }
  }

  dynamic "default_action" {
    for_each = var.has_targets ? [] : [1]
    content {
      type  = "fixed-response"
      order = 2
      fixed_response {
        content_type = "text/plain"
        message_body = "no service answers here yet"
        status_code  = "503"
      }
    }
  }

  lifecycle {
    precondition {
      condition     = nonsensitive(var.oidc == null) || !var.allow_http
      error_message = "oidc needs HTTPS: AWS signs nobody in over plain HTTP."
    }
  }
}
