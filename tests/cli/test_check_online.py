"""`toxtrail check --online`: check which Hub assets are accessible."""

from __future__ import annotations

import json

import pytest
from fake_hub import FakeHub, model, pointed_at


@pytest.fixture
def checked(run):
    return lambda path, *more, code=0: run("-C", path.parent, "check", "--online", *more, code=code)


def test_every_address_of_the_hub_is_there_gated_renamed_or_missing(hub, written, checked):
    hub.moved["org/old"] = "org/small"
    hub.models["org/gated"] = model()
    hub.models["org/gated"].gated, hub.models["org/gated"].open_to_us = "auto", False
    path = written(
        old="hf:org/old", gated="hf:org/gated", gone="hf:org/gone", tag="hf:org/small@v9",
        small="hf:org/small",
    )  # fmt: skip
    rows = json.loads(checked(path, "--json", code=1))["online"]
    assert {one["uri"].removeprefix("hf:"): one["state"] for one in rows} == {
        "datasets/org/prompts@main/p.jsonl": "there", "org/judge": "there", "org/old": "renamed",
        "org/gated": "gated", "org/gone": "missing", "org/small@v9": "missing",
        "org/small": "there",
    }  # fmt: skip
    said = checked(path, code=1)
    assert "now called org/small" in said
    assert "4 of 7" in said


def test_a_gate_that_was_passed_is_no_problem(hub, written, checked):
    hub.models["org/small"].gated = "manual"
    assert "3 of 3" in checked(written(small="hf:org/small"))


def test_a_file_that_a_data_set_does_not_hold_is_missing(hub, written, checked):
    hub.datasets["org/prompts"].files = {"renamed.jsonl": b"{}"}
    assert "folder p.jsonl" in checked(written(small="hf:org/small"), code=1)


def test_no_network_is_one_plain_sentence(written, monkeypatch, tmp_path, checked):
    silent = FakeHub()
    silent.server_close()
    pointed_at(silent, monkeypatch, tmp_path)
    said = checked(written(small="hf:org/small"), code=1)
    assert said.count("HF_ENDPOINT") == 1
    assert "None of the 3" in said


def test_switched_off_by_the_user_is_said_as_such(hub, written, monkeypatch, checked):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in checked(written(small="hf:org/small"), code=1)
