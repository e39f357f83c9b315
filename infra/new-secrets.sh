#!/bin/sh
# Writes random passwords to infra/.env, for compose.yaml. An old file is left as it is: the database and the bucket know its words.
set -eu
file="$(dirname "$0")/.env"
if [ -e "$file" ]; then
  echo "$file is there already. To change its passwords see docs/operations/keys.md." >&2
  exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
{
  echo "POSTGRES_PASSWORD=$(random)"
  echo "S3_ACCESS_KEY=$(random | cut -c1-20)"
  echo "S3_SECRET_KEY=$(random)"
} > "$file"
echo "$file written. Keep a copy where backups are kept."
