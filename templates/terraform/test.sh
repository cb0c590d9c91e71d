#!/usr/bin/env bash
# Tests the Terraform modules: formatting, documents, validity, wrong inputs, and the platform applied on moto.
# Needs terraform and Python 3; the provider comes from a filesystem mirror of this machine or from the registry.
#
#   COS_TERRAFORM_MIRROR  folder of a filesystem mirror with hashicorp/aws; looked for if unset
#   COS_AGENT             a cos-agent that checks the user-data that Terraform renders
#   COS_CHECKOV           a checkov; installed from PyPI if unset, left out where that fails
#   COS_DEV_CACHE         where the Python packages are kept
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${COS_DEV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cos}

say() { printf '%s\n' "$*" >&2; }

# Without what it needs a test fails in CI and is skipped, loudly, elsewhere.
cannot() {
    say "terraform: cannot run: $1"
    say "hint: $2"
    if [[ -n ${CI:-} ]]; then
        say "FAIL: CI is set, where every test must run"
        exit 1
    fi
    say "SKIPPED: all tests of templates/terraform"
    exit 0
}

# Terraform does not search the folders of other tools, and a machine image may have put the provider anywhere.
find_mirror() {
    local provider
    provider=$(find / -xdev -type d -path '*registry.terraform.io/hashicorp/aws' -not -path '*/.terraform/*' -print -quit 2>/dev/null) || true
    [[ -n $provider ]] || return 0
    printf '%s\n' "${provider%/registry.terraform.io/hashicorp/aws}"
}

# A folder of Python packages that is whole or not there.
python_packages() {
    local folder=$1
    shift
    [[ -x $folder/bin/python ]] && return
    local fresh=$folder.$$
    python3 -m venv "$fresh" && "$fresh/bin/pip" install --quiet "$@" >&2 || { rm -rf "$fresh"; return 1; }
    # Programs in a moved folder still name the old one, so Python itself starts them.
    mv -T "$fresh" "$folder" 2>/dev/null || rm -rf "$fresh"
}

command -v terraform >/dev/null || cannot "terraform is not on PATH" "install Terraform 1.11 or later"
command -v python3 >/dev/null || cannot "python3 is not on PATH" "install Python 3 with venv"

mirror=${COS_TERRAFORM_MIRROR:-$(find_mirror)}
if [[ -z $mirror ]]; then
    say "terraform: no filesystem mirror holds hashicorp/aws; the registry is asked"
    probe=$(mktemp -d)
    trap 'rm -rf "$probe"' EXIT
    cp "$root/versions.tf" "$probe/"
    terraform -chdir="$probe" init -backend=false -input=false >/dev/null 2>&1 ||
        cannot "the provider hashicorp/aws is neither on this machine nor to be had from the registry" \
            "name a filesystem mirror that holds it by COS_TERRAFORM_MIRROR"
fi

mkdir -p "$cache"
digest=$(sha256sum "$root/tests/requirements.txt" | cut -c1-16)
packages=$cache/terraform-tests-$digest
python_packages "$packages" -r "$root/tests/requirements.txt" ||
    cannot "moto could not be installed from PyPI" "see what pip said above"

checkov=${COS_CHECKOV:-}
if [[ -z $checkov ]]; then
    python_packages "$cache/checkov-3.3.30" "checkov==3.3.30" && checkov=$cache/checkov-3.3.30/bin/python
fi

COS_TERRAFORM_MIRROR=$mirror COS_CHECKOV=$checkov exec "$packages/bin/python" "$root/tests/run.py"
