"""Shared by all tests: nothing here reads the user's own caches, stores or settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from toxtrail.cli import ARITHMETIC

for name, value in ARITHMETIC.items():  # as the command does, before torch is imported
    os.environ.setdefault(name, value)
settings.register_profile("toxtrail", deadline=None)  # no test is timed
settings.load_profile("toxtrail")

pytest_plugins = ["measured_families"]

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project() -> Path:
    """The repository."""
    return PROJECT


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
