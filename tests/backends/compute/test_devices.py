"""Devices, threads and what manifests say of them."""

import os

import pytest
import torch

from toxtrail.backends.compute.devices import (
    _core_quota,
    environment_info,
    pick_device,
    set_num_threads,
    usable_cores,
)
from toxtrail.errors import BackendError


def test_auto_takes_an_accelerator_only_where_there_is_one():
    there = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (pick_device("auto") != "cpu") == there
    assert pick_device("cpu") == "cpu"


def test_an_absent_device_is_refused():
    with pytest.raises(BackendError, match='"cuda:99" is not available'):
        pick_device("cuda:99")


def test_threads_are_set_as_asked():
    before = torch.get_num_threads()
    try:
        assert set_num_threads(1) == torch.get_num_threads() == 1
        assert 1 <= set_num_threads("auto") <= (os.cpu_count() or 1)
    finally:
        torch.set_num_threads(before)


def test_no_more_cores_are_used_than_the_scheduler_allows():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cores"), [("150000 100000", 1), ("400000 100000", 4), ("max 100000", 9)]
)
def test_a_containers_quota_limits_the_cores(tmp_path, limit, cores):
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert _core_quota(tmp_path / "cpu.max", 9) == cores
    assert _core_quota(tmp_path / "absent", 9) == 9


def test_the_environment_names_every_library_that_moves_a_logit():
    found = environment_info("cpu")
    assert found["torch"] == torch.__version__
    assert found.keys() >= {
        "python",
        "transformers",
        "peft",
        "tokenizers",
        "device",
        "cpu_capability",
    }
