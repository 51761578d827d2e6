"""`toxtrail scorers bench`: scores, rates and the bound entry, by a tiny classifier."""

from __future__ import annotations

import csv
import json
from itertools import product

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from transformers import AutoTokenizer, BertForSequenceClassification

from toxtrail.backends.protocols import ScoredText
from toxtrail.cli import cli
from toxtrail.execution import score_rows
from toxtrail.execution.score_rows import NamedScorer
from toxtrail.provenance.identity import hash_tree, sha256_file, tree_sha256

TEXTS = [" ".join(words) for words in product(["You", "are", "kind", "."], repeat=2)]
LABELS = ["hateful" if number % 3 == 0 else "non-hateful" for number in range(len(TEXTS))]


@pytest.fixture
def lab(written, tiny_judge):
    root = written(base="hf:org/Base").parent
    tiny_judge(root / "judge")
    return root


@pytest.fixture
def judge(lab):
    """The entry of the tiny classifier, pinned."""
    return {
        "kind": "hf", "uri": "file:judge", "sha256": tree_sha256(hash_tree(lab / "judge")),
        "head": "LABEL_1", "activation": "softmax", "golden": [], "golden_tolerance": 0.001,
    }  # fmt: skip


@pytest.fixture
def scores(lab):
    """Score of each text by transformers, one at a time."""
    tokenizer = AutoTokenizer.from_pretrained(lab / "judge")
    model = BertForSequenceClassification.from_pretrained(lab / "judge").eval()
    with torch.no_grad():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    return np.array([float(row.softmax(-1)[1]) for row in logits])


@pytest.fixture
def threshold(scores):
    ordered = np.sort(scores)
    return float(ordered[7] + ordered[8]) / 2


@pytest.fixture
def configure(lab):
    def write(scorers, thresholds, **posterior):
        path = lab / "params.yaml"
        values = yaml.safe_load(path.read_text("utf-8"))
        values["scoring"] |= {"primary": next(iter(scorers)), "scorers": scorers}
        values["posterior"] |= {"threshold": thresholds, **posterior}
        path.write_text(yaml.safe_dump(values), "utf-8")

    return write


@pytest.fixture
def file(lab):
    path = lab / "hatecheck.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["functionality", "test_case", "label_gold"])
        writer.writerows(
            [f"f{n % 2}", text, label] for n, (text, label) in enumerate(zip(TEXTS, LABELS))
        )
    return path


@pytest.fixture
def run(lab):
    def call(*words):
        return CliRunner().invoke(cli, ["-C", str(lab), *map(str, words)])

    return call


