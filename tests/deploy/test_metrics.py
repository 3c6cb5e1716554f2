"""The service's metrics: whether dashboard, alerts and documentation speak of those that there are."""

from __future__ import annotations

import re

import promql_parser as promql
from fastapi import FastAPI

from keepmore import errors
from keepmore.jobs.step import Kind, Lane
from tests.deploy.monitoring import ROOT, TARGET, Dashboard, Metrics, queries, selectors
from tests.deploy.monitoring import alternatives as _alternatives

# Prometheus' own metric.
UP = {"up": frozenset[str]()}
# Each API process counts these for itself; of all others it reports what all of them report.
OWN = re.compile("keepmore_(requests_total|request_seconds_.*|problems_total|build_info)")
# Codes of images and of requests that no error class has.
MORE_CODES = {"evaluation_image", "unexpected"}


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


def test_totals_of_all_workers_are_not_added_up_over_api_processes(dashboard: Dashboard) -> None:
    """Else two API processes show twice the images, and an alert compares twice the failures."""
    for query in queries(dashboard):
        for selector in selectors(promql.parse(query)):
            innermost = selector.within[0][0] if selector.within else "nothing"
            if OWN.fullmatch(selector.name) or selector.name == "up":
                assert innermost in {"sum", "count", "nothing"}, query
            else:
                assert innermost in {"max", "nothing"}, query


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
