#!/bin/sh
# Runs PostgreSQL for evaluation from any image that has its programs, without root and on a read-only root
# file system: postgresql.sh serve | ready | stop; and `wait` until the one at PGHOST answers.
#
# Environment: PGDATA (folder of the data; its parent must be writable), PGPORT, POSTGRES_USER, POSTGRES_DB,
# POSTGRES_PASSWORD_FILE. Names and password are letters, digits and ._~- (the chart sees to it). For `wait`: PGHOST,
# PGPORT and PATIENCE_SECONDS.
set -eu

# Debian keeps the server's programs off the PATH, one folder a version; the last one is the newest.
for folder in /usr/lib/postgresql/*/bin; do
  if [ -x "$folder/postgres" ]; then PATH=$folder:$PATH; fi
done
if ! command -v postgres >/dev/null; then
  echo "this image has no postgres program: set postgresql.bundled.image to one that has" >&2
  exit 1
fi

# Without a name the client programs ask for that of the user they run as, who need not have one in any image.
PGUSER=${PGUSER:-${POSTGRES_USER:-postgres}}
export PGUSER

initialise() {
  # Made beside its place and renamed, so that a pod killed half way starts anew.
  new=$PGDATA.new
  rm -rf "$new"
  initdb --pgdata="$new" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
    --auth=scram-sha-256 --encoding=UTF8 --no-locale
  echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
  single_user "$new" "CREATE DATABASE \"$POSTGRES_DB\""
  mv "$new" "$PGDATA"
}

# One statement without a running server. A here-document, not a pipe: postgres takes the lock file of a server that
# had its parent's process number for stale, and a container's shell is always number 1.
single_user() { # DATA STATEMENT
  postgres --single -D "$1" -c exit_on_error=on postgres >/dev/null <<STATEMENT
$2
STATEMENT
}

case ${1:-} in
  serve)
    if [ ! -d "$PGDATA" ]; then initialise; fi
    # Kubernetes gives the volume's group access to all files each time it mounts it; PostgreSQL refuses such data.
    chmod 0700 "$PGDATA"
    # Each time, so that a new password in the Secret is the password of the data.
    single_user "$PGDATA" "ALTER ROLE \"$POSTGRES_USER\" PASSWORD '$(cat "$POSTGRES_PASSWORD_FILE")'"
    exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
    ;;
  ready) exec pg_isready --quiet --host=127.0.0.1 ;;
  # The server takes the kubelet's SIGTERM, which follows, for "wait until the last client has gone". Not waited for here:
  # the container's processes end with the server, and a hook among them would count as failed.
  stop) exec pg_ctl stop --pgdata="$PGDATA" --mode=fast --no-wait --silent ;;
  wait)
    seconds=0
    until pg_isready --quiet; do
      if [ "$seconds" -ge "$PATIENCE_SECONDS" ]; then
        echo "no PostgreSQL at $PGHOST:$PGPORT after $seconds s: kubectl describe its pod" >&2
        exit 1
      fi
      seconds=$((seconds + 1))
      sleep 1
    done
    ;;
  *)
    echo "usage: postgresql.sh serve | ready | stop | wait" >&2
    exit 2
    ;;
esac
