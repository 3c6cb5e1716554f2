"""The Helm chart as helm renders it for each of tests/deploy/values: whether Kubernetes takes it, what it promises.

No cluster is there to ask. Kubernetes' own schemas, those of the two foreign kinds, and rules stand in for it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from celery.bin.celery import celery

from keepmore.cli.main import cli as keepmore
from keepmore.jobs.step import Lane
from keepmore.spec.budget import parse_size

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "keepmore"
VALUES = ROOT / "tests" / "deploy" / "values"
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))

# The oldest that Chart.yaml admits, and the three newest.
KUBERNETES = ("1.31", "1.35", "1.36", "1.37")
RELEASE, NAMESPACE = "images", "vision"

OURS = {"api", "worker", "trainer", "beat", "bucket", "try"}
COMPONENT = "app.kubernetes.io/component"
CREDENTIALS = {
    "KEEPMORE_REDIS_URL", "KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY", "KEEPMORE_S3_SOURCES",
    "KEEPMORE_API_KEYS", "KEEPMORE_API_KEY", "KEEPMORE_WEBHOOK_SECRET",
    "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "REDISCLI_AUTH",
}  # fmt: skip
# What is not a setting of the service: the key of `helm test`'s caller, the trial's servers, a user's own.
OTHERS = {"KEEPMORE_API_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "REDISCLI_AUTH", "HOME", "SSL_CERT_FILE"}
PLAIN = {"KEEPMORE_SCRATCH_BYTES"}  # settings of one component alone, which are no secret

Object = dict[str, Any]


def _schema(required: str = "", **properties: Object) -> Object:
    return {"type": "object", "required": required.split(), "additionalProperties": False, "properties": properties}


STRING, INTEGER = {"type": "string"}, {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}
DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
TRIGGER = {  # by type: what KEDA 2.16's scalers take, of which these are always given
    "metrics-api": _schema(
        "url format valueLocation targetValue",
        **dict.fromkeys(("url", "valueLocation", "targetValue", "activationTargetValue", "unsafeSsl"), STRING),
        format={"enum": ["prometheus"]},
    ),
    "prometheus": _schema(
        "serverAddress query threshold ignoreNullValues",
        **dict.fromkeys(("serverAddress", "query", "threshold", "activationThreshold", "unsafeSsl"), STRING),
        ignoreNullValues={"enum": ["false"]},
    ),
}
FOREIGN = {
    # From keda.sh_scaledobjects of KEDA 2.16.1, without what the chart does not use.
    "ScaledObject": _schema(
        "scaleTargetRef triggers",
        scaleTargetRef=_schema("name", name=STRING, kind=STRING, apiVersion=STRING),
        **dict.fromkeys(("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"), INTEGER),
        advanced=_schema(
            horizontalPodAutoscalerConfig=_schema(
                behavior=_schema(scaleDown=_schema(stabilizationWindowSeconds={**INTEGER, "maximum": 3600}))
            )
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_schema("type metadata", type={"const": k}, metadata=v) for k, v in TRIGGER.items()]},
        },
    ),
    # From monitoring.coreos.com_servicemonitors of the Prometheus operator 0.84.1, likewise.
    "ServiceMonitor": _schema(
        "selector endpoints",
        selector=_schema(matchLabels=STRINGS),
        endpoints={
            "type": "array",
            "items": _schema(port=STRING, path=STRING, interval=DURATION, scrapeTimeout=DURATION),
        },
    ),
    # From monitoring.coreos.com_prometheusrules of the same, likewise.
    "PrometheusRule": _schema(
        "groups",
        groups={
            "type": "array",
            "items": _schema(
                "name rules",
                name=STRING,
                rules={
                    "type": "array",
                    "items": _schema(
                        "alert expr for labels annotations",
                        **dict.fromkeys(("alert", "expr"), STRING),
                        **{"for": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}},
                        **dict.fromkeys(("labels", "annotations"), STRINGS),
                    ),
                },
            ),
        },
    ),
}


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys} {node.start_mark}"
        return cast(dict[Any, Any], super().construct_mapping(node, deep))


def _component(document: Object) -> str:
    return cast(str, document["metadata"]["labels"].get(COMPONENT, ""))


@dataclass(frozen=True, slots=True)
class Pods:
    """What one object runs."""

    name: str
    owner: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The documents of one set of values."""

    name: str
    documents: tuple[Object, ...]

    def of(self, kind: str) -> dict[str, Object]:
        """The documents of a kind by their component."""
        return {_component(document): document for document in self.documents if document["kind"] == kind}

    @property
    def pods(self) -> list[Pods]:
        pods = []
        for document in self.documents:
            template = document if document["kind"] == "Pod" else document.get("spec", {}).get("template")
            if template:
                pods.append(Pods(_component(document), document, template["metadata"]["labels"], template["spec"]))
        return pods

    @property
    def containers(self) -> list[Object]:
        return [container for pods in self.pods for container in pods.containers]


Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    binary = Path(os.environ.get("HELM", ROOT / ".venv" / "tools" / "helm"))
    assert binary.is_file(), f"{binary} is missing: `make test` fetches it, HELM names another"
    return partial(_run, binary)


