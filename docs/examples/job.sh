#!/bin/sh
# job.sh: a job from its start to its manifest, and another budget. Needs curl and jq.
set -eu
U=http://127.0.0.1:8000
A="Authorization: Bearer ${KEEPMORE_API_KEY:-}"  # a service without keys ignores it

# Start a job. Sent again within a day, the same key names the same job.
curl -sS --fail-with-body "$U/v1/jobs" -H "$A" -H 'Content-Type: application/json' -H 'Idempotency-Key: food-1' -d '{
  "dataset": "s3://photos/food/train", "distances": [0, 4, 10], "budget": {"as_distance": 10, "fraction": 0.5},
  "evaluation": {"dataset": "s3://photos/food/test"}, "training": {"model": "mobilenet_v2"}}' > job.json
JOB=$(jq -r .job job.json)

# Wait for its end: each request answers at the end, or after a minute.
until curl -sS --fail-with-body "$U/v1/jobs/$JOB?wait=60" -H "$A" | tee job.json | jq -e '.state != "accepted"' > /dev/null; do sleep 1; done
jq -r '.state, .error.message // empty' job.json
jq -e '.state == "succeeded"' job.json > /dev/null

# What to keep at distance 10, and the report.
curl -sS --fail-with-body "$U/v1/jobs/$JOB/subsets/own/10" -H "$A" -H 'Accept: text/csv' -o keep-10.csv
curl -sS --fail-with-body "$U/v1/jobs/$JOB/report" -H "$A" -H 'Accept: text/html' -o report.html
curl -sS --fail-with-body "$U/v1/jobs/$JOB/errors" -H "$A"

# Another budget over the same index: an answer in seconds, nothing is compressed again.
curl -sS --fail-with-body "$U/v1/jobs/$JOB/subsets" -H "$A" -H 'Content-Type: application/json' -d '{"budget": "100kB"}' > subset.json
curl -sS --fail-with-body "$U$(jq -r '.links.manifests["10"]' subset.json)" -H "$A" -H 'Accept: application/x-ndjson'
