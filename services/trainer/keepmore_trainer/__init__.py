"""Trainers: the only package that imports PyTorch."""

from __future__ import annotations

import os

# Before PyTorch loads the library that reads it. Otherwise threads that wait at a step's many barriers would spin, and
# where other processes use the same cores (a service that compresses at the same time) a step takes five to ten times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