def _run(
    helm: Path, command: str, *options: str, values: str = "minimal", check: bool = True
) -> subprocess.CompletedProcess[str]:
    where = ("--namespace", NAMESPACE, "--values", VALUES / f"{values}.yaml")
    done = subprocess.run((helm, command, CHART, *where, *options), capture_output=True, text=True)
    assert not (check and done.returncode), done.stdout + done.stderr
    return done


def _template(helm: Helm, *options: str, values: str = "minimal") -> Rendered:
    text = helm("template", "--name-template", RELEASE, *options, values=values).stdout
    return Rendered(values, tuple(filter(None, yaml.load_all(text, _Strict))))


@pytest.fixture(scope="session", params=SETS)
def rendered(helm: Helm, request: pytest.FixtureRequest) -> Rendered:
    return _template(helm, values=request.param)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


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


def test_images_are_pinned(rendered: Rendered) -> None:
    """Else a pod that starts again tomorrow runs something else than its neighbours."""
    for container in rendered.containers:
        image = container["image"]
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        assert tag, image
        assert tag != "latest", image


def test_an_image_can_come_from_elsewhere_and_by_digest(helm: Helm) -> None:
    """Else a cluster without internet, or one that admits only digests, cannot run the service."""
    images = {container["name"]: container["image"] for container in _template(helm, values="open").containers}
    digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    assert images["api"] == "images.example.com/team/keepmore/api:0.1.0-2"
    assert images["worker"] == images["beat"] == f"images.example.com/team/keepmore/worker:0.1.0-2@{digest}"


def test_resources_are_bounded(rendered: Rendered) -> None:
    """Else one pod takes the memory of a node, and the scheduler puts pods where there is no room."""
    for container in rendered.containers:
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), container["name"]
        assert "memory" in container["resources"]["limits"], container["name"]
    for pods in rendered.pods:
        assert all("sizeLimit" in each["emptyDir"] for each in pods.spec["volumes"] if "emptyDir" in each), pods.name


def test_long_running_containers_have_probes(rendered: Rendered) -> None:
    """Else a process that hangs hangs for ever, and an update goes on before the new pods work."""
    for pods in rendered.pods:
        if pods.owner["kind"] != "Pod":
            for container in pods.spec["containers"]:
                assert {"livenessProbe", "readinessProbe"} <= set(container), container["name"]
                assert container["name"] not in OURS or "startupProbe" in container


def test_containers_may_do_no_more_than_they_need(rendered: Rendered) -> None:
    """Else namespaces with the restricted security standard refuse them, and a flaw in a decoder reaches further."""
    for pods in rendered.pods:
        context = pods.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pods.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
            if container["name"] in OURS:
                assert (context["runAsUser"], context["fsGroup"]) == (10001, 10001)


def test_no_pod_gets_what_it_did_not_ask_for(rendered: Rendered) -> None:
    """Else every pod holds a token for the cluster, and Services named keepmore become settings by accident."""
    for pods in rendered.pods:
        assert pods.spec["automountServiceAccountToken"] is False, pods.name
        assert pods.spec["enableServiceLinks"] is False, pods.name
    assert all(account["automountServiceAccountToken"] is False for account in rendered.of("ServiceAccount").values())


def test_credentials_come_from_secrets_alone(rendered: Rendered) -> None:
    """Else a password is readable in a Deployment, in the release's history and in whatever logs either."""
    assert not rendered.of("Secret")
    assert not CREDENTIALS & set(rendered.of("ConfigMap")["settings"]["data"])
    for container in rendered.containers:
        for variable in container["env"]:
            if variable["name"] in CREDENTIALS:
                assert set(variable) == {"name", "valueFrom"}
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
            else:
                assert variable["name"] in OTHERS | PLAIN, variable


def test_every_variable_is_a_documented_setting(rendered: Rendered) -> None:
    """Else a misspelled variable leaves the service with its default, and nobody is told."""
    table = (ROOT / "docs" / "service.md").read_text().partition("## Environment")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    documented = set(re.findall(r"(?:KEEPMORE|OTEL)_[A-Z0-9_]+", "".join(rows)))
    names = {variable["name"] for container in rendered.containers for variable in container["env"]}
    assert names | set(rendered.of("ConfigMap")["settings"]["data"]) <= documented | OTHERS


