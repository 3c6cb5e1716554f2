#!/bin/sh
# Makes .env of .env.example with new secrets, and shows a key for the API, which is kept nowhere else.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo ".env is there already: its secrets may be in use; move it away first" >&2
  exit 1
fi

random() {
  od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

key="km_$(random 32)"
entry="pipeline:read+write:$(printf %s "$key" | sha256sum | cut -d ' ' -f 1)"
umask 077
sed -e "s|^KEEPMORE_S3_SECRET_KEY=.*|KEEPMORE_S3_SECRET_KEY=$(random 24)|" \
    -e "s|^KEEPMORE_REDIS_PASSWORD=.*|KEEPMORE_REDIS_PASSWORD=$(random 24)|" \
    -e "s|^KEEPMORE_API_KEYS=.*|KEEPMORE_API_KEYS=$entry|" .env.example > .env
echo ".env is made. The key for callers (KEEPMORE_API_KEY), which is shown once:"
echo "$key"
