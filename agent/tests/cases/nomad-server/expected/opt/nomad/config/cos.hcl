datacenter = "leader"
region = "eu-central-1"
name = "i-0123456789abcdef0"
data_dir = "/opt/nomad/data"
bind_addr = "0.0.0.0"
log_level = "info"
disable_update_check = true
leave_on_interrupt = false
leave_on_terminate = true

advertise {
  http = "192.0.2.10"
  rpc = "192.0.2.10"
  serf = "192.0.2.10"
}

server {
  enabled = true
  bootstrap_expect = 3
}

consul {
  address = "127.0.0.1:8500"
}

telemetry {
  publish_allocation_metrics = true
  publish_node_metrics = true
  prometheus_metrics = true
  disable_hostname = true
}
