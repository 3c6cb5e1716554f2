"""`keepmore serve` and `keepmore key`: the commands that the API adds to the library's. Imports little: `keepmore
--help` loads it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import click

from keepmore.config import packages_of
from keepmore.errors import InvalidRequest

if TYPE_CHECKING:
    from keepmore_services.settings import Settings


@click.command(short_help="Serve the HTTP API.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--store", metavar="PLACE", help="Folder, or s3://bucket/prefix; default KEEPMORE_STORE.")
@click.option("--processes", type=click.IntRange(1), help="Worker processes; default one per core.")
@click.option("--insecure", is_flag=True, help="Start without API keys where they are needed.")
def serve(host: str, port: int, store: str | None, processes: int | None, insecure: bool) -> None:
    """Serve the HTTP API: with its own pool of processes, or with KEEPMORE_REDIS_URL by way of Celery workers.

    API keys (KEEPMORE_API_KEYS, see `keepmore key`) are needed except with the own pool on a loopback address.
    """
    with packages_of("api"):
        import uvicorn

        from keepmore_api import auth
        from keepmore_api.app import create_app
        from keepmore_api.backend.open import open_backend
        from keepmore_services import logs, tracing
        from keepmore_services.settings import load

    settings = load(store=store, processes=processes)
    gate = auth.Gate(auth.parse(settings.api_keys))
    if gate.is_open and not insecure:
        _refuse_if_open(host, settings)
    logs.configure(settings.log_level)
    local_only = gate.is_open and not insecure
    spans = tracing.provider(settings.otlp_endpoint, "keepmore-api")
    app = create_app(open_backend(settings, spans), gate, settings.max_body_bytes, local_only, spans)
    uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=5)


def _refuse_if_open(host: str, settings: Settings) -> None:
    remedy = "set KEEPMORE_API_KEYS (`keepmore key NAME` makes one), or say --insecure"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise InvalidRequest(
            f"--host {host}: anybody who reaches this address could read images, start work and stop jobs; {remedy}"
        )
    if settings.distributed:
        raise InvalidRequest(f"KEEPMORE_REDIS_URL: the distributed service needs API keys; {remedy}")


@click.command(short_help="Make an API key.")
@click.argument("name")
@click.option("--read-only", is_flag=True, help="A key that may look but not start or stop anything.")
def key(name: str, read_only: bool) -> None:
    """Make an API key. It is shown once; the service gets only its hash."""
    with packages_of("api"):
        from keepmore_api import auth

    secret, entry = auth.new_key(name, auth.READ if read_only else f"{auth.READ}+{auth.WRITE}")
    click.echo(f"key, for the caller:              {secret}")
    click.echo(f"entry, for KEEPMORE_API_KEYS:     {entry}")
