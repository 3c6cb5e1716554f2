"""The configuration of a process that runs steps: where the store is, what it may read, how it signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from keepmore.datasets.address import absolute_uri
from keepmore.errors import InvalidRequest, PackageMissing
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.open import open_store
from keepmore.storage.scratch import Scratch


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Plain data, so that it can be handed to another process. `place`: a folder, or s3://bucket/prefix."""

    place: str
    access: Access = field(default_factory=Access)
    webhook_secret: str | None = field(default=None, repr=False)
    scratch: Scratch = field(default_factory=Scratch)

    def store(self) -> Store:
        return open_store(self.place, self.access)

    def check_source(self, field: str, uri: str) -> None:
        """Check that the URI in the request's `field` may be read. Raises what `Access.check` raises, naming the
        field."""
        try:
            self.access.check(uri)
        except InvalidRequest as error:
            raise type(error)(error.reason, field=field, **error.details) from error

    def check_training(self, training: Training | None) -> None:
        """Check that the weights that `training` names may be read. Raises as `check_source` does."""
        if training and training.weights_uri:
            self.check_source("training.weights", training.weights_uri)

    def check_dataset(self, field: str, uri: str) -> None:
        """Check that the dataset at `uri`, the request's `field`, may be read and does not overlap with the store.

        Raises what `Access.check` raises, and InvalidRequest for a dataset whose listing would find encoded images:
        deleting its originals would delete them.
        """
        self.check_source(field, uri)
        place, dataset = absolute_uri(self.place).rstrip("/"), uris.parse(uri)
        if uris.covers(uri, uris.parse(place)) or any(uris.covers(f"{place}/{part}", dataset) for part in layout.TOP):
            raise InvalidRequest(
                f"the store {self.place} lies in the dataset {uri}, or the other way round, and its listing "
                "would find encoded images; name places that are apart",
                field=field,
            )


@contextmanager
def packages_of(extra: str) -> Iterator[None]:
    """Around imports of what an extra of this package installs. Raises PackageMissing, which says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        purpose = _PURPOSES[extra]
        raise PackageMissing(f"{error.name} is not installed; {purpose}: `pip install 'keepmore[{extra}]'`") from error


_PURPOSES = {
    "local": "work on this machine needs it (a client of a service does not, nor an API with workers elsewhere)",
    "api": "the HTTP API needs it",
}
