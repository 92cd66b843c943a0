#!/bin/sh
# Runs Redis for evaluation from any image that has it, without root and on a read-only root file system:
# redis.sh serve | ready.
#
# Environment: REDIS_DATA (a writable folder), REDIS_PORT, REDIS_PASSWORD_FILE (letters,
# digits and ._~-; the chart sees to it).
set -eu

case ${1:-} in
  serve)
    if ! command -v redis-server >/dev/null; then
      echo "this image has no redis-server program: set redis.bundled.image to one that has" >&2
      exit 1
    fi
    # From standard input: an argument would show the password to everyone who lists processes.
    exec redis-server - <<CONFIG
bind * -::*
port $REDIS_PORT
dir $REDIS_DATA
requirepass $(cat "$REDIS_PASSWORD_FILE")
save ""
appendonly yes
appendfsync everysec
CONFIG
    ;;
  ready)
    # While it loads its data it answers, with an error and exit code 0.
    [ "$(REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE") redis-cli -h 127.0.0.1 -p "$REDIS_PORT" ping)" = PONG ]
    ;;
  *)
    echo "usage: redis.sh serve | ready" >&2
    exit 2
    ;;
esac
