output "rules" {
  description = "Every rule as sentence: side, from, to, protocol and ports."
  value = sort(concat(
    [for rule in local.ingress : "in  ${rule.from} -> ${rule.to} ${rule.protocol} ${rule.first}-${rule.last}"],
    [for rule in local.egress : "out ${rule.from} -> ${rule.to} ${rule.protocol} ${rule.first}-${rule.last}"],
  ))
}