def test_each_process_gets_what_it_needs(rendered: Rendered) -> None:
    """Else the API starts without keys, or the worker that ends a job cannot call its webhook."""
    settings = rendered.of("ConfigMap")["settings"]
    keys = set() if "KEEPMORE_S3_ROLE" in settings["data"] else {"KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY"}
    for container in rendered.containers:
        names = {variable["name"] for variable in container["env"]}
        if container["name"] in OURS:
            assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
            assert names >= (keys if container["name"] == "try" else keys | {"KEEPMORE_REDIS_URL"})
        assert ("KEEPMORE_API_KEYS" in names) == (container["name"] in {"api", "bucket"})


def test_decoded_images_leave_room_on_the_trainers_disk(helm: Helm) -> None:
    """Else a fine-tuning fills its volume, and the pod is evicted in the middle of it, again and again."""
    pod = _template(helm).of("Deployment")["trainer"]["spec"]["template"]["spec"]
    (scratch,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "KEEPMORE_SCRATCH_BYTES"]
    (limit,) = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one["name"] == "tmp"]
    assert parse_size(scratch) + 10**9 <= parse_size(f"{limit}B")


def test_numbers_reach_the_service_as_they_were_written(helm: Helm) -> None:
    """Else twenty million becomes 2e+07, which the service refuses."""
    settings = _template(helm, values="sources").of("ConfigMap")["settings"]["data"]
    assert settings["KEEPMORE_MAX_BODY_BYTES"] == "20000000"
    assert settings["KEEPMORE_RECONCILE_S"] == "2.5"
    assert settings["KEEPMORE_ALLOWED_SOURCES"] == "s3://photos-kept/raw,s3://archive,https://images.example.com/"


def test_pods_change_with_the_settings_and_with_nothing_else(helm: Helm) -> None:
    """Else a changed setting is not in force, or every `helm upgrade` interrupts every training."""

    def templates(*options: str) -> list[Object]:
        return [deployment["spec"]["template"] for deployment in _template(helm, *options).of("Deployment").values()]

    before = templates()
    assert templates("--set", "api.replicas=5") == before
    after = templates("--set", "settings.logLevel=DEBUG")
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_commands_are_understood(rendered: Rendered) -> None:
    """Else a pod starts only to say that it knows no such option."""
    for container in rendered.containers:
        if container["name"] in OURS:
            match container["command"]:
                case ["celery", "--app=keepmore_worker.app", name, *options]:
                    _parse(celery.commands[name], options)
                case ["keepmore", name, *options]:
                    command = keepmore.get_command(click.Context(keepmore), name)
                    assert command, f"keepmore {name} is no command"
                    _parse(command, options)
                case ["python", "-m", module]:
                    assert importlib.util.find_spec(module), module
                case other:
                    pytest.fail(f"an unknown program: {other}")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container.get(probe, {}).get("exec", {}).get("command", [""])[0] == "python":
                assert importlib.util.find_spec(container[probe]["exec"]["command"][2])


def _parse(command: click.Command, options: list[str]) -> None:
    _, more, _ = command.make_parser(click.Context(command)).parse_args(options)
    assert not more


def test_every_lane_has_a_worker(helm: Helm) -> None:
    """Else jobs wait for ever for a step that nobody takes."""
    commands = [container.get("command", []) for container in _template(helm).containers]
    queues = [part.partition("=")[2] for command in commands for part in command if part.startswith("--queues=")]
    assert sorted(",".join(queues).split(",")) == sorted(lane.value for lane in Lane)


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


