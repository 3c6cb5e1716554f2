"""The chart's pods: their images, commands, resources, probes and rights."""

from __future__ import annotations

import importlib.util

import click
import pytest
from celery.bin.celery import celery

from keepmore.cli.main import cli as keepmore
from keepmore.spec.budget import parse_size
from tests.deploy.chart import OURS, Helm, Rendered
from tests.deploy.chart import template as _template


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


def test_decoded_images_leave_room_on_the_trainers_disk(helm: Helm) -> None:
    """Else a fine-tuning fills its volume, and the pod is evicted in the middle of it, again and again."""
    pod = _template(helm).of("Deployment")["trainer"]["spec"]["template"]["spec"]
    (scratch,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "KEEPMORE_SCRATCH_BYTES"]
    (limit,) = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one["name"] == "tmp"]
    assert parse_size(scratch) + 10**9 <= parse_size(f"{limit}B")


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


def test_a_gpu_is_asked_for(helm: Helm) -> None:
    """Else the trainer lands on a node without one, or without the right to use it."""
    spec = _template(helm, values="gpu").of("Deployment")["trainer"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 2}
    assert (spec["runtimeClassName"], spec["nodeSelector"]) == ("nvidia", {"example.com/pool": "gpu"})
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "torch-weights"}} in spec["volumes"]
