"""Settings of the services, from the environment. All but one are called KEEPMORE_ and their name."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from keepmore.config import RuntimeConfig
from keepmore.errors import InvalidRequest
from keepmore.jobs import webhooks
from keepmore.net.access import Access
from keepmore.storage.scratch import Scratch

# Where callers of a service may read from by default: never from the machine that it runs on.
REMOTE_SOURCES = "s3://,https://"
OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"  # the standard name of OpenTelemetry
REDIS_SCHEMES = ("redis://", "rediss://")
# By pydantic's types of errors whose own messages say how the program is written, and not what to write.
REMEDIES = {
    "int_parsing": "write a whole number, such as 1000000",
    "float_parsing": "write a number, such as 10",
    "string_pattern_mismatch": "write it as http://host:port or https://host:port",
}


def load(**values: Any) -> Settings:
    """Settings from the environment, overridden by the `values` that are not None. Raises InvalidRequest naming the
    wrong ones."""
    try:
        settings = Settings(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        wrong = [
            (str(item["loc"][0]), REMEDIES.get(item["type"]) or item["msg"][:1].lower() + item["msg"][1:])
            for item in error.errors()
        ]
        problems = [f"{name if name == OTLP else f'KEEPMORE_{name.upper()}'}: {why}" for name, why in wrong]
        raise InvalidRequest("; ".join(problems)) from None  # the value may be a secret: it is not repeated
    if settings.distributed and not _is_redis(settings.redis):
        raise InvalidRequest(f"KEEPMORE_REDIS_URL: write it as {' or '.join(REDIS_SCHEMES)}host:port/number")
    if settings.distributed and "store" not in settings.model_fields_set:
        raise InvalidRequest(
            "KEEPMORE_STORE: the distributed service needs one that all of it reaches: s3://bucket/prefix"
        )
    if settings.config.webhook_secret:
        webhooks.secret_bytes(settings.config.webhook_secret)
    return settings


def _is_redis(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        whole = parsed.port != 0 and (parsed.path.strip("/") or "0").isdecimal()
        return url.startswith(REDIS_SCHEMES) and whole
    except ValueError:  # of a port beyond 65535
        return False


class Settings(BaseSettings):
    """`redis_url` decides: with it the service is distributed, without it one process with its pool does everything."""

    model_config = SettingsConfigDict(env_prefix="KEEPMORE_", env_ignore_empty=True, frozen=True, extra="ignore")

    store: str = "~/.local/share/keepmore"
    redis_url: SecretStr | None = None
    processes: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    api_keys: str = ""
    webhook_secret: SecretStr | None = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(lambda level: str(level).upper())
    ] = "INFO"
    max_body_bytes: int = Field(1_000_000, ge=1_000)
    reconcile_s: float = Field(10.0, gt=0, le=86_400)
    otlp_endpoint: str | None = Field(None, validation_alias=OTLP, pattern="^https?://[^/:]")

    @property
    def distributed(self) -> bool:
        return self.redis_url is not None

    @property
    def redis(self) -> str:
        return self.redis_url.get_secret_value() if self.redis_url else ""

    @cached_property
    def config(self) -> RuntimeConfig:
        environment = {"KEEPMORE_PRIVATE_ADDRESSES": "0", **os.environ}
        if self.distributed:
            environment.setdefault("KEEPMORE_ALLOWED_SOURCES", REMOTE_SOURCES)
        secret = self.webhook_secret.get_secret_value() if self.webhook_secret else None
        return RuntimeConfig(
            self.store, Access.from_environment(environment), secret, Scratch.from_environment(environment)
        )
