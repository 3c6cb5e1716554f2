"""Self-contained HTML pages: one look for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jinja2


def render(template: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """Render `template`, one of the package's own, with `values`; the page needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keepmore.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"json": partial(json.dumps, indent=1, ensure_ascii=False)}
    environment.filters |= {"percent": percent, "ends": ends, **filters}
    return environment.get_template(template).render(**values)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def ends(interval: Sequence[float]) -> str:
    """An interval of shares."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
