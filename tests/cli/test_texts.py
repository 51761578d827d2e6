"""`toxtrail texts`: what is read, written and warned of; no scorer is loaded."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from toxtrail.cli import cli
from toxtrail.config.load import load_config

PARAMS = """# My experiment.
prompts:
  seed: 1
  subsets:
    plain: {uri: "file:prompts.txt", n: 2}
generation: {max_new_tokens: 5, temperature: 0.0, top_p: 1.0, samples: 1, template: none,
             dtype: float32, seed: 1, max_error_share: 0.0}
scoring:
  primary: judge
  max_error_share: 0.0
  scorers:
    judge: {kind: hf, uri: "file:judge", head: toxic, golden: [], golden_tolerance: 0.1}
posterior: {threshold: {judge: 0.5}, rope_pp: 1.0, level: 0.95, prior: 0.5, draws: 1000, seed: 1}
pooling: null
models:
  base: {uri: "file:model"}     # the base
finetunes: {}
variants:
  base: {family: f, role: base}
families:
  f: {reference: base, variants: [base]}
tracking: {experiment: toxtrail, project: lab-0000abcd}
runtime: {device: cpu, threads: 1, processes: 1, engine: auto, batch_tokens: 64,
          score_batch_size: 4, checkpoint_steps: 2}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS, "utf-8")
    (tmp_path / "prompts.txt").write_text("One\nTwo\n", "utf-8")
    write(tmp_path / "texts.jsonl", ("One", "a"), ("Three", "c"))
    return tmp_path


def write(path, *rows):
    lines = [json.dumps({"prompt": p, "text": t}) + "\n" for p, t in rows]
    path.write_text("".join(lines), "utf-8")


def run(root, *arguments, code=0):
    done = CliRunner().invoke(cli, ["-C", str(root), "texts", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def add(root, *options, file="texts.jsonl", code=0):
    return run(root, "add", root / file, "--variant", "given", *options, code=code)


def test_an_entry_is_pinned_and_comments_are_kept(root):
    add(root, "--parent", "base")
    text = (root / "params.yaml").read_text("utf-8")
    assert "# the base" in text
    config = load_config(root / "params.yaml")
    assert config.models["given"].uri == "file:texts.jsonl"
    assert config.models["given"].pinned
    assert config.texts_of("given").plain() == {
        "format": "table", "prompt": "prompt", "text": "text",
    }  # fmt: skip
    assert config.families["f"].variants == ["base", "given"]
    assert config.variants["given"].parent == "base"


def test_a_new_family_has_the_variant_as_its_reference(root):
    add(root, "--family", "mine", "--role", "tuned")
    values = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    assert values["families"]["mine"] == {"reference": "given", "variants": ["given"]}
    assert values["variants"]["given"] == {"family": "mine", "role": "tuned"}


def test_a_dry_run_writes_nothing_and_json_says_what_was_read(root):
    found = json.loads(add(root, "--family", "mine", "--dry-run", "--json").stdout)
    assert (found["texts"], found["prompts"], found["match"]) == (2, 2, None)
    assert not found["written"]
    assert (root / "params.yaml").read_text("utf-8") == PARAMS


def test_a_family_with_generated_variants_needs_a_permission_and_is_warned_of(root):
    assert "families.f.allow_mismatch" in add(root, "--parent", "base").stderr
    shown = run(root, "add", root / "texts.jsonl", "--variant", "other", "--family", "mine").stderr
    assert "allow_mismatch" not in shown
    assert "weak evidence" in shown


def test_a_file_outside_the_experiment_gets_a_permission(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere") / "texts.jsonl"
    write(outside, ("One", "a"))
    run(root, "add", outside, "--variant", "given", "--family", "mine")
    assert load_config(root / "params.yaml").outside == (str(outside),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--family NAME"),
        (("--parent", "nobody"), "is not a variant"),
        (("--family", "mine", "--prompt", "question"), 'no column "question"'),
        (("--family", "mine", "--format", "garak"), "entry_type is missing"),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_is_written(root, options, message):
    done = add(root, *options, code=1)
    assert message in done.stderr
    assert (root / "params.yaml").read_text("utf-8") == PARAMS


def test_options_that_no_reader_takes_are_wrong_usage(root):
    add(root, "--family", "mine", "--delimiter", "x", code=2)
    add(root, "--family", "mine", "--format", "xml", code=2)
    add(root, "--family", "mine", "--format", "inspect", "--prompt", "", code=1)


def test_a_key_that_is_taken_is_refused(root):
    done = run(root, "add", root / "texts.jsonl", "--variant", "base", "--family", "mine", code=1)
    assert "exists already" in done.stderr


def test_texts_are_written_as_a_table_and_missing_ones_are_counted(root):
    rows = [
        {"entry_type": "start_run setup"},
        {"entry_type": "attempt", "uuid": "u", "status": 2, "prompt": "Wie geht's?",
         "outputs": [{"text": "Schön."}, None]},
    ]  # fmt: skip
    report = root / "g.report.jsonl"
    report.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    shown = run(root, "convert", report, "--to", root / "out.jsonl").stdout
    assert "1 texts of 1 prompts;" in shown
    assert "; 1 are recorded as missing" in shown
    (line,) = (root / "out.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {"prompt": "Wie geht's?", "text": "Schön."}
    run(root, "convert", report, "--to", root / "out.jsonl", code=1)
