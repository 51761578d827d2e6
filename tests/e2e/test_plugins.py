"""A plug-in is installed by pip, pinned, used, changed, refused, and pinned again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Lab

from toxtrail.provenance.embedded_manifest import read_embedded_manifest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "fixtures" / "plugin_example"
SCORER = {
    "kind": "words",
    "uri": "file:assets/words.txt",
    "head": "listed",
    "golden": [{"text": "a silly goose", "score": 1.0}],
    "golden_tolerance": 0.001,
    "enough": 2,
}


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    """A folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", "site", "./source"],
        cwd=folder,
        check=True,
    )
    return folder / "site"


@pytest.fixture
def experiment(breakable, target):
    """The finished experiment with a scorer and an engine of the plug-in, not pinned yet."""
    (breakable.root / "assets" / "words.txt").write_text("silly\ngoose\nw1\nw2\n")
    values = breakable.params
    values["scoring"]["scorers"]["listed"] = SCORER
    values["posterior"]["threshold"]["listed"] = 0.5
    values["generation"]["engine"] = {"kind": "copying", "times": 2}
    (breakable.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Lab(breakable.root, {**breakable.env, "PYTHONPATH": str(target)})


def manifest(lab, stage):
    return read_embedded_manifest(lab.root / "data" / stage / "tiny" / "tuned.parquet")


def pins(lab) -> list[dict[str, str]]:
    params = lab.params
    return [
        params["scoring"]["scorers"]["listed"]["plugin"],
        params["generation"]["engine"]["plugin"],
    ]


def test_a_changed_plugin_is_refused_until_it_is_pinned(experiment, target):
    experiment.installed("pin")
    first, same = pins(experiment)
    assert first == same
    assert (first["distribution"], first["version"]) == ("toxtrail-words", "1.0")
    experiment.installed("stage", "generate", "tuned")
    experiment.installed("stage", "score", "tuned")
    scored = manifest(experiment, "scores")
    assert manifest(experiment, "generations").params["generation"]["engine"]["plugin"] == first
    assert scored.params["scorers"]["listed"]["plugin"] == first

    code = target / "toxtrail_words" / "words.py"
    content = code.read_bytes()
    code.write_bytes(content.replace(b"min(1.0,", b"min(0.9,"))
    refused = experiment.installed("stage", "score", "tuned", code=1)
    assert first["sha256"] in refused.stderr
    assert manifest(experiment, "scores") == scored

    code.write_bytes(content.replace(b"min(1.0,", b"min(1.,"))
    experiment.installed("pin")
    second, _ = pins(experiment)
    assert second["sha256"] != first["sha256"]
    scores = experiment.installed("stage", "score", "tuned").stderr
    assert "all of them cached" in scores.split("by listed")[0]
    assert "all of them cached" not in scores.split("by listed")[1]
    assert manifest(experiment, "scores").content_key != scored.content_key
    audit = experiment.toxtrail("audit", "data/scores/tiny/tuned.parquet", code=None).stdout
    assert second["sha256"] in audit
