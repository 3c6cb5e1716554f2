"""A distributed service for each file of tests that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import digests, installed_command
from tests.e2e.jobs import WORDS, answer
from tests.service import Service, distributed, upload

WEBHOOK_SECRET = "whsec_" + "c2VjcmV0IHRoYXQgaXMgb25seSBmb3IgdGVzdHM="


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("distributed")
    settings = {"KEEPMORE_WEBHOOK_SECRET": WEBHOOK_SECRET, "KEEPMORE_PRIVATE_ADDRESSES": "1"}
    with distributed(folder, workers=2, trainer=True, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def dataset(service: Service, sample: Path) -> str:
    return upload(service, sample / "train", "sample")


@pytest.fixture(scope="module")
def large(service: Service, sample: Path) -> str:
    """480 images, all different: a job over them with many distances takes minutes."""
    return upload(service, sample / "train", "large", copies=10)


@pytest.fixture(scope="module")
def undisturbed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests that `keepmore run` gives for the same images in a folder."""
    command = installed_command(tmp_path_factory.mktemp("undisturbed") / "store")
    return digests(answer(command, "run", str(sample / "train"), *WORDS))
