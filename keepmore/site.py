"""What a process has to be told before it can do steps: where the store is, what it may read, how it signs."""

from __future__ import annotations

from dataclasses import dataclass, field

from keepmore.access import Access
from keepmore.compress import Report
from keepmore.isolation import IsolatedDecoder
from keepmore.store import Store
from keepmore.stores import open_store
from keepmore.webhooks import Notifier
from keepmore.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Site:
    """Plain data, so that it can be handed to another process. `place`: a folder, or s3://bucket/prefix."""

    place: str
    access: Access = field(default_factory=Access)
    webhook_secret: str | None = field(default=None, repr=False)

    def store(self) -> Store:
        return open_store(self.place, self.access)

    def workshop(self, decoder: IsolatedDecoder, report: Report, isolate: bool = False) -> Workshop:
        notify = Notifier(self.webhook_secret, self.access.private_addresses)
        return Workshop(decoder, report, self.access, isolate, notify=notify)
