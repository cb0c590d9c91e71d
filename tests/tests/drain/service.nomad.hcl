# A service that may move at any time: several instances, which Consul takes off its list before they end.
job "web" {
  datacenters = ["public-services"]

  group "web" {
    count = 4

    # Half of it moves at once, and what moved has proven itself before the next goes.
    migrate {
      max_parallel     = 2
      min_healthy_time = "3s"
    }

    network {
      port "http" {}
    }

    service {
      name     = "web"
      port     = "http"
      provider = "consul"

      check {
        type     = "http"
        path     = "/"
        interval = "2s"
        timeout  = "2s"
      }
    }

    # Between leaving Consul's list and the end: whoever read the list a moment before still gets an answer.
    shutdown_delay = "3s"

    task "web" {
      # Not a container: nodes come and go here, and none of them can pull an image in the sandbox.
      driver = "exec"

      config {
        command = "/usr/bin/python3"
        args    = ["-m", "http.server", "${NOMAD_PORT_http}", "--directory", "${NOMAD_TASK_DIR}"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
