"""Which of several forms of an answer a caller prefers."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from keepmore_api.problems import Refused


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The media type of `offered` that the Accept header prefers; of equals the first. Raises Refused with 406.

    RFC 9110, section 12.5.1: for each type on offer its most specific range decides.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    weights = [
        max(((_fit(kind, media), q) for kind, q in ranges if _fit(kind, media)), default=(0, 0.0)) for media in offered
    ]
    best = max(range(len(offered)), key=lambda number: (weights[number][1], -number))
    if weights[best][1] <= 0:
        detail = f"Accept: {accept} fits none of {', '.join(offered)}; ask for one of these"
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", detail)
    return offered[best]


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return kind.lower(), min(1.0, max(0.0, float(value)))
            except ValueError:
                return kind.lower(), 0.0
    return kind.lower(), 1.0


def _fit(kind: str, media: str) -> int:
    """How specific the range `kind` is for `media`: 3 the type itself, 2 its family, 1 anything, 0 does not fit."""
    if kind == media:
        return 3
    if kind == media.split("/")[0] + "/*":
        return 2
    return 1 if kind == "*/*" else 0
