"""Programs that the tests run and that Python packages carry."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

BIN = Path(sys.executable).parent
# The package's own command ends with 0 whatever happens.
COMPOSE = Path(str((spec := find_spec("compose")) and spec.origin)).with_name("docker-compose")
HADOLINT = BIN / "hadolint"
ROOT = Path(__file__).parents[1]
