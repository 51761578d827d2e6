"""Shared by all tests: nothing here reads the user's own caches, stores or settings."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from toxtrail.cli import ARITHMETIC, GARBAGE_COLLECTION

gc.set_threshold(*GARBAGE_COLLECTION)
for name, value in ARITHMETIC.items():  # as the command does, before torch is imported
    os.environ.setdefault(name, value)
os.environ.pop("COLUMNS", None)  # of pytest-xdist, by which output in a pipe would be folded
settings.register_profile("toxtrail", deadline=None)  # no test is timed
settings.register_profile("quick", deadline=None, max_examples=25)  # of `make check`
settings.load_profile("toxtrail")

pytest_plugins = ["measured_families"]

PROJECT = Path(__file__).resolve().parents[1]
LONGEST = ("test_team_page.py", "test_warm.py", "test_tampering.py")
"""Files with single tests of a minute."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vllm", metavar="PROGRAM", help="run the tests that need this real vLLM")
    parser.addoption(
        "--examples", type=int, default=1, metavar="N",
        help="generate N times as many examples in each property test",
    )  # fmt: skip
    parser.addoption(
        "--sampler-seed", type=int, default=0, metavar="N",
        help="add N to each seed of NUTS: other draws, as on another processor",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if shift := config.getoption("--sampler-seed"):
        from toxtrail.stats import bayes_libraries, sampling

        for owner, name in ((bayes_libraries.CompiledModel, "sample"), (sampling, "sample_target")):
            setattr(owner, name, _with_other_seed(getattr(owner, name), shift))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of a real vLLM, unless it is given; begin with files of slow tests, so
    that two processes end together."""
    if (times := config.getoption("--examples")) > 1:
        _generate_more(items, times)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path not in slow))
    if config.getoption("--vllm"):
        return
    left_out = [item for item in items if item.get_closest_marker("vllm")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _with_other_seed(plain: Callable[..., Any], shift: int) -> Callable[..., Any]:
    """A sampler whose last argument, its settings, gets another seed."""

    def sample(*arguments: Any) -> Any:
        *first, nuts = arguments
        return plain(*first, nuts._replace(seed=nuts.seed + shift))

    return sample


def _generate_more(items: list[pytest.Item], times: int) -> None:
    """Multiply the number of examples of each property test, also where a test sets its own."""
    tests = {getattr(item.obj, "__func__", item.obj) for item in items if hasattr(item, "obj")}
    for test in tests:
        if is_hypothesis_test(test):
            own = test._hypothesis_internal_use_settings
            test._hypothesis_internal_use_settings = settings(
                own, max_examples=own.max_examples * times, suppress_health_check=list(HealthCheck)
            )


def pytest_collection_finish() -> None:
    """Leave the libraries, which the tests have imported, out of each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def project() -> Path:
    """The repository."""
    return PROJECT


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
