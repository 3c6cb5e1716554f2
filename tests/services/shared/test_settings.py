"""Settings of the services."""

from __future__ import annotations

import pytest

from keepmore.errors import InvalidRequest
from keepmore_services import settings


def test_a_log_level_is_read_in_any_case_and_a_wrong_one_names_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a service does not start, and suggests the very word that it refuses."""
    monkeypatch.setenv("KEEPMORE_LOG_LEVEL", "debug")
    assert settings.load().log_level == "DEBUG"
    monkeypatch.setenv("KEEPMORE_LOG_LEVEL", "loud")
    with pytest.raises(InvalidRequest, match="KEEPMORE_LOG_LEVEL: input should be 'DEBUG'"):
        settings.load()
