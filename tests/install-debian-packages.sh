#!/usr/bin/env bash
# Installs the Debian packages that some tests use; does nothing where they are there already.
# Without them those tests skip, except where CI=true.
set -euo pipefail

packages=(
    chromium        # looks at the MLflow pages
    chromium-driver # lets a test click in them
    postgresql      # keeps records; its programs are started, the service it sets up is not used
    iproute2        # makes hosts of network namespaces
    shellcheck      # reads the scripts of deploy/
)

is_installed() {
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: the tests that use ${packages[*]} need them from elsewhere"
    exit
fi
missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    echo "the tests' Debian packages are there: ${packages[*]}"
elif ((EUID != 0)); then
    echo "not root: for the tests that use them, run  sudo apt-get install ${missing[*]}"
else
    echo "installing the tests' Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
fi
