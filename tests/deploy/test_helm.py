"""The Helm chart as helm renders it for each of tests/deploy/values: whether Kubernetes takes it, what is refused.

No cluster is there to ask. Kubernetes' own schemas, those of the foreign kinds, and rules stand in for it.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import CHART, NAMESPACE, ROOT, SETS, Helm, Rendered
from tests.deploy.chart import selects as _selects
from tests.deploy.chart import template as _template
from tests.deploy.kubernetes_schemas import FOREIGN

# The oldest that Chart.yaml admits, and the three newest.
KUBERNETES = ("1.31", "1.35", "1.36", "1.37")


def test_there_are_sets_of_values_for_every_use() -> None:
    """Else part of the chart is never rendered before a user does it."""
    assert set(SETS) >= {"minimal", "everything", "gpu", "trial", "sources", "open"}


@pytest.mark.parametrize("values", SETS)
def test_helm_finds_nothing_to_say(helm: Helm, values: str) -> None:
    """Else `helm install` warns, or refuses what the documentation says to write."""
    helm("lint", "--strict", values=values)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_document(rendered: Rendered, version: str) -> None:
    """Else `helm install` fails half-way, or a misspelled field is dropped and what it asked for does not happen."""
    for document in rendered.documents:
        if document["kind"] in FOREIGN:
            jsonschema.validate(document["spec"], FOREIGN[document["kind"]])
        else:
            kubernetes_validate.validate(document, version, strict=True)
        assert document["metadata"]["namespace"] == NAMESPACE


def test_names_are_short_enough(helm: Helm) -> None:
    """Else a release with a long name is refused by Kubernetes, which takes 63 characters with what it adds."""
    for options in ("--name-template", "x" * 53), ("--set", f"fullnameOverride={'x' * 60}"):
        for document in _template(helm, *options, values="trial").documents:
            assert len(document["metadata"]["name"]) <= 52


def test_selectors_select_what_they_are_for(rendered: Rendered) -> None:
    """Else a Service leads to nothing or to a worker, and a policy or budget protects nothing."""
    for pods in rendered.pods:
        if pods.owner["kind"] != "Pod":
            assert _selects(pods.owner["spec"]["selector"], pods.labels)
        for constraint in pods.spec.get("topologySpreadConstraints", []):
            assert _selects(constraint["labelSelector"], pods.labels)
    for name, service in rendered.of("Service").items():
        targets = [
            pods for pods in rendered.pods if _selects({"matchLabels": service["spec"]["selector"]}, pods.labels)
        ]
        assert [pods.name for pods in targets] == [name]
        ports = {port["name"] for container in targets[0].containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for name, budget in rendered.of("PodDisruptionBudget").items():
        assert [pods.name for pods in rendered.pods if _selects(budget["spec"]["selector"], pods.labels)] == [name]
    for name, monitor in rendered.of("ServiceMonitor").items():
        assert _selects(monitor["spec"]["selector"], rendered.of("Service")[name]["metadata"]["labels"])
    for ingress in rendered.of("Ingress").values():
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        assert path["backend"]["service"]["name"] == rendered.of("Service")["api"]["metadata"]["name"]


def test_a_try_runs_only_when_asked_for(rendered: Rendered) -> None:
    """Else every installation runs a job, and `helm test` none."""
    pod = rendered.of("Pod")["try"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["restartPolicy"] == "Never"
    store = rendered.of("ConfigMap")["settings"]["data"]["KEEPMORE_STORE"]
    (dataset,) = (part.partition("=")[2] for part in pod["spec"]["containers"][0]["command"] if "--dataset=" in part)
    assert dataset.startswith("s3://")
    assert not f"{dataset}/".startswith(f"{store}/"), "a dataset within the store is refused"
    allowed = rendered.of("ConfigMap")["settings"]["data"].get("KEEPMORE_ALLOWED_SOURCES", "s3://")
    assert any(dataset.startswith(prefix) for prefix in allowed.split(",")), "a dataset that may not be read is refused"


def test_servers_of_the_trial_are_only_in_the_trial(rendered: Rendered) -> None:
    """Else an installation keeps its objects in a volume that nobody replicates."""
    servers = {pods.name for pods in rendered.pods} & {"redis", "minio"}
    assert servers == ({"redis", "minio"} if rendered.name == "trial" else set())


def test_alerts_and_dashboard_reach_the_cluster_as_they_are(helm: Helm) -> None:
    """Else Helm fills in what Prometheus and Grafana should, or an alert points to a page that its reader has not."""
    rendered = _template(helm, values="everything")
    alerts = (CHART / "monitoring" / "alerts.yaml").read_text()
    page = "https://docs.example.com/keepmore/operations.md#"
    expected = yaml.safe_load(alerts.replace("docs/operations.md#", page))
    assert rendered.of("PrometheusRule")["alerts"]["spec"] == expected
    dashboard = rendered.of("ConfigMap")["dashboard"]
    assert dashboard["data"]["keepmore.json"] == (CHART / "monitoring" / "dashboard.json").read_text()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


REFUSED = {
    "an unknown value": (["--set", "workers.replicas=2"], "workers"),
    "an unknown setting": (["--set", "settings.storage=s3://b/p"], "storage"),
    "a number as a string": (["--set-string", "worker.replicas=2"], "replicas"),
    "the tag latest": (["--set", "image.tag=latest"], "tag"),
    "a trial with latest": (["--set", "trial.redis.image=redis:latest"], "image"),
    "a folder as the store": (["--set", "settings.store=/data"], "store"),
    "an endpoint with a path": (["--set", "settings.s3Endpoint=https://s3.example.com/bucket"], "s3Endpoint"),
    "a credential as a value": (["--set", "credentials.redisUrl=redis://:password@redis"], "redisUrl"),
    "no Secret": (["--set", "existingSecret="], "existingSecret: name the Secret that holds"),
    "a size that is none": (["--set", "trainer.scratchBytes=3Gi"], "scratchBytes"),
    "no store": (["--set", "settings.store="], "settings.store: where jobs and objects are"),
    "no endpoint": (["--set", "settings.s3Endpoint="], "settings.s3Endpoint: the S3 server of the store"),
    "no account": (["--set", "serviceAccount.create=false"], "serviceAccount.name: name the ServiceAccount"),
    "an Ingress without a host": (["--set", "ingress.enabled=true"], "ingress.hosts: name at least one"),
    "Prometheus nowhere": (
        ["--set", "keda.trigger=prometheus,trainer.autoscaling.enabled=true"],
        "keda.prometheus.serverAddress: where",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_and_named(helm: Helm, case: str) -> None:
    """Else a typing error is found hours later, by what the service does not do."""
    options, message = REFUSED[case]
    done = helm("template", *options, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_documented_values_are_taken(helm: Helm, tmp_path: Path) -> None:
    """Else who copies the documentation is told that no such value exists."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = [block for block in text.split("\n\n") if re.match(r"    \w+:( \w+)?\n", block)]
    assert len(blocks) == 2
    for block in blocks:
        file = tmp_path / "values.yaml"
        file.write_text(textwrap.dedent(block))
        assert _template(helm, "--values", str(file)).of("Deployment")


def test_the_chart_is_of_this_version() -> None:
    """Else the chart runs images of another version than the one it came with."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == chart["version"] == version