def test_the_rates_are_those_of_transformers_scores_and_the_entry_is_bound(
    run, file, judge, scores, threshold, configure
):
    configure({"j": judge}, {"j": threshold})
    result = run("scorers", "bench", file, "--by", "functionality", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    everything, *groups = found["rows"]
    toxic = np.array([label == "hateful" for label in LABELS])
    above = scores >= threshold
    assert everything["toxic_found"] == (above & toxic).sum()
    assert everything["sensitivity"] == pytest.approx((above & toxic).sum() / toxic.sum())
    assert everything["specificity"] == pytest.approx((~above & ~toxic).sum() / (~toxic).sum())
    pairs = [a > b for a, b in product(scores[toxic], scores[~toxic])]
    assert everything["auc"] == pytest.approx(np.mean(pairs))
    assert [(row["group"], row["n"]) for row in groups] == [("f0", 8), ("f1", 8)]
    entry = found["scorer_error"]["j"]
    assert entry["measured_on"]["labels_sha256"] == sha256_file(file)
    assert entry["sensitivity"]["total"] + entry["specificity"]["total"] == len(TEXTS)

    printed = run("scorers", "bench", file).stdout
    lines = printed[printed.index("scorer_error:") : printed.index("warning:")]
    assert yaml.safe_load(lines) == {"scorer_error": {"j": entry}}
    configure({"j": judge}, {"j": threshold}, scorer_error={"j": entry})
    assert problems(run) == []
    configure({"j": judge | {"head": "LABEL_0"}}, {"j": threshold}, scorer_error={"j": entry})
    (problem,) = problems(run)
    assert "head is LABEL_0, it was LABEL_1" in problem


def problems(run):
    return [line for line in json.loads(run("check", "--json").stdout)["files"] if "error" in line]


def test_scored_texts_of_a_stopped_command_are_kept(run, file, judge, configure, monkeypatch):
    configure({"a": judge, "b": judge}, {"a": 0.5, "b": 0.5})
    calls, score_checked = [], score_rows.score_checked

    def stopped(requests, scorer):
        calls.append(scorer.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score_checked(requests, scorer)

    monkeypatch.setattr(score_rows, "score_checked", stopped)
    assert run("scorers", "bench", file).exit_code == 130
    assert run("scorers", "bench", file).exit_code == 0
    assert calls == ["a", "b", "b"]
    assert run("scorers", "bench", file, "--scorer", "a").exit_code == 0
    assert len(calls) == 3


def test_a_scorer_without_a_pin_is_measured_but_has_no_entry(run, file, judge, configure):
    configure({"j": judge | {"sha256": None}}, {"j": 0.5})
    found = json.loads(run("scorers", "bench", file, "--json").stdout)
    assert len(found["rows"]) == 1
    assert found["scorer_error"] == {}
    assert "toxtrail pin" in found["without_entry"]["j"]


class Guard:
    """Answers by the text, and gives no answer to one of the prompts."""

    heads = ("yes",)

    def score(self, texts, prompts=None):
        return [
            ScoredText({}, 1, 0.9, "another answer") if prompt == "Why?"
            else ScoredText({"yes": 0.9 if "kind" in text else 0.1}, 1, 0.0)
            for text, prompt in zip(texts, prompts, strict=True)
        ]  # fmt: skip


def test_a_guard_sees_the_prompts_and_a_text_without_an_answer_counts_as_neither(
    run, lab, judge, configure, monkeypatch
):
    configure({"j": judge, "g": GUARD}, {"j": 0.5, "g": 0.5})
    rows = [("How?", "kind", 1), ("How?", "You", 1), ("Why?", "kind", 1), ("Why?", "You", 0),
            ("How?", "are", 0), ("How?", "\u200b", 0)]  # fmt: skip
    path = lab / "answers.jsonl"
    path.write_text("\n".join(json.dumps(dict(zip("qab", row))) for row in rows), "utf-8")
    loaded = [NamedScorer("g", Guard(), "yes", True)]
    monkeypatch.setattr("toxtrail.execution.factories.make_scorers", lambda *_: loaded)
    columns = ("--text", "a", "--label", "b", "--prompt", "q", "--scorer", "g")
    for _ in range(2):  # computed, then read from the journal
        found = json.loads(run("scorers", "bench", path, *columns, "--json").stdout)
        (row,) = found["rows"]
        assert (row["n"], row["toxic_found"], row["sensitivity"], row["specificity"]) == (
            6,
            1,
            0.5,
            1,
        )
        assert (row["unscored_toxic"], row["unscored_harmless"]) == (1, 2)
        assert found["unscored"] == {"g": {"another answer": 2, "the text is empty": 1}}


GUARD = {
    "kind": "guard", "uri": "file:judge", "sees": "prompt+response", "template": "chat",
    "message_content": "text", "prefix": "", "answers": {"yes": ["yes"], "no": ["no"]},
    "head": "yes", "max_other": 0.5, "dtype": "float32", "golden": [], "golden_tolerance": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ((), "g: a scorer that sees the prompt", 1),
        (("--scorer", "h"), '"h" is not a scorer', 1),
        (("--scorer", "j", "--text", "test_case"), "--label", 2),
        (("--scorer", "j", "--text", "test_case", "--label", "functionality"), "row 1", 1),
        (("--scorer", "j", "--prompt", "x"), 'no column "x"', 1),
    ],
)
def test_wrong_input_is_refused_before_a_scorer_is_loaded(
    run, file, judge, configure, words, said, code, monkeypatch
):
    configure({"j": judge, "g": GUARD}, {"j": 0.5, "g": 0.5})
    monkeypatch.setattr("toxtrail.execution.factories.make_scorers", None)
    result = run("scorers", "bench", file, *words)
    assert (result.exit_code, said in result.output) == (code, True), result.output
