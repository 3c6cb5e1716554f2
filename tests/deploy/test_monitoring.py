"""The dashboard, the alerts and their runbook: whether they speak of metrics that there are, and say what they mean.

Prometheus' own promtool runs the alerts over made-up series, where `make test` found one (Debian carries it).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import promql_parser as promql
import pytest
import yaml
from fastapi import FastAPI
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from keepmore import errors
from keepmore.compression.index import Summary
from keepmore.jobs.step import Kind, Lane, Step
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.metrics import total
from keepmore_api.app import create_app
from keepmore_api.auth import Gate
from keepmore_api.backend.embedded import Embedded
from keepmore_api.metrics import Meter
from keepmore_services.settings import load

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "helm" / "keepmore" / "monitoring"
ALERTS = MONITORING / "alerts.yaml"
RUNBOOK = "docs/operations.md"
PROMTOOL = Path(os.environ.get("PROMTOOL", ROOT / ".venv" / "tools" / "promtool"))

# What Prometheus adds to every series, and its own metric.
TARGET = {"namespace", "job", "instance"}
UP = {"up": frozenset[str]()}
# Each API process counts these for itself; of all others it reports what all of them report.
OWN = re.compile("keepmore_(requests_total|request_seconds_.*|problems_total|build_info)")
# Codes of images and of requests that no error class has.
MORE_CODES = {"evaluation_image", "unexpected"}

Metrics = dict[str, frozenset[str]]
Dashboard = dict[str, Any]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An API process that has counted one of everything."""
    backend = Embedded(load(store=str(tmp_path_factory.mktemp("store")), processes=1))
    step = Step("job", Kind.COMPRESS, chunk=0)
    backend.tracker.counters.count(metrics.of_step(step, "done", Progress(1, 1, 1, 1, 1.0), 2.0))
    backend.tracker.counters.count(metrics.of_failure(step, "worker_lost"))
    backend.tracker.counters.count(metrics.of_delay(step, "store_unavailable"))
    backend.tracker.counters.count(
        metrics.of_index(Summary(pool_bytes={0.0: 2, 4.0: 1}, errors={"unreadable_image": 1}))
    )
    backend.tracker.counters.count({total("redis_errors"): 1.0})
    app = create_app(backend, Gate(()), 1000, local_only=True)
    meter: Meter = app.state.meter
    meter.requests.labels("GET", "/v1/jobs", "200").inc()
    meter.seconds.labels("GET", "/v1/jobs").observe(0.1)
    meter.problems.labels("no_such_page").inc()
    return app


