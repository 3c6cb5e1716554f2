"""The dashboard: whether its panels can be read, and show every metric."""

from __future__ import annotations

import re
from collections import Counter

import promql_parser as promql

from tests.deploy.monitoring import Dashboard, Metrics, panels, queries, selectors


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
