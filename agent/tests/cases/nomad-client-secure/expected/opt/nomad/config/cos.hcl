datacenter = "private-services"
region = "eu-central-1"
name = "i-0123456789abcdef0"
data_dir = "/data/nomad"
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

client {
  enabled = true
  cni_path = "/opt/cni/bin"
  cni_config_dir = "/opt/cni/config"
  options = {
    "driver.raw_exec.enable" = "1"
    "fingerprint.denylist" = "env_azure,env_digitalocean,env_gce"
  }

  host_volume "certificates" {
    path = "/etc/ssl/certs"
    read_only = true
  }

  host_volume "scratch" {
    path = "/data/scratch"
    read_only = false
  }

  drain_on_shutdown {
    deadline = "1h"
  }
}

plugin "docker" {
  config {
    allow_privileged = false

    auth {
      config = "/etc/docker/config.json"
    }

    volumes {
      enabled = true
    }
  }
}

tls {
  http = false
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
}

telemetry {
  publish_allocation_metrics = false
  publish_node_metrics = true
  prometheus_metrics = true
  disable_hostname = true
}