def test_one_clock(rendered: Rendered) -> None:
    """Else two clocks look after every job, during an update too."""
    beat = rendered.of("Deployment")["beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def test_updates_lose_no_step(rendered: Rendered) -> None:
    """Else an upgrade leaves callers without an API, or kills what a worker has half done."""
    for name, deployment in rendered.of("Deployment").items():
        spec = deployment["spec"]
        pod = spec["template"]["spec"]
        if name in {"api", "worker"}:
            assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        if name == "api":
            drain = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
            assert 5 <= drain <= pod["terminationGracePeriodSeconds"] - 10
        if name in {"worker", "trainer"}:
            assert pod["terminationGracePeriodSeconds"] >= {"worker": 120, "trainer": 600}[name]


def test_only_one_decides_how_many(rendered: Rendered) -> None:
    """Else `helm upgrade` sets a Deployment back to its replicas, and stops what an autoscaler had started."""
    deployments = rendered.of("Deployment")
    scaled = rendered.of("HorizontalPodAutoscaler") | rendered.of("ScaledObject")
    for name, document in scaled.items():
        assert document["spec"]["scaleTargetRef"]["name"] == deployments[name]["metadata"]["name"]
    assert {name for name, deployment in deployments.items() if "replicas" not in deployment["spec"]} == set(scaled)
    several = {name for name in ("api", "worker") if deployments[name]["spec"].get("replicas", 2) > 1}
    assert set(rendered.of("PodDisruptionBudget")) == several


@pytest.mark.parametrize("trigger", ["metrics-api", "prometheus"])
def test_work_brings_workers_and_only_its_end_takes_them_away(helm: Helm, trigger: str) -> None:
    """Else steps wait without a worker, or the last training is stopped because nothing waits behind it."""
    options = ("--set", f"keda.trigger={trigger}", "--set", "worker.concurrency=3")
    scaled = _template(helm, *options, values="everything").of("ScaledObject")
    for name, lanes in {"worker": {Lane.COMPRESS, Lane.CONTROL}, "trainer": {Lane.TRAINING}}.items():
        triggers = scaled[name]["spec"]["triggers"]
        assert {one["type"] for one in triggers} == {trigger}
        queries = [one["metadata"].get("valueLocation") or one["metadata"]["query"] for one in triggers]
        matches = [re.search(r'keepmore_steps_outstanding\{lane="(\w+)"', question) for question in queries]
        assert {match and match[1] for match in matches} == {lane.value for lane in lanes}
        target = {one["metadata"].get("targetValue") or one["metadata"]["threshold"] for one in triggers}
        assert target == ({"3"} if name == "worker" else {"1"})
    assert scaled["trainer"]["spec"]["minReplicaCount"] == 0
    assert scaled["worker"]["spec"]["minReplicaCount"] == 1


def test_a_gpu_is_asked_for(helm: Helm) -> None:
    """Else the trainer lands on a node without one, or without the right to use it."""
    spec = _template(helm, values="gpu").of("Deployment")["trainer"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 2}
    assert (spec["runtimeClassName"], spec["nodeSelector"]) == ("nvidia", {"example.com/pool": "gpu"})
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "torch-weights"}} in spec["volumes"]


def test_policies_shut_what_nobody_opened(rendered: Rendered) -> None:
    """Else any pod of the cluster reaches Redis, whose messages workers obey."""
    policies = rendered.of("NetworkPolicy")
    if rendered.name == "open":
        assert not policies
        return
    default = policies.pop("default")["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(default)
    assert all(_selects(default["podSelector"], pods.labels) for pods in rendered.pods)
    reachable = {name for name, policy in policies.items() if "Ingress" in policy["spec"]["policyTypes"]}
    assert reachable == ({"api", "redis", "minio"} if rendered.name == "trial" else {"api"})
    for name in reachable:
        (rule,) = policies[name]["spec"]["ingress"]
        (port,) = rule["ports"]
        assert port["port"] == {"api": 8000, "redis": 6379, "minio": 9000}[name]
        if name != "api":
            (peer,) = rule["from"]
            assert set(peer) == {"podSelector"}
            assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == RELEASE


def test_policies_leave_the_ways_open_that_the_service_needs(rendered: Rendered) -> None:
    """Else the service cannot reach its store, its Redis or the names of either, and says only that nothing answers."""
    policies = rendered.of("NetworkPolicy")
    if not policies:
        return
    ours = [pods for pods in rendered.pods if pods.labels[COMPONENT] in OURS]
    assert all(_selects(policies["egress"]["spec"]["podSelector"], pods.labels) for pods in ours)
    ports = {port["port"] for rule in policies["egress"]["spec"]["egress"] for port in rule["ports"]}
    store = {"trial": 9000, "sources": 9443}.get(rendered.name, 443)
    assert {53, 6379, 443, store} <= ports
    (caller,) = (pods for pods in ours if pods.name == "try")
    assert _selects(policies["try"]["spec"]["podSelector"], caller.labels)
    peers = policies["api"]["spec"]["ingress"][0]["from"]
    assert any(_selects(peer["podSelector"], caller.labels) for peer in peers if "podSelector" in peer)


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


def test_a_cloud_role_takes_the_place_of_keys(helm: Helm) -> None:
    """Else a pod waits for keys in a Secret that nobody has, or asks without credentials."""
    rendered = _template(helm, values="role")
    assert rendered.of("ConfigMap")["settings"]["data"]["KEEPMORE_S3_ROLE"] == "1"
    names = {variable["name"] for container in rendered.containers for variable in container["env"]}
    assert not names & {"KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY"}
    (account,) = rendered.of("ServiceAccount").values()
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
