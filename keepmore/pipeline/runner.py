"""Doing a step: what each kind reads from the store, calls, and writes back."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from keepmore.advice import pilots
from keepmore.codec import version as codec_version
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import chunking, codec_check, index, merge
from keepmore.compression.batch import BatchEncoder
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import Summary
from keepmore.config import RuntimeConfig
from keepmore.errors import Cancelled, InternalError, JobNotReady, KeepmoreError
from keepmore.jobs import webhooks
from keepmore.jobs.graph import Kind, Step
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import advice_request, is_wanted, subset_request
from keepmore.jobs.webhooks import Notifier
from keepmore.net.access import Access
from keepmore.pipeline import estimate as estimate_step
from keepmore.pipeline.training import TrainingSteps
from keepmore.progress import METADATA, Progress, Report
from keepmore.selection import fit, select
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import Trainer, load_trainer


@dataclass(slots=True)
class StepContext:
    """What a process that runs steps adds to them. `isolate`: trust no decoder, because a worker died on this step."""

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

    def lesson(self, job: Job, name: str, store: Store) -> TrainingSteps:
        return TrainingSteps.of(job, name, store, self.access, self.scratch, self.report)


def run_step(step: Step, store: Store, context: StepContext) -> None:
    """Do one step unless its output exists. Any number of processes may do it at once: they write the same bytes.

    Raises Cancelled if nobody waits for it any more.
    """
    if step.kind is Kind.ESTIMATE:
        if not store.exists(step.output):
            store.put(
                step.output, estimate_step.answer(store, step.job, context.access, context.decoder, context.report)
            )
        return
    job = JobRepository(store).get(step.job)
    if step.kind is Kind.NOTIFY:
        if webhooks.is_due(job, store):
            store.put(step.output, context.notify(job, store))
    elif not store.exists(step.output):
        if not is_wanted(step, job, store):
            raise Cancelled(f"job {job.id} is {job.state}: nobody waits for the step {step}")
        # Of two listings the first counts: chunks of another one may hold other images.
        write = store.create if step.kind is Kind.LIST else store.put
        write(step.output, _RUN[step.kind](job, step, store, context))


def attempt(step: Step, store: Store, context: StepContext) -> None:
    """`run_step`, whose every failure is a KeepmoreError: what else it raises becomes an InternalError."""
    try:
        run_step(step, store, context)
    except (KeepmoreError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        raise InternalError(f"step {step.kind} {step.part}:\n{traceback.format_exc()}") from error


def _list(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    made = chunking.write_listing(store, job.id, job.request, context.access, lambda: context.report(Progress()))
    return _json(made | {"codec": codec_version.codec()})


def _check(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listed = _listed(job, store)
    chunks = [layout.chunk(job.id, listed["listing"], number) for number in codec_check.spread(listed["chunks"])]
    return _json(codec_check.run(store, chunks, _compressor(job, store, context), job.request.distances))


def _compress(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listed = _listed(job, store)
    rows = index.read_chunk(store.get(layout.chunk(job.id, listed["listing"], int(step.part))))
    total = Progress()

    def report(progress: Progress) -> None:
        nonlocal total
        total += progress
        context.report(progress)

    table = _compressor(job, store, context).chunk(rows, report)
    return index.to_parquet(table.replace_schema_metadata({METADATA: json.dumps(asdict(total)).encode()}))


def _listed(job: Job, store: Store) -> dict[str, Any]:
    """The job's listing. Raises JobNotReady where objects would get other names, or other bytes, than those that the
    job began with."""
    listed: dict[str, Any] = json.loads(store.get(layout.listing(job.id)))
    if listed["codec"] != codec_version.codec():
        raise JobNotReady(
            f"job {job.id} began with the codec {listed['codec']} and {codec_version.codec()} is installed now; "
            "one job cannot mix them: install the former again and resume, or start a new job"
        )
    return listed


def _compressor(job: Job, store: Store, context: StepContext) -> Compressor:
    request = job.request
    return Compressor(
        store, request.compressed, request.effort, request.limits, context.decoder, context.access, context.isolate
    )


def _index(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listed = json.loads(store.get(layout.listing(job.id)))
    parts = [layout.part(job.id, number) for number in range(listed["chunks"])]
    summary = merge.merge(
        store, parts, listed["splits"], job.request.compressed, layout.index(job.id), layout.evaluation(job.id)
    )
    return _json(summary.as_json())


def _fit(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    _listed(job, store)
    name, variant = step.part.split("/")
    budget, selection = subset_request(job, name, store)
    job.request.check_budget(budget)
    (wanted,) = (rule for rule in job.request.fits if rule.name == variant)
    limit = budget.bytes(_summary(job, store).pool_bytes) if budget else 0  # there is one: that was checked
    return fit.find(context.encoder(job, store), layout.index(job.id), wanted, limit, selection)


def _select(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    _listed(job, store)
    request = job.request
    budget, selection = subset_request(job, step.part, store)
    asked = select.SubsetRequest(request.distances, request.effort, budget, selection, request.rules)
    return _json(select.write_subsets(store, job.id, step.part, asked, _summary(job, store)).as_json())


def _summary(job: Job, store: Store) -> Summary:
    return Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))


def _features(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    name, part = step.part.split("/")
    lesson = context.lesson(job, name, store)
    return _json(lesson.features(part, context.trainer(lesson.training.method)).as_json())


def _tune(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    name, variant, seed = step.part.split("/")
    lesson = context.lesson(job, name, store)
    return lesson.tune(variant, int(seed), context.trainer(lesson.training.method)).as_bytes()


def _train(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    name, variant = step.part.split("/")
    lesson = context.lesson(job, name, store)
    return _json(lesson.results(variant, context.trainer(lesson.training.method)).as_json())


def _compare(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    return _json(context.lesson(job, step.part, store).comparison(job.request.variants).as_json())


def _pilot(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    _listed(job, store)
    question = advice_request(job, step.part, store)
    table = pilots.encode(context.encoder(job, store), store, job.id, question, job.request.selection.seed)
    return index.to_parquet(table)


def _advise(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    _listed(job, store)
    # Imported here because no other step needs SciPy, Matplotlib and 100 MB.
    from keepmore.pipeline import advice as advice_step

    question = advice_request(job, step.part, store)
    trainer = context.trainer(question.training.method)
    adviser = advice_step.Adviser(job, store, context.access, context.scratch, context.report, trainer)
    return _json(adviser.advise(question, step.part).as_json())


def _report(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    _listed(job, store)
    # Imported here because matplotlib would cost every worker of every kind 40 MB.
    from keepmore.reporting import figures, report

    result = figures.figures(job, store)
    store.put(layout.report_page(job.id), report.page(job, store, result, context.access).encode())
    return _json(result.as_json())


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


_RUN: dict[Kind, Callable[[Job, Step, Store, StepContext], bytes]] = {
    Kind.LIST: _list,
    Kind.CHECK: _check,
    Kind.COMPRESS: _compress,
    Kind.INDEX: _index,
    Kind.FIT: _fit,
    Kind.SELECT: _select,
    Kind.FEATURES: _features,
    Kind.TUNE: _tune,
    Kind.TRAIN: _train,
    Kind.COMPARE: _compare,
    Kind.PILOT: _pilot,
    Kind.ADVISE: _advise,
    Kind.REPORT: _report,
}
