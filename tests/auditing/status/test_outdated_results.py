"""A result that params.yaml or a file has left behind is told from one that is up to date."""

from __future__ import annotations

import os

import pytest
import yaml

from toxtrail.auditing.status.outdated_results import outdated
from toxtrail.auditing.verify.params import _manifest_params
from toxtrail.config.load import parse_config
from toxtrail.pipeline import manifest_of, stage_runs
from toxtrail.provenance.identity import InputFile, sha256_file


@pytest.fixture
def values(project):
    return yaml.safe_load((project / "params.yaml").read_text("utf-8"))


def config_of(values):
    return parse_config(values, "params.yaml")


def made(config, root, kind, key, path, *made_from):
    """A file of a stage, as the input of another stage."""
    run = next(r for r in stage_runs(config) if (r.stage.name, r.key) == (kind, key))
    inputs = {one.path: one for one in made_from}
    manifest = manifest_of(kind, key, _manifest_params(config, run), inputs, {})
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(path)
    return InputFile(path=path, sha256=sha256_file(root / path), manifest=manifest)


@pytest.fixture
def result(values, tmp_path):
    """The comparison of a family, made from all of its files."""
    config = config_of(values)
    family = next(iter(config.families))
    prompts = made(config, tmp_path, "prompts", None, "data/prompts.parquet")
    posteriors = []
    for variant in config.families[family].variants:
        texts = made(config, tmp_path, "generate", variant, f"data/g/{variant}", prompts)
        scores = made(config, tmp_path, "score", variant, f"data/s/{variant}", texts)
        posterior = made(config, tmp_path, "posterior", variant, f"results/{variant}", scores)
        listed = scores.model_copy(update={"manifest": None})  # the report lists files alone, too
        posteriors += [listed, posterior]
    manifest = made(config, tmp_path, "compare", family, "results/c", *posteriors).manifest
    return manifest, tmp_path, family


def test_an_untouched_result_is_up_to_date(result, values):
    manifest, root, _ = result
    assert outdated(config_of(values), root, manifest) == []


def test_what_decides_no_result_changes_nothing(result, values):
    manifest, root, _ = result
    values["runtime"] |= {"batch_tokens": 77, "device": "cpu"}
    values["tracking"]["experiment"] = "another"
    for path in root.rglob("*"):
        os.utime(path)
    assert outdated(config_of(values), root, manifest) == []


@pytest.mark.parametrize(
    "place",
    [("posterior", "level", 0.9), ("generation", "temperature", 0.5), ("prompts", "seed", 5)],
)
def test_a_changed_value_is_named(result, values, place):
    manifest, root, _ = result
    section, name, value = place
    before = values[section][name]
    values[section][name] = value
    (found,) = outdated(config_of(values), root, manifest)
    assert found.startswith(f"{section}.{name}: ")
    assert str(before) in found
    assert str(value) in found


def test_a_changed_file_is_named_and_a_missing_one_is_not(result, values):
    manifest, root, family = result
    config = config_of(values)
    first, second, *_ = config.families[family].variants
    (root / "data" / "s" / first).write_text("other")
    (root / "data" / "s" / second).unlink()
    assert outdated(config, root, manifest) == [f"data/s/{first} was changed since"]


def test_a_variant_that_is_gone_is_named(result, values):
    manifest, root, family = result
    gone = values["families"][family]["variants"].pop()
    for section in ("variants", "models", "finetunes"):
        values[section].pop(gone, None)
    found = outdated(config_of(values), root, manifest)
    assert any(gone in one for one in found)
