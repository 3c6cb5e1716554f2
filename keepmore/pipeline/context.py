"""What a step works with beside its job and the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keepmore.codec import version as codec_version
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression.batch import BatchEncoder
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import Summary
from keepmore.compression.listing import Listing
from keepmore.config import RuntimeConfig
from keepmore.errors import JobNotReady
from keepmore.jobs.job import Job
from keepmore.jobs.webhooks import Notifier
from keepmore.net.access import Access
from keepmore.progress import Report
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import Trainer, load_trainer


@dataclass(slots=True)
class StepContext:
    """What a process adds to the steps that it runs. `isolate`: trust no decoder, because a worker died on this
    step."""

    decoder: IsolatedDecoder
    report: Report
    access: Access = field(default_factory=Access)
    isolate: bool = False
    trainer: Callable[[str], Trainer] = load_trainer
    notify: Notifier = field(default_factory=lambda: Notifier(None, private_addresses=False))
    scratch: Scratch = field(default_factory=Scratch)

    @staticmethod
    def at(config: RuntimeConfig, decoder: IsolatedDecoder, report: Report, isolate: bool = False) -> StepContext:
        notify = Notifier(config.webhook_secret, config.access.private_addresses)
        return StepContext(decoder, report, config.access, isolate, notify=notify, scratch=config.scratch)

    def encoder(self, job: Job, store: Store) -> BatchEncoder:
        return BatchEncoder(store, job.request.effort, job.request.limits, self.access, self.isolate, self.report)

    def compressor(self, job: Job, store: Store) -> Compressor:
        request = job.request
        return Compressor(
            store, request.compressed, request.effort, request.limits, self.decoder, self.access, self.isolate
        )


def read_listing(job: Job, store: Store) -> Listing:
    """The job's listing. Raises JobNotReady where objects would get other names, or other bytes, than those that the
    job began with."""
    listing = Listing.read(store, job.id)
    if listing.codec != codec_version.codec():
        raise JobNotReady(
            f"job {job.id} began with the codec {listing.codec} and {codec_version.codec()} is installed now; "
            "one job cannot mix them: install the former again and resume, or start a new job"
        )
    return listing


def read_summary(job: Job, store: Store) -> Summary:
    return Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
