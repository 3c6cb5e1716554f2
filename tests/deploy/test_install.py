"""What an installation puts beside a user's own packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import distributed, upload
from tests.tools import ROOT

OURS = {"keepmore", "keepmore_api", "keepmore_services", "keepmore_trainer", "keepmore_worker"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pip install .` put everything into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("keepmore", "services"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_an_installation_holds_our_packages_and_their_pages_and_nothing_else(installed: Path) -> None:
    """Else an installation hides a user's own package called `services`, or lacks the report's template."""
    packages = {path.name for path in installed.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")}
    assert packages - {"bin"} == OURS
    assert {path.name for path in installed.rglob("*.html")} == {"advice.html", "page.html", "report.html"}
    assert (installed / "keepmore" / "py.typed").is_file()


def test_workers_run_beside_a_package_called_services(installed: Path, sample: Path, tmp_path: Path) -> None:
    """Else whoever has a package `services` of their own cannot run ours from there, or loses theirs."""
    project = tmp_path / "project"
    (project / "services").mkdir(parents=True)
    (project / "services" / "__init__.py").write_text("OWNER = 'the user'\n")
    with distributed(project, workers=1, PYTHONPATH=str(installed)) as service:
        job = service.client.start({"dataset": upload(service, sample / "test", "photos"), "distances": [0, 10]})
        assert service.client.wait(job["job"], timeout_s=120)["state"] == "succeeded"
        program = "import services, keepmore_worker; print(services.OWNER, keepmore_worker.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=project, env=service.environment, capture_output=True, text=True
        )
    assert done.stdout.split()[:2] == ["the", "user"]
    assert str(installed) in done.stdout
