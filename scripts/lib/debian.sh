# shellcheck shell=bash
# Debian packages that a command of this repository needs. Source it, then:
#
#     need_packages socat nftables
#
# As root it installs what is missing and says so; the services that come with
# a package are left stopped, because only its programs are wanted. Anyone else
# is told the exact command, and the function returns 1.

# missing_packages PACKAGE...: prints those that are not installed, one a line.
missing_packages() {
  local package status
  for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || printf '%s\n' "$package"
  done
}

need_packages() {
  local -a missing
  if ! command -v dpkg-query >/dev/null; then
    echo "error: this is not a Debian system: install the equivalents of these packages yourself: $*" >&2
    return 1
  fi
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    {
      echo "error: Debian packages are missing: ${missing[*]}"
      echo "       As root, run:  apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    } >&2
    return 1
  fi
  echo "installing Debian packages: ${missing[*]}" >&2
  install_packages "${missing[@]}"
}

# need_node: Node and npm, from whatever source the machine has them; Debian's own where they are missing.
need_node() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then need_packages nodejs npm; fi
}

# install_packages PACKAGE...: apt-get, with its output shown only when it fails.
# One caller at a time: the second would take the policy file of the first for the machine's own.
install_packages() (
  set -euo pipefail
  exec 9>/run/lock/aiservice-packages
  flock 9
  mapfile -t missing < <(missing_packages "$@") # another caller may have installed them meanwhile
  [ ${#missing[@]} -gt 0 ] || return 0

  policy=/usr/sbin/policy-rc.d
  marker='# put here by scripts/lib/debian.sh while it installs packages'
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # A killed run may have left its own file here. The machine's own policy is not ours to touch.
  if [ ! -e "$policy" ] || grep -qxF "$marker" "$policy"; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$marker" >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy" "$log"' EXIT
  fi

  export DEBIAN_FRONTEND=noninteractive
  apt() { apt-get -q -y -o DPkg::Lock::Timeout=600 "$@" >>"$log" 2>&1 </dev/null; }
  if ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
    echo "error: apt-get could not install ${missing[*]}; its last lines:" >&2
    tail -n 20 "$log" >&2
    return 1
  fi
)
