# Sourced by scripts that need Python environments: finds or installs uv, and says where wheels come from.
# shellcheck shell=bash

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
aiservice_cache=${AISERVICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aiservice}
# shellcheck disable=SC2034 # read by the scripts that source this file
python_version=3.11
uv_version=0.13.9

# A folder of wheels beside the checkout (for example a CPU build of torch) is used before the package index.
# UV_FIND_LINKS is uv's own option, so a value that the user set wins.
for _folder in "$repo_root/../shared/wheels" "$repo_root/../wheels"; do
  if [[ -z ${UV_FIND_LINKS:-} && -d $_folder ]]; then
    UV_FIND_LINKS=$(cd "$_folder" && pwd)
    export UV_FIND_LINKS
  fi
done
unset _folder

# Fails with a sentence unless python3 can run the scripts that start before any environment exists.
need_python() {
  if ! command -v python3 >/dev/null; then
    # shellcheck source=scripts/lib/debian.sh
    source "$repo_root/scripts/lib/debian.sh"
    need_packages python3 python3-venv >&2
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $(python3 --version) is too old: these scripts need Python 3.11 or newer, as Debian 12 has" >&2
    return 1
  }
}

# Prints the path of uv at the pinned version, installing it into the cache when the PATH has another one or none.
ensure_uv() {
  local uv
  if uv=$(command -v uv) && [[ $("$uv" --version) == "uv $uv_version"* ]]; then
    echo "$uv"
    return
  fi
  local home=$aiservice_cache/uv-$uv_version
  if [[ ! -x $home/bin/uv ]]; then
    mkdir -p "$aiservice_cache"
    (
      flock 9
      if [[ ! -x $home/bin/uv ]]; then
        echo "Installing uv $uv_version into $home" >&2
        python3 -c 'import ensurepip, venv' 2>/dev/null || {
          # shellcheck source=scripts/lib/debian.sh
          source "$repo_root/scripts/lib/debian.sh"
          need_packages python3 python3-venv >&2
        }
        rm -rf "$home.new" && python3 -m venv "$home.new"
        "$home.new/bin/python" -m pip install --quiet --require-hashes -r "$repo_root/scripts/lib/uv.txt"
        mv "$home.new" "$home"
      fi
    ) 9>"$aiservice_cache/uv.lock"
  fi
  echo "$home/bin/uv"
}