@pytest.fixture(scope="module")
def exposed(api: FastAPI) -> Metrics:
    """Every series' name and labels."""
    families = text_string_to_metric_families(generate_latest(api.state.meter.registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {one.name: frozenset(one.labels) for one in samples if not one.name.endswith("_created")}


@pytest.fixture(scope="module")
def dashboard() -> Dashboard:
    return cast(Dashboard, json.loads((MONITORING / "dashboard.json").read_text()))


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    expr: str
    lasts: timedelta
    severity: str
    annotations: dict[str, str]


def alerts() -> list[Alert]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return [
        Alert(
            rule["alert"],
            rule["expr"],
            promql.parse_duration(rule["for"]),
            rule["labels"]["severity"],
            rule["annotations"],
        )
        for rule in group["rules"]
    ]


def panels(dashboard: Dashboard) -> list[Dashboard]:
    """All panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: Dashboard) -> list[str]:
    """Every expression of the dashboard, with its variables filled in, and of the alerts."""
    expressions = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    panel_queries = [re.sub(r"\$__(rate_)?interval", "5m", expr).replace("$namespace", ".*") for expr in expressions]
    return [expr.replace("$job", "keepmore") for expr in panel_queries] + [alert.expr for alert in alerts()]


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector of an expression, and the aggregations that it lies in, innermost first: what they do, by what."""

    name: str
    matchers: tuple[promql.Matcher, ...]
    within: tuple[tuple[str, frozenset[str]], ...]


def selectors(expr: Any, within: tuple[tuple[str, frozenset[str]], ...] = ()) -> Iterator[Selector]:
    """All selectors of a parsed expression."""
    match expr:
        case promql.VectorSelector():
            yield Selector(str(expr.name), tuple(expr.matchers.matchers), within)
        case promql.MatrixSelector():
            yield from selectors(expr.vector_selector, within)
        case promql.AggregateExpr():
            labels = frozenset(expr.modifier.labels) if expr.modifier else frozenset[str]()
            yield from selectors(expr.expr, ((str(expr.op), labels), *within))
        case promql.Call():
            for argument in expr.args:
                yield from selectors(argument, within)
        case promql.BinaryExpr():
            yield from selectors(expr.lhs, within)
            yield from selectors(expr.rhs, within)
        case promql.ParenExpr():
            yield from selectors(expr.expr, within)
        case promql.NumberLiteral():
            return
        case other:
            raise AssertionError(f"{type(other).__name__}: teach this test to look into it")


def test_expressions_ask_for_what_there_is(exposed: Metrics, dashboard: Dashboard) -> None:
    """Else a panel is empty and an alert silent for ever, and nobody is told which."""
    for query in queries(dashboard):
        for selector in selectors(promql.parse(query)):
            labels = {**exposed, **UP}[selector.name] | TARGET
            assert {matcher.name for matcher in selector.matchers} <= labels, query
            group_labels = frozenset().union(*(by for _, by in selector.within))
            assert group_labels <= labels, query


def test_expressions_ask_for_values_that_there_are(api: FastAPI, dashboard: Dashboard) -> None:
    """Else an alert waits for a lane, a code or a route that was renamed."""
    routes = set(api.openapi()["paths"])
    allowed = {"lane": {lane.value for lane in Lane}, "kind": {kind.value for kind in Kind}, "route": routes}
    for query in queries(dashboard):
        for selector in selectors(promql.parse(query)):
            for matcher in selector.matchers:
                for value in _alternatives(matcher.value):
                    if matcher.name == "code":
                        assert errors.is_known(value) or value in MORE_CODES, value
                    elif matcher.name in allowed:
                        assert value in allowed[matcher.name], value


def _alternatives(pattern: str) -> list[str]:
    """The values that a pattern such as a/(b|c) or a|b stands for, `[{]` being a brace."""
    plain = pattern.replace("[{]", "{").replace("[}]", "}")
    if match := re.fullmatch(r"(.*\|)?([^|()]*)\(([^()]*)\)", plain):
        before, stem, ends = match.groups()
        return [*filter(None, (before or "").split("|")), *(stem + end for end in ends.split("|"))]
    return plain.split("|")


def test_totals_of_all_workers_are_not_added_up_over_api_processes(dashboard: Dashboard) -> None:
    """Else two API processes show twice the images, and an alert compares twice the failures."""
    for query in queries(dashboard):
        for selector in selectors(promql.parse(query)):
            innermost = selector.within[0][0] if selector.within else "nothing"
            if OWN.fullmatch(selector.name) or selector.name == "up":
                assert innermost in {"sum", "count", "nothing"}, query
            else:
                assert innermost in {"max", "nothing"}, query


def test_a_slow_api_is_no_long_poll(api: FastAPI) -> None:
    """Else whoever waits for a job, as the documentation says, wakes somebody up."""
    (slow,) = (alert for alert in alerts() if alert.name == "KeepmoreApiSlow")
    (selector,) = selectors(promql.parse(slow.expr))
    matchers = {matcher.name: matcher.value for matcher in selector.matchers}
    for route in _alternatives(matchers["route"]):
        call = api.openapi()["paths"][route][matchers["method"].lower()]
        assert "wait" not in {parameter["name"] for parameter in call.get("parameters", [])}, route
    assert "wait" in str(api.openapi()["paths"]["/v1/jobs/{job_id}"]["get"]["parameters"])


def test_the_table_of_metrics_is_what_the_service_exposes(exposed: Metrics) -> None:
    """Else an operator writes queries for metrics that do not exist, and never hears of those that do."""
    section = (ROOT / "docs" / "api.md").read_text().partition("\n## Health and metrics\n")[2]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `keepmore_")]
    documented = {}
    for names, labels, _ in rows:
        for name in re.findall("`(.+?)`", names):
            documented[name] = frozenset(re.findall("`(.+?)`", re.sub(r"\(.*?\)", "", labels)))
    actual = {re.sub("_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in exposed.items()}
    assert documented == actual


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


def test_panels_can_be_told_apart_and_read(dashboard: Dashboard) -> None:
    """Else Grafana mixes up two panels, or shows lines that nobody can name and numbers without a unit."""
    identities = Counter(panel["id"] for panel in dashboard["panels"])
    assert set(identities.values()) == {1}
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0, panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_legends_name_labels_that_their_series_have(dashboard: Dashboard) -> None:
    """Else every line of a panel has the same name."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            text = re.sub(r"\[\$__\w+\]", "[5m]", target["expr"])
            outermost = [one.within[-1][1] for one in selectors(promql.parse(text)) if one.within]
            assert all(labels == by - {"le"} for by in outermost), panel["title"]


def test_panels_lie_beside_each_other(dashboard: Dashboard) -> None:
    """Else one hides another."""
    cells: Counter[tuple[int, int]] = Counter()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            cells.update((x, y) for y in range(place["y"], place["y"] + place["h"]))
    assert set(cells.values()) == {1}


def test_the_dashboard_covers_every_metric(exposed: Metrics, dashboard: Dashboard) -> None:
    """Else something is counted that nobody can see without writing a query."""
    names = {selector.name for query in queries(dashboard) for selector in selectors(promql.parse(query))}
    base_names = {re.sub("_(bucket|sum|count)$", "", name) for name in names}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in exposed} <= base_names


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
