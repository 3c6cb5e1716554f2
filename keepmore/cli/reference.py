"""How a command names a manifest of a job."""

from __future__ import annotations

from keepmore.spec import variants as variant_specs
from keepmore.spec.job import OWN


def parse_reference(reference: str) -> tuple[str, str, str] | None:
    """Job, subset ("own" where none is named) and variant of JOB/VARIANT or JOB/SUBSET/VARIANT; None for others."""
    job, *subset, name = parts if len(parts := reference.split("/")) in (2, 3) else ("", "", "")
    variant = variant_specs.variant(name)
    return (job, subset[0] if subset else OWN, variant) if job and variant else None
