"""The alerts and their runbook: whether they fire when they should, and say what to do.

Prometheus' own promtool runs the alerts over made-up series, where `make test` found one (Debian carries it).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import promql_parser as promql
import pytest
import yaml
from fastapi import FastAPI

from tests.deploy.monitoring import ALERTS, ROOT, TARGET, alerts, selectors
from tests.deploy.monitoring import alternatives as _alternatives

RUNBOOK = "docs/operations.md"
PROMTOOL = Path(os.environ.get("PROMTOOL", ROOT / ".venv" / "tools" / "promtool"))


def test_a_slow_api_is_no_long_poll(api: FastAPI) -> None:
    """Else whoever waits for a job, as the documentation says, wakes somebody up."""
    (slow,) = (alert for alert in alerts() if alert.name == "KeepmoreApiSlow")
    (selector,) = selectors(promql.parse(slow.expr))
    matchers = {matcher.name: matcher.value for matcher in selector.matchers}
    for route in _alternatives(matchers["route"]):
        call = api.openapi()["paths"][route][matchers["method"].lower()]
        assert "wait" not in {parameter["name"] for parameter in call.get("parameters", [])}, route
    assert "wait" in str(api.openapi()["paths"]["/v1/jobs/{job_id}"]["get"]["parameters"])


def test_an_alert_says_how_bad_it_is_and_what_to_do() -> None:
    """Else whoever is woken up knows nothing but a name."""
    assert len(alerts()) >= 12
    assert len({alert.name for alert in alerts()}) == len(alerts())
    for alert in alerts():
        assert alert.severity in {"critical", "warning"}, alert.name
        assert alert.lasts <= timedelta(hours=1), alert.name
        assert set(alert.annotations) == {"summary", "description", "runbook_url"}, alert.name
        assert alert.annotations["runbook_url"] == f"{RUNBOOK}#{alert.name.lower()}"


def test_alerts_name_labels_that_they_have() -> None:
    """Else the text of an alert has gaps where it should say which lane, code or process it is about."""
    for alert in alerts():
        labels = set(re.findall(r"\$labels\.(\w+)", " ".join(alert.annotations.values())))
        all_selectors = list(selectors(promql.parse(alert.expr)))
        group_labels = frozenset().union(*(by for one in all_selectors for _, by in one.within[-1:]))
        assert labels <= group_labels | TARGET, alert.name


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    """Else the link in an alert leads to the top of a page, or a page tells of an alert that never comes."""
    runbook = (ROOT / RUNBOOK).read_text().partition("\n## Runbook\n")[2].partition("\n## ")[0]
    entries = re.findall(r"^### (\w+)$", runbook, re.MULTILINE)
    assert sorted(entries) == sorted(alert.name for alert in alerts())
    for entry in re.split(r"^### ", runbook, flags=re.MULTILINE)[1:]:
        name = entry.partition("\n")[0]
        assert all(f"**{part}:**" in entry for part in ("Means", "Users lose", "Look", "Do")), name
        assert "docker compose" in entry, name
        assert "kubectl" in entry, name


# Series of two API processes, a sample a minute; `{}` is filled with the labels of each. What they report of all
# workers is the same. 0+60x120: grows by 60 a minute for two hours.
HEALTHY = {
    "up{{{}}}": "1x1600",
    'keepmore_build_info{{version="0.1.0",{}}}': "1x1600",
    "keepmore_queue_up{{{}}}": "1x1600",
    "keepmore_compress_processes{{{}}}": "4x1600",
    'keepmore_steps_outstanding{{lane="compress",{}}}': "50x1600",
    'keepmore_steps_outstanding{{lane="control",{}}}': "1x1600",
    'keepmore_steps_outstanding{{lane="training",{}}}': "6x1600",
    'keepmore_queue_age_seconds{{lane="control",{}}}': "2x1600",
    'keepmore_queue_age_seconds{{lane="compress",{}}}': "20x1600",
    'keepmore_queue_age_seconds{{lane="training",{}}}': "4000x1600",
    'keepmore_steps_total{{kind="compress",outcome="done",{}}}': "0+16x1600",
    'keepmore_steps_total{{kind="train",outcome="done",{}}}': "0+1x1600",
    'keepmore_images_total{{kind="compress",{}}}': "0+5000x1600",
    'keepmore_images_failed_total{{code="unreadable_image",{}}}': "0+50x1600",
    'keepmore_failures_total{{code="worker_lost",kind="compress",{}}}': "3x1600",
    'keepmore_failures_total{{code="dataset_not_found",kind="list",{}}}': "0+1x1600",
    'keepmore_delays_total{{code="store_unavailable",kind="compress",{}}}': "7x1600",
    "keepmore_redis_errors_total{{{}}}": "12x1600",
    'keepmore_requests_total{{method="GET",route="/v1/jobs/{{job_id}}",status="200",{}}}': "0+600x1600",
    'keepmore_requests_total{{method="GET",route="/readyz",status="200",{}}}': "0+6x1600",
    'keepmore_request_seconds_bucket{{method="POST",route="/v1/jobs",le="2.5",{}}}': "0+10x1600",
    'keepmore_request_seconds_bucket{{method="POST",route="/v1/jobs",le="5.0",{}}}': "0+10x1600",
    'keepmore_request_seconds_bucket{{method="POST",route="/v1/jobs",le="+Inf",{}}}': "0+10x1600",
}
PROCESSES = tuple(f'job="keepmore",instance="api-{number}:8000"' for number in range(2))
DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Scenario:
    """What differs from a healthy service, after how many minutes somebody looks, and which alerts fire then."""

    series: dict[str, str]
    minutes: int
    firing: tuple[str, ...] = ()


def series_that_end(*names: str) -> dict[str, str]:
    """The series of these metrics (all: of none) end after ten minutes."""
    return {
        series: values.replace("x1600", "x10") + " _x1600"
        for series, values in HEALTHY.items()
        if not names or series.startswith(names)
    }


NO_STEPS = {'keepmore_steps_total{{kind="compress",outcome="done",{}}}': "900x1600"}
SCENARIOS = {
    "all is well": Scenario({}, 120),
    "all is well for a day": Scenario({}, DAY + 60),
    "nothing has ever run": Scenario(dict.fromkeys(HEALTHY, "_x1600"), 30, ("KeepmoreAbsent",)),
    "no process answers": Scenario(
        {**series_that_end(), "up{{{}}}": "1x10 0x1600"}, 60, ("KeepmoreAbsent", "KeepmoreApiDown", "KeepmoreApiDown")
    ),
    "store out of reach": Scenario(
        {'keepmore_requests_total{{method="GET",route="/readyz",status="503",{}}}': "0+6x1600"},
        60,
        ("KeepmoreApiNotReady", "KeepmoreApiNotReady"),
    ),
    "Redis out of reach": Scenario(
        {
            **series_that_end("keepmore_steps", "keepmore_queue_age", "keepmore_compress"),
            "keepmore_queue_up{{{}}}": "1x10 0x1600",
        },
        60,
        ("KeepmoreQueueDown",),
    ),
    "no worker": Scenario(
        {**NO_STEPS, "keepmore_compress_processes{{{}}}": "0x1600"}, 60, ("KeepmoreNoCompressProcess",)
    ),
    "workers hang": Scenario(NO_STEPS, 60, ("KeepmoreCompressStuck",)),
    "workers hang since their first step": Scenario(
        {'keepmore_steps_total{{kind="compress",outcome="done",{}}}': "_x1600"}, 60, ("KeepmoreCompressStuck",)
    ),
    "one step a quarter of an hour": Scenario(
        {'keepmore_steps_total{{kind="compress",outcome="done",{}}}': "0x14 1x14 2x14 3x14 4x1600"}, 60
    ),
    "a trainer that starts from nothing": Scenario(
        {
            'keepmore_steps_outstanding{{lane="training",{}}}': "0x60 6x1600",
            'keepmore_steps_total{{kind="train",outcome="done",{}}}': "0x80 0+1x1600",
        },
        150,
    ),
    "a trainer that never starts": Scenario(
        {'keepmore_steps_total{{kind="train",outcome="done",{}}}': "_x1600"}, 90, ("KeepmoreTrainingStuck",)
    ),
    "a fine-tuning of several hours": Scenario(
        {
            'keepmore_steps_total{{kind="train",outcome="done",{}}}': "0x1600",
            'keepmore_steps_total{{kind="features",outcome="done",{}}}': "_x10 1x1600",
            'keepmore_steps_total{{kind="tune",outcome="handed_on",{}}}': "_x74 1x64 2x64 3x64 4x64 5x1600",
        },
        330,
    ),
    "a fine-tuning that no trainer goes on with": Scenario(
        {
            'keepmore_steps_total{{kind="train",outcome="done",{}}}': "0x1600",
            'keepmore_steps_total{{kind="tune",outcome="handed_on",{}}}': "_x74 1x64 2x1600",
        },
        330,
        ("KeepmoreTrainingStuck",),
    ),
    "nobody takes the lane control": Scenario(
        {'keepmore_queue_age_seconds{{lane="control",{}}}': "0+60x1600"}, 60, ("KeepmoreQueueOld",)
    ),
    "a code fails again": Scenario(
        {'keepmore_failures_total{{code="worker_lost",kind="compress",{}}}': "3x50 4x1600"}, 60, ("KeepmoreStepsFail",)
    ),
    "a code fails for the first time": Scenario(
        {'keepmore_failures_total{{code="store_full",kind="index",{}}}': "_x50 1x1600"}, 60, ("KeepmoreStepsFail",)
    ),
    "a failure of yesterday": Scenario(
        {'keepmore_failures_total{{code="store_full",kind="index",{}}}': "_x50 1x1600"}, 120
    ),
    "Prometheus begins to look": Scenario({series: f"_x50 {values}" for series, values in HEALTHY.items()}, 60),
    "a mistake of a caller": Scenario(
        {'keepmore_failures_total{{code="budget_too_small",kind="select",{}}}': "_x50 1x1600"}, 60
    ),
    "the store does not answer workers": Scenario(
        {'keepmore_delays_total{{code="store_unavailable",kind="compress",{}}}': "0+2x1600"},
        60,
        ("KeepmoreStepsPutOff",),
    ),
    "a bad dataset": Scenario(
        {'keepmore_images_failed_total{{code="unreadable_image",{}}}': f"0x{DAY} 900000x1600"},
        DAY + 60,
        ("KeepmoreImagesFail",),
    ),
    "a bad dataset, with a new code": Scenario(
        {'keepmore_images_failed_total{{code="too_many_pixels",{}}}': f"_x{DAY} 900000x1600"},
        DAY + 60,
        ("KeepmoreImagesFail",),
    ),
    "evaluation images in the pool": Scenario(
        {'keepmore_images_failed_total{{code="evaluation_image",{}}}': f"0x{DAY} 900000x1600"}, DAY + 60
    ),
    "Redis comes and goes": Scenario({"keepmore_redis_errors_total{{{}}}": "0+3x1600"}, 60, ("KeepmoreRedisErrors",)),
    "Redis was flushed": Scenario(
        {
            series: values.replace("x1600", "x50") + " 0x1600"
            for series, values in HEALTHY.items()
            if "_total" in series and "requests" not in series and "steps" not in series
        },
        70,
    ),
    "errors of the API": Scenario(
        {'keepmore_requests_total{{method="POST",route="/v1/jobs",status="503",{}}}': "0+60x1600"},
        60,
        ("KeepmoreApiErrors",),
    ),
    "a dataset's server is away": Scenario(
        {'keepmore_requests_total{{method="POST",route="/v1/estimates",status="502",{}}}': "0+60x1600"}, 60
    ),
    "slow answers": Scenario(
        {'keepmore_request_seconds_bucket{{method="POST",route="/v1/jobs",le="2.5",{}}}': "0+5x1600"},
        60,
        ("KeepmoreApiSlow",),
    ),
}


def test_every_alert_fires_in_a_scenario() -> None:
    """Else an alert is there that nobody has ever seen fire."""
    assert {name for scenario in SCENARIOS.values() for name in scenario.firing} == {alert.name for alert in alerts()}


@pytest.mark.skipif(not PROMTOOL.is_file(), reason="no promtool: `make test` takes it from Debian's package prometheus")
@pytest.mark.parametrize("name", SCENARIOS)
def test_alerts_fire_when_they_should_and_not_otherwise(name: str, tmp_path: Path) -> None:
    """Else somebody is woken up for nothing, or sleeps while jobs stand still."""
    scenario = SCENARIOS[name]
    series = [
        {"series": name.format(labels), "values": values}
        for name, values in {**HEALTHY, **scenario.series}.items()
        for labels in PROCESSES
    ]
    firing = [{"labels": f'{{alertname="{alert}"}}', "value": n} for alert, n in Counter(scenario.firing).items()]
    question = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{scenario.minutes}m",
        "exp_samples": firing,
    }
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [question]}]
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
