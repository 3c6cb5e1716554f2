"""The work behind an estimate: lists a dataset, encodes a sample of it, and keeps nothing but the figures."""

from __future__ import annotations

import json
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.compressor import Compressor
from keepmore.datasets.entry import Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import DatasetNotFound
from keepmore.estimation.estimate import estimate
from keepmore.net.access import Access
from keepmore.progress import Report
from keepmore.spec.estimate import EstimateRequest
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import Asked


def answer(store: Store, name: str, access: Access, decoder: IsolatedDecoder, report: Report) -> bytes:
    """Do the work behind a question that was asked."""
    question = EstimateRequest.from_json(json.loads(store.get(layout.request(Asked.ESTIMATE, name, name))))
    return json.dumps(estimated(question, access, decoder, report), indent=1).encode()


def estimated(question: EstimateRequest, access: Access, decoder: IsolatedDecoder, report: Report) -> dict[str, Any]:
    """The estimate for `question`; what it encodes is kept nowhere. Raises DatasetError."""
    skipped = Skipped()
    entries = list_images(question.dataset, skipped, access)
    first = next(entries, None)
    if first is None:
        raise DatasetNotFound(
            f"dataset {question.dataset}: holds no image (skipped: {dict(skipped) or 'nothing'}); check the path"
        )
    with tempfile.TemporaryDirectory() as folder:
        compressor = Compressor(
            FolderStore(Path(folder)), question.distances, question.effort, question.limits, decoder, access
        )
        found = estimate(
            chain([first], entries),
            question.distances,
            question.budget,
            question.selection,
            lambda rows: compressor.chunk(rows, report),
            question.images,
            question.seed,
        )
    return {"request": question.as_json(), "skipped": dict(sorted(skipped.items())), **found}
