"""How files and packages may depend on each other."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("keepmore", "keepmore_api", "keepmore_services", "keepmore_trainer", "keepmore_worker", "benchmarks")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, at its top or in a function."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def _package(module: str) -> str:
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "keepmore" else names[0]


def test_no_files_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    """Else a file cannot be read, tested or moved without the others."""
    assert len(list(TopologicalSorter(imports).static_order())) > 200


def test_no_packages_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    """Else a change of one package can break any other."""
    packages: dict[str, set[str]] = {}
    for module, others in imports.items():
        packages.setdefault(_package(module), set()).update(map(_package, others))
    for name, others in packages.items():
        others.discard(name)
    assert len(list(TopologicalSorter(packages).static_order())) > 15


def test_few_modules_stand_outside_packages() -> None:
    """Else whoever looks for a file has to read a list."""
    modules = sorted(path.name for path in (ROOT / "keepmore").glob("*.py"))
    assert len(modules) <= 8, modules
