#!/bin/sh
# keep.sh: needs curl, jq, and keepmore with KEEPMORE_SERVER, KEEPMORE_API_KEY and, for s3://, KEEPMORE_S3_* set.
set -eu
day=$(date -u +%F)
cd "${KEEP_FOLDER:-/var/lib/keep}"
rm -f "$day.may-go"

curl -sS --fail-with-body "$KEEPMORE_SERVER/v1/jobs" -H "Authorization: Bearer ${KEEPMORE_API_KEY:-}" \
  -H 'Content-Type: application/json' -H "Idempotency-Key: nightly-$day" -d @request.json > "$day.job.json"
job=$(jq -r .job "$day.job.json")

keepmore resume "$job" --json > "$day.report.json"    # waits for the job; retries a failed one
keepmore verify "$job/10" > "$day.verified"           # reads every kept object again; exit code 3 ends this script
keepmore export "$job/10" "$day.ndjson"
jq -r .source_uri "$day.ndjson" > "$day.may-go"
