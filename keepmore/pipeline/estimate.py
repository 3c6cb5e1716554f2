"""The estimate step: lists a dataset, encodes a sample of it, and stores the figures alone."""

from __future__ import annotations

import json
import tempfile
from itertools import chain
from pathlib import Path

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.compressor import Compressor
from keepmore.datasets.entry import Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import DatasetNotFound
from keepmore.estimation.answer import EstimateAnswer
from keepmore.estimation.estimate import estimate as estimate_pool
from keepmore.jobs.requests import estimate_request
from keepmore.net.access import Access
from keepmore.progress import Report
from keepmore.spec.estimate import EstimateRequest
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore


def answer(store: Store, name: str, access: Access, decoder: IsolatedDecoder, report: Report) -> bytes:
    """The JSON that answers the request `name`."""
    estimate = estimate_dataset(estimate_request(name, store), access, decoder, report)
    return json.dumps(estimate.as_json(), indent=1).encode()


def estimate_dataset(
    request: EstimateRequest, access: Access, decoder: IsolatedDecoder, report: Report
) -> EstimateAnswer:
    """The estimate that `request` asks for; its encodings are not kept. Raises DatasetError."""
    skipped = Skipped()
    entries = list_images(request.dataset, skipped, access)
    first = next(entries, None)
    if first is None:
        raise DatasetNotFound(f"dataset {request.dataset}: holds no image (skipped: {skipped}); check the path")
    with tempfile.TemporaryDirectory() as folder:
        compressor = Compressor(
            FolderStore(Path(folder)), request.distances, request.effort, request.limits, decoder, access
        )
        estimate = estimate_pool(
            chain([first], entries),
            request.distances,
            request.budget,
            request.selection,
            lambda rows: compressor.chunk(rows, report),
            request.images,
            request.seed,
        )
    return EstimateAnswer(request, dict(sorted(skipped.items())), estimate)
