#!/usr/bin/env bash
# Runs Consul and Nomad on this machine in their development modes: devmode.sh HOST_ADDRESS [DATACENTER]
# Nothing is kept and nothing is guarded: for writing jobs, not for serving anybody. Ctrl-C ends both.
set -euo pipefail

host=${1:?usage: devmode.sh HOST_ADDRESS [DATACENTER]}
datacenter=${2:-public-services}

for program in consul nomad; do
    command -v "$program" >/dev/null || { echo "$program is not on PATH" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'kill "${consul:-}" "${nomad:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

cat >"$work/nomad.hcl" <<HCL
datacenter = "$datacenter"
bind_addr  = "$host"
consul {
  address = "$host:8500"
}
client {
  options = { "driver.allowlist" = "docker,exec,raw_exec" }
}
HCL

consul agent -dev -client "$host" -bind "$host" &
consul=$!
nomad agent -dev -config "$work/nomad.hcl" &
nomad=$!
echo "Consul: http://$host:8500  Nomad: http://$host:4646" >&2
wait -n
