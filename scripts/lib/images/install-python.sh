#!/bin/sh
# Makes /opt/venv from hashed requirement files, in the RUN of a Dockerfile:  install-python.sh FILE...
#
# Reads, all optional:
#   /wheels                      a folder of wheels to look in before the package index
#   /run/ca-certificates.crt     the certificates to trust while building; nothing of it stays in the image
#   /var/cache/build             kept between builds: uv itself and what it fetched
#   UV_DEFAULT_INDEX, UV_INDEX   package indexes to use instead of the ordinary one, or before it
set -eu

here=$(dirname "$0")
cache=/var/cache/build
uv_home=$cache/uv-$(sha256sum "$here/uv.txt" | cut -c1-16)

if [ -s /run/ca-certificates.crt ]; then
  export SSL_CERT_FILE=/run/ca-certificates.crt PIP_CERT=/run/ca-certificates.crt
fi
if [ ! -x "$uv_home/bin/uv" ]; then
  rm -rf "$uv_home.new"
  python3 -m venv "$uv_home.new"
  PIP_INDEX_URL=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}
  if [ -n "$PIP_INDEX_URL" ]; then export PIP_INDEX_URL; else unset PIP_INDEX_URL; fi
  "$uv_home.new/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r "$here/uv.txt"
  mv "$uv_home.new" "$uv_home"
fi

export UV_CACHE_DIR=$cache/uv UV_LINK_MODE=copy UV_NO_CONFIG=1
if [ -d /wheels ] && [ -n "$(ls /wheels)" ]; then export UV_FIND_LINKS=/wheels; fi
# Every file is named by its hash, so that it does not matter which index has it first.
export UV_INDEX_STRATEGY=unsafe-best-match

[ -d /opt/venv ] || "$uv_home/bin/uv" venv --quiet --python "$(command -v python3)" /opt/venv
for file in "$@"; do
  # The CPU build of torch lists what only its CUDA build would need under other names: dependencies are in the files.
  "$uv_home/bin/uv" pip install --quiet --python /opt/venv --require-hashes --no-deps --compile-bytecode -r "$file"
done
rm -f /opt/venv/.lock # uv's own; every user could write it
