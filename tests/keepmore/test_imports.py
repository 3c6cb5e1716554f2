"""What importing costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def _packages(*parts: str) -> list[set[str]]:
    """What one process has loaded once it has imported each of these parts after the other."""
    tell = "print(*{name.split('.')[0] for name in sys.modules})"
    program = "import sys\n" + "\n".join(f"import {part}\n{tell}" for part in parts)
    environ = os.environ | {"KEEPMORE_REDIS_URL": "redis://127.0.0.1:1/0", "KEEPMORE_STORE": "/nowhere"}
    process = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    return [set(line.split()) for line in process.stdout.splitlines()]


def test_only_the_trainer_imports_torch() -> None:
    """Else every worker pays seconds and hundreds of megabytes for a library that it never uses."""
    others = (
        "keepmore, keepmore.cli.main, keepmore.scheduling.queue, keepmore.jobs.graph, keepmore.reporting.report, "
        "keepmore_api.commands, keepmore_worker.app"
    )
    before, after = _packages(others, "keepmore_trainer.finetune_trainer")
    assert not {"torch", "torchvision"} & before
    assert "torch" in after


def test_who_only_asks_needs_nothing_that_does_the_steps() -> None:
    """Else the API of a distributed service and a client of it fail where only they are installed."""
    who = (
        "keepmore.cli.main, keepmore.client, keepmore.cli.remote, keepmore_api.commands, "
        "keepmore_services.broker.celery_queue, keepmore_services.broker.redis_tracker"
    )
    asking, doing = _packages(who, "keepmore.cli.local, keepmore_api.backend.embedded")
    assert not {"PIL", "pillow_jxl", "jinja2", "matplotlib"} & asking
    assert {"PIL", "pillow_jxl"} <= doing


@pytest.mark.parametrize("words", ["run photos", "verify a.parquet", "sample new", "show", "serve --port 0"])
def test_a_command_that_lacks_a_package_says_what_to_install(words: str, tmp_path: Path) -> None:
    """Else whoever installed only a client gets a traceback."""
    program = (
        f"import sys; sys.modules['PIL'] = None; sys.argv = ['keepmore', *{words.split()}]; "
        "from keepmore.cli.entry import main; main()"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (process.returncode, "Traceback" in process.stderr) == (1, False)
    assert "PIL is not installed" in process.stderr
    assert "pip install 'keepmore[local]'" in process.stderr


def test_decisions_need_no_heavy_library() -> None:
    """Else asking what is ready, or what fits, needs an image codec."""
    (packages,) = _packages("keepmore.spec.budget, keepmore.storage.layout, keepmore.spec.job, keepmore.jobs.job")
    assert not {"PIL", "pillow_jxl", "pyarrow", "matplotlib", "torch", "click"} & packages


def test_records_of_results_need_no_heavy_library() -> None:
    """Else whoever shows a result waits for what computed it, or lacks it."""
    modules = "selection.subset", "selection.manifest", "estimation.answer", "advice.answer", "training.results"
    (packages,) = _packages(", ".join(f"keepmore.{module}" for module in modules))
    assert not {"PIL", "pillow_jxl", "matplotlib", "scipy", "torch", "jinja2"} & packages


def test_only_who_reads_s3_imports_its_client() -> None:
    """Else every command waits for a library that a folder does not need."""
    others = "keepmore.net.access, keepmore.storage.open, keepmore.datasets.listing, keepmore.cli.main"
    before, after = _packages(others, "keepmore.net.s3")
    assert "minio" not in before
    assert "minio" in after
