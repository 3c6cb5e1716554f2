"""Trainers: the only package that imports PyTorch."""

from __future__ import annotations

import os

# Before PyTorch loads the library that reads it. Threads that are at a step's many barriers would otherwise spin, and
# where others want the same cores (a service that compresses meanwhile) a step takes five to ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
