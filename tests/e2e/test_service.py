"""The distributed service as it runs in production: real Redis and S3 servers, the API, workers, a trainer, beat."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks.webhooks import Webhook

from keepmore.errors import Cancelled, KeepmoreError, PilotsInsufficient
from keepmore.storage import layout
from keepmore.storage.s3 import S3Store
from tests.conftest import digests, installed_command
from tests.e2e.conftest import WEBHOOK_SECRET
from tests.e2e.jobs import MANY, REQUEST, WORDS, answer, ends, starts, until, wait_until_compressing
from tests.servers import serving
from tests.service import Service, embedded, upload
from tests.tools import BIN


@pytest.mark.parametrize("photographs", ["some_clothing", pytest.param("clothing", marks=pytest.mark.long)])
def test_a_job_over_s3_ends_with_the_manifests_of_a_run_on_this_machine(
    photographs: str, request: pytest.FixtureRequest, tmp_path: Path, service: Service
) -> None:
    """Else moving to the service changes which images are kept; or the service is not a service."""
    clothing: Path = request.getfixturevalue(photographs)
    here = answer(
        installed_command(tmp_path / "store"),
        *("run", str(clothing / "train"), "--distances", "0,10", "--budget", "as:10*0.5"),
        *("--evaluate", str(clothing / "test")),
    )
    options = {"distances": [0, 10], "budget": {"as_distance": 10, "fraction": 0.5}}
    train, test = (upload(service, clothing / name, f"{photographs}/{name}") for name in ("train", "test"))
    training = {"model": "mobilenet_v2", "seeds": 2}
    body = {"dataset": train, "evaluation": {"dataset": test}, "training": training, **options}
    stages: list[str | None] = []
    job = service.client.start(body)["job"]
    ended = service.client.wait(job, lambda status: stages.append(status["stage"]), timeout_s=300)
    report = service.client.report(job)
    assert digests(report) == digests(here)
    assert report["index"] == here["index"]
    images = len(list(clothing.rglob("*.jpg")))
    assert ended["images"] == {"listed": images, "done": images, "failed": 0}
    assert {"compress", "train"} <= set(stages)
    assert report["distances"][1]["factor"] > 2
    assert 0.5 < report["distances"][0]["top1"] < 1
    with embedded(tmp_path / "serve") as local:
        body = {"dataset": (clothing / "train").as_uri(), "evaluation": {"dataset": (clothing / "test").as_uri()}}
        job = local.client.start(body | options)["job"]
        local.client.wait(job, timeout_s=300)
        assert digests(local.client.report(job)) == digests(here)


def test_a_small_job_behind_a_huge_one_finishes_soon_and_cancel_takes_seconds(
    service: Service, dataset: str, large: str
) -> None:
    """Else one team's archive blocks everybody for a week, and cannot be stopped."""
    huge = service.client.start({"dataset": large, "distances": MANY})["job"]
    wait_until_compressing(service.client, huge)
    small = service.client.start({"dataset": dataset, "distances": [6, 12]})["job"]
    service.client.wait(small, timeout_s=120)
    counts = service.client.job(huge)["images"]
    assert counts is not None
    assert counts["done"] < counts["listed"] / 2
    service.client.cancel(huge)
    assert service.client.job(huge)["state"] == "cancelled"
    time.sleep(5)
    before = service.client.job(huge)["images"]
    time.sleep(5)
    assert service.client.job(huge)["images"] == before
    for name in ("worker-0", "worker-1"):
        assert len(starts(service, name, huge)) == len(ends(service, name, huge)), "no worker is at the job any more"
    with pytest.raises(Cancelled):
        service.client.wait(huge)


def test_a_cancelled_job_goes_on_when_it_is_retried(
    service: Service, dataset: str, undisturbed: dict[str, str]
) -> None:
    """Else cancelling by mistake costs all that was done."""
    job = service.client.start({"dataset": dataset, **REQUEST, "selection": {"seed": 0}})["job"]
    service.client.cancel(job)
    assert service.client.retry(job)["state"] == "accepted"
    service.client.wait(job, timeout_s=120)
    assert digests(service.client.report(job)) == undisturbed


def test_another_subset_and_training_of_a_finished_job(service: Service, dataset: str) -> None:
    """Else a second question costs a second job."""
    client = service.client
    job = client.start({"dataset": dataset, **REQUEST})["job"]
    client.wait(job, timeout_s=120)
    subset = client.select(job, "200kB", {"order": "smallest", "balance": False})
    assert all(row["bytes"] <= 200_000 for row in subset["distances"].values())
    rows = list(client.manifest(job, "10", subset["subset"]))
    assert (len(rows), sum(row["bytes"] for row in rows)) == (
        subset["distances"]["10"]["images"],
        subset["distances"]["10"]["bytes"],
    )
    training = client.train(job, {"model": "mobilenet_v2", "seeds": 1, "steps": 30}, subset["subset"])
    while training["state"] == "running":
        time.sleep(0.2)
        training = client.training(job, training["training"])
    assert training["state"] == "succeeded", training
    assert [result["train_images"] for result in training["distances"].values()] == [
        row["images"] for row in subset["distances"].values()
    ]
    failed = client.train(job, {"model": "no_such_model"})
    while failed["state"] == "running":
        time.sleep(0.2)
        failed = client.training(job, failed["training"])
    assert failed["error"] is not None
    assert failed["error"]["code"] == "unknown_model"
    assert client.job(job)["state"] == "succeeded"


