# The smallest service that proves a cluster: answers HTTP from a container, and Consul knows where.
# The image is one that the nodes have already; a real job names one in a registry, such as ECR.
variable "image" {
  type    = string
  default = "cos-hello:1"
}

job "hello" {
  datacenters = ["public-services"]

  group "hello" {
    network {
      port "http" {
        to = 8080
      }
    }

    service {
      name     = "hello"
      port     = "http"
      provider = "consul"

      check {
        type     = "http"
        path     = "/"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "hello" {
      driver = "docker"

      config {
        image   = var.image
        ports   = ["http"]
        command = "/usr/bin/python3"
        args    = ["-m", "http.server", "8080", "--directory", "/local"]
      }

      template {
        data        = "hello from {{ env \"NOMAD_DC\" }}, allocation {{ env \"NOMAD_ALLOC_ID\" }}\n"
        destination = "local/index.html"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
