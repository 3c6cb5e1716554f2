"""The chart's Deployments: how many pods each runs, and how an update replaces them."""

from __future__ import annotations

import re

import pytest

from keepmore.jobs.step import Lane
from tests.deploy.chart import Helm, Rendered
from tests.deploy.chart import template as _template


def test_every_lane_has_a_worker(helm: Helm) -> None:
    """Else jobs wait for ever for a step that nobody takes."""
    commands = [container.get("command", []) for container in _template(helm).containers]
    queues = [part.partition("=")[2] for command in commands for part in command if part.startswith("--queues=")]
    assert sorted(",".join(queues).split(",")) == sorted(lane.value for lane in Lane)


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