@pytest.mark.alone
def test_an_estimate_comes_back_in_seconds(service: Service, dataset: str) -> None:
    """Else deciding whether a job is worth starting costs the job."""
    started_at = time.monotonic()
    estimate: Any = service.client.estimate({"dataset": dataset, "distances": [0, 10], "budget": "300kB", "images": 24})
    assert time.monotonic() - started_at < 20
    job = service.client.start({"dataset": dataset, "distances": [0, 10], "budget": "300kB"})["job"]
    truth = service.client.wait(job, timeout_s=120)["index"]["pool_bytes"]["10"]
    guess = estimate["distances"]["10"]["bytes"]
    assert guess["low"] <= guess["expected"] <= guess["high"]
    assert guess["expected"] == pytest.approx(truth, rel=0.25)


def test_every_command_gives_the_same_by_way_of_the_service(
    service: Service, dataset: str, sample: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """Else moving from a terminal to the service means learning another tool."""
    command = installed_command(tmp_path / "store")
    there = ("--server", service.url, "--api-key", service.api_key or "")
    here_run = answer(command, "run", str(sample / "train"), *WORDS)
    there_run = answer(command, "run", dataset, *WORDS, *there)
    assert digests(there_run) == digests(here_run) == undisturbed
    assert there_run.keys() == here_run.keys()
    jobs = (here_run["job"], ()), (there_run["job"], there)
    views = [answer(command, "show", job, *where) for job, where in jobs]
    assert views[0].keys() | {"links"} == views[1].keys()
    assert views[0]["images"] == views[1]["images"]
    subsets = [answer(command, "select", job, "--budget", "200kB", *where) for job, where in jobs]
    assert digests(subsets[0]) == digests(subsets[1])
    exports = []
    for job, where in jobs:
        out = tmp_path / f"{job}.csv"
        assert command("export", f"{job}/10", str(out), *where).returncode == 0
        exports.append([line.split(",")[0] for line in out.read_text().splitlines()])
        assert command("errors", job, *where).stdout == ""
    assert exports[0] == exports[1]
    all_jobs: Any = answer(command, "show", *there)
    assert any(job["id"] == there_run["job"] for job in all_jobs)
    resumed = answer(command, "resume", there_run["job"], *there)
    assert digests(resumed) == undisturbed
    refused = command("show", there_run["job"], "--server", service.url, "--api-key", "km_wrong")
    assert refused.returncode == 1
    assert "this API key is not known" in refused.stderr


def test_rules_give_the_same_through_the_service(service: Service, dataset: str, sample: Path, tmp_path: Path) -> None:
    """Else workers over S3 give an image another distance than one machine does, or nobody does their steps."""
    command = installed_command(tmp_path / "store")
    words = ("--distances", "4,spread:0.5-15,fit:12", "--budget", "150kB")
    there = ("--server", service.url, "--api-key", service.api_key or "")
    here_run = answer(command, "run", str(sample / "train"), *words)
    there_run = answer(command, "run", dataset, *words, *there)
    assert digests(there_run) == digests(here_run)
    subsets = [
        answer(command, "select", run["job"], "--budget", "130kB", *where)
        for run, where in ((here_run, ()), (there_run, there))
    ]
    assert digests(subsets[0]) == digests(subsets[1])
    exports = []
    for run, where in ((here_run, ()), (there_run, there)):
        for variant in ("spread-0.5-15", "fit-12"):
            out = tmp_path / f"{run['job']}-{variant}.csv"
            assert command("export", f"{run['job']}/{variant}", str(out), *where).returncode == 0
            exports.append([line.split(",")[0] for line in out.read_text().splitlines()])
    assert exports[:2] == exports[2:]


@dataclass
class _Receiver:
    """Takes webhooks at `url`: headers and body of each."""

    url: str
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def _receiver(first_status: int) -> Iterator[_Receiver]:
    """Answers the first call with `first_status`, and takes the others."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(first_status if len(receiver.calls) == 1 else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    with serving(Handler) as url:
        receiver = _Receiver(f"{url}/hook")
        yield receiver


def test_a_webhook_is_signed_and_repeated_until_it_is_taken(service: Service, dataset: str) -> None:
    """Else a pipeline never hears that its job ended, or believes anybody who says so."""
    with _receiver(first_status=500) as receiver:
        job = service.client.start({"dataset": dataset, "distances": [4], "webhook": receiver.url})["job"]
        service.client.wait(job, timeout_s=120)
        until(lambda: len(receiver.calls) == 2)
        time.sleep(1)
    assert len(receiver.calls) == 2
    for headers, body in receiver.calls:
        event: Any = Webhook(WEBHOOK_SECRET).verify(body, headers)
        assert event["type"] == "job.succeeded"
        assert event["data"]["job"] == job
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1


def test_a_cancelled_job_is_reported_and_still_answers(service: Service, dataset: str) -> None:
    """Else its workers spin, its caller never hears of the end, and an index that is there cannot be asked."""
    with _receiver(first_status=204) as receiver:
        training = {"model": "mobilenet_v2", "weights": "none"}
        request = {"dataset": dataset, **REQUEST, "training": training, "webhook": receiver.url}
        job = service.client.start(request)["job"]
        until(lambda: service.client.job(job)["stage"] == "train")
        assert service.client.cancel(job)["state"] == "cancelled"
        until(lambda: bool(receiver.calls))
        assert service.client.select(job, "200kB")["distances"]
        assert service.s3 is not None
        store = S3Store(service.s3.endpoint, service.s3.bucket, "store")
        until(lambda: not store.exists(layout.active(job)))  # from then on nobody looks after it
        assert service.client.job(job)["state"] == "cancelled"
    assert [json.loads(body)["type"] for _, body in receiver.calls] == ["job.cancelled"]


def test_logs_and_metrics_tell_what_the_workers_did(service: Service, dataset: str) -> None:
    """Else nobody knows why a job is slow, or that it is."""
    job = service.client.start({"dataset": dataset, "distances": [3]})["job"]
    service.client.wait(job, timeout_s=120)
    lines = [line for name in ("worker-0", "worker-1") for line in service.log(name).splitlines() if job in line]
    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"compress", "list", "report"} <= {record["step"].split(":")[0] for record in records}
    assert all(record["job"] == job for record in records)
    exposed = service.client._ask("GET", "/metrics").data.decode()
    samples = {sample.name: sample for family in text_string_to_metric_families(exposed) for sample in family.samples}
    totals = ("steps", "images", "bytes_in", "bytes_out", "encode_seconds", "requests")
    assert {f"keepmore_{name}_total" for name in totals} <= set(samples)
    assert {"keepmore_step_seconds_bucket", "keepmore_queue_age_seconds"} <= set(samples)
    lanes = {line.split(" ")[0] for line in exposed.splitlines() if line.startswith("keepmore_steps_outstanding{")}
    assert lanes == {f'keepmore_steps_outstanding{{lane="{lane}"}}' for lane in ("control", "compress", "training")}
    assert samples["keepmore_compress_processes"].value == 2


def test_a_deployment_is_tried_with_a_small_job(service: Service) -> None:
    """Else nobody knows whether a deployment works before the first real job fails on it."""
    assert service.s3 is not None
    command = [str(BIN / "keepmore"), "try", "--server", service.url, "--dataset", f"s3://{service.s3.bucket}/trial"]
    settings = {**service.environment, "KEEPMORE_API_KEY": str(service.api_key)}
    done = subprocess.run([*command, "--json"], env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["index"]["compressed"] == 32
    trial_store = S3Store(service.s3.endpoint, service.s3.bucket, "trial")
    assert list(trial_store.keys("")) == [], "what was drawn for it is deleted"


def test_files_of_the_machine_are_out_of_reach(service: Service) -> None:
    """Else whoever may post a job may read the disks of the workers."""
    for uri in ("file:///etc", "http://example.org/x.tar"):
        with pytest.raises(KeepmoreError, match="KEEPMORE_ALLOWED_SOURCES") as refused:
            service.client.start({"dataset": uri, "distances": [4]})
        assert refused.value.code == "source_not_allowed"


def test_an_unlabelled_job_cannot_be_trained_on(service: Service, sample: Path) -> None:
    """Else a training fails on the trainer after an hour, and says only that it did."""
    flat = sample / "train" / sorted(path.name for path in (sample / "train").iterdir())[0]
    dataset = upload(service, flat, "flat")
    job = service.client.start({"dataset": dataset, "distances": [4]})["job"]
    service.client.wait(job, timeout_s=120)
    with pytest.raises(KeepmoreError, match="has a label") as refused:
        service.client.train(job, {"model": "mobilenet_v2"})
    assert refused.value.code == "not_trainable"


def test_advice_is_made_by_workers_and_trainer_and_its_refusal_comes_back(service: Service, dataset: str) -> None:
    """Else advice works on one machine alone, or a caller of the service waits for ever where there can be none."""
    client = service.client
    job = client.start({**REQUEST, "dataset": dataset})["job"]
    client.wait(job, timeout_s=120)
    with pytest.raises(PilotsInsufficient, match="they were tested on 8 images; test on 50 or more"):
        client.advise(job, {"budgets": ["1MB"], "distances": [0, 4, 8]})
    assert client.job(job)["state"] == "succeeded", "a question that fails is no failure of the job"
