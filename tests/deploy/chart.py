"""The chart as helm renders it: its documents, and the pods that they run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from tests.deploy.kubernetes_schemas import Object

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "keepmore"
VALUES = ROOT / "tests" / "deploy" / "values"
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))

RELEASE, NAMESPACE = "images", "vision"

OURS = {"api", "worker", "trainer", "beat", "bucket", "try"}
COMPONENT = "app.kubernetes.io/component"


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


def run_helm(
    helm: Path, command: str, *options: str, values: str = "minimal", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of helm on the chart, with a set of values."""
    where = ("--namespace", NAMESPACE, "--values", VALUES / f"{values}.yaml")
    done = subprocess.run((helm, command, CHART, *where, *options), capture_output=True, text=True)
    assert not (check and done.returncode), done.stdout + done.stderr
    return done


def template(helm: Helm, *options: str, values: str = "minimal") -> Rendered:
    """The chart with a set of values and more options."""
    text = helm("template", "--name-template", RELEASE, *options, values=values).stdout
    return Rendered(values, tuple(filter(None, yaml.load_all(text, _Strict))))


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a selector of Kubernetes selects what has these labels."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())
