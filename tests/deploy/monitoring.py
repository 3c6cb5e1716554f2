"""The alerts, the dashboard and the expressions in both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "helm" / "keepmore" / "monitoring"
ALERTS = MONITORING / "alerts.yaml"

# What Prometheus adds to every series.
TARGET = {"namespace", "job", "instance"}

Metrics = dict[str, frozenset[str]]
Dashboard = dict[str, Any]


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


def alternatives(pattern: str) -> list[str]:
    """The values that a pattern such as a/(b|c) or a|b stands for, `[{]` being a brace."""
    plain = pattern.replace("[{]", "{").replace("[}]", "}")
    if match := re.fullmatch(r"(.*\|)?([^|()]*)\(([^()]*)\)", plain):
        before, stem, ends = match.groups()
        return [*filter(None, (before or "").split("|")), *(stem + end for end in ends.split("|"))]
    return plain.split("|")
