"""An Airflow operator that runs a Keepmore job. Airflow's own retries continue the same job."""

import os

from airflow.sdk import BaseOperator  # Airflow 2: from airflow.models.baseoperator import BaseOperator

from keepmore.client import Client


class KeepmoreOperator(BaseOperator):
    """Runs a Keepmore job; returns its id, and images, bytes and digest by distance. `request`: POST /v1/jobs."""

    template_fields = ("request", "server")

    def __init__(self, *, request, server, **kwargs):
        super().__init__(**kwargs)
        self.request = request
        self.server = server
        self.job = None

    def execute(self, context):
        client = self._client()
        task = context["ti"]
        run = f"{task.dag_id}/{task.task_id}/{task.run_id}/{task.map_index}"
        started = client.start(self.request, idempotency_key=run)
        self.job = started["job"]
        if started["state"] in ("failed", "cancelled"):
            client.retry(self.job)
        client.wait(self.job, lambda view: self.log.info("%s: %s, %s", self.job, view["stage"], view["images"]))
        rows = client.report(self.job)["distances"]
        fields = ("images", "bytes", "digest")
        return {"job": self.job, "distances": {row["distance"]: {name: row[name] for name in fields} for row in rows}}

    def on_kill(self):
        if self.job:
            self._client().cancel(self.job)

    def _client(self):
        return Client(self.server, os.environ.get("KEEPMORE_API_KEY"))
