datacenter = "leader"
region = "global"
name = "i-0123456789abcdef0"
data_dir = "/opt/nomad/data"
bind_addr = "0.0.0.0"
log_level = "info"
log_file = "/opt/nomad/log/"
log_rotate_duration = "24h"
log_rotate_bytes = 104857600
log_rotate_max_files = 7
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

  client_introduction {
    enforcement = "strict"
  }
}

autopilot {
  cleanup_dead_servers = true
  min_quorum = 3
  server_stabilization_time = "30s"
}

tls {
  http = true
  rpc = true
  ca_file = "/opt/nomad/tls/cos-ca.pem"
  cert_file = "/opt/nomad/tls/cos-certificate.pem"
  key_file = "/opt/nomad/tls/cos-key.pem"
  verify_server_hostname = true
  verify_https_client = false
}

acl {
  enabled = true
}

consul {
  address = "127.0.0.1:8500"

  service_identity {
    aud = [
      "consul.io"
    ]
    ttl = "1h"
  }

  task_identity {
    aud = [
      "consul.io"
    ]
    ttl = "1h"
  }
}

telemetry {
  publish_allocation_metrics = true
  publish_node_metrics = true
  prometheus_metrics = true
  disable_hostname = true
}
