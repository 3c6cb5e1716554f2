"""What importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


MODULES = [
    "keepmore", "keepmore.cli.main", "keepmore.scheduling.queue", "keepmore.jobs.graph", "keepmore.reporting.report",
    "keepmore_api.commands", "keepmore_worker.app",
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_only_the_trainer_imports_torch(module: str) -> None:
    """Else every worker pays seconds and hundreds of megabytes for a library that it never uses."""
    assert not {"torch", "torchvision"} & _loaded(f"import {module}")
    assert "torch" in _loaded("import keepmore_trainer.finetune_trainer")


@pytest.mark.parametrize(
    "module", ["keepmore.cli.main", "keepmore.client", "keepmore.cli.remote", "keepmore_api.commands"]
)
def test_who_only_asks_needs_nothing_that_does_the_steps(module: str) -> None:
    """Else the API of a distributed service and a client of it fail where only they are installed."""
    loaded = _loaded(f"import {module}, keepmore_services.broker.celery_queue, keepmore_services.broker.redis_tracker")
    assert not {"PIL", "pillow_jxl", "jinja2", "matplotlib"} & loaded
    assert {"PIL", "pillow_jxl"} <= _loaded("import keepmore.cli.local, keepmore_api.backend.embedded")


@pytest.mark.parametrize("words", ["run photos", "verify a.parquet", "sample new", "show", "serve --port 0"])
def test_a_command_that_lacks_a_package_says_what_to_install(words: str, tmp_path: Path) -> None:
    """Else whoever installed only a client gets a traceback."""
    program = (
        f"import sys; sys.modules['PIL'] = None; sys.argv = ['keepmore', *{words.split()}]; "
        "from keepmore.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "PIL is not installed" in done.stderr
    assert "pip install 'keepmore[local]'" in done.stderr


def test_decisions_need_no_heavy_library() -> None:
    """Else asking what is ready, or what fits, needs an image codec."""
    loaded = _loaded("import keepmore.spec.budget, keepmore.storage.layout, keepmore.spec.job, keepmore.jobs.job")
    assert not {"PIL", "pillow_jxl", "pyarrow", "matplotlib", "torch", "click"} & loaded


def test_records_of_results_need_no_heavy_library() -> None:
    """Else whoever shows a result waits for what computed it, or lacks it."""
    modules = "selection.subset", "selection.manifest", "estimation.answer", "advice.answer", "training.results"
    loaded = _loaded("\n".join(f"import keepmore.{module}" for module in modules))
    assert not {"PIL", "pillow_jxl", "matplotlib", "scipy", "torch", "jinja2"} & loaded


@pytest.mark.parametrize(
    "module", ["keepmore.net.access", "keepmore.storage.open", "keepmore.datasets.listing", "keepmore.cli.main"]
)
def test_only_who_reads_s3_imports_its_client(module: str) -> None:
    """Else every command waits for a library that a folder does not need."""
    assert "minio" not in _loaded(f"import {module}")
    assert "minio" in _loaded("import keepmore.net.s3")
