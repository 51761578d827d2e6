"""What was generated again is compared with what was recorded, token by token."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from toxtrail.auditing.reproduce import compare_rows, differing_environment, draw, recorded_plan
from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.run_files import LocalRunFiles
from toxtrail.execution.execution_records import write_record
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.rows import Generation, Score
from toxtrail.storage.artifacts import ArtifactStore

ROW = Generation("s-1", 0, "s", "ok", "a b c d", (1, 2, 3, 4), 3, "stop", "")
SCORE = Score("s-1", 0, "s", "judge", "ok", 0.25, {"toxic": 0.25}, 1)


def test_the_same_seed_draws_the_same_rows_of_a_variant_in_any_order():
    rows = [ROW._replace(prompt_id=f"s-{i}") for i in range(50)]
    first = draw(rows, 8, 3, "v")
    assert len(set(first)) == 8
    assert draw(rows[::-1], 8, 3, "v") == first
    assert draw(rows, 8, 4, "v") != first
    assert draw(rows, 8, 3, "w") != first
    assert len(draw(rows, 99, 3, "v")) == 50


@pytest.mark.parametrize(
    ("tokens", "same", "differing"),
    [
        ((1, 2, 3, 4), 4, 0),
        ((1, 2, 9, 4), 2, 1),
        ((9, 9, 9, 9), 0, 4),
        ((1, 2), 2, 2),
        ((1, 2, 3, 4, 5, 6), 4, 2),
        ((), 0, 4),
    ],
)
def test_a_divergence_is_placed_and_counted(tokens, same, differing):
    text = "a b c d" if tokens == ROW.token_ids else "other"
    found = compare_rows("v", ROW, ROW._replace(token_ids=tokens, text=text), [], {})
    assert (found.same_tokens, found.differing_tokens) == (same, differing)
    assert found.exact == (differing == 0)
    assert found.score_change is None


def test_the_same_tokens_with_another_text_are_not_exact():
    """Another tokenizer decodes them otherwise."""
    found = compare_rows("v", ROW, ROW._replace(text="A B C D"), [], {})
    assert (found.exact, found.differing_tokens) == (False, 0)


def test_the_largest_change_of_a_score_is_shown():
    again = {SCORE.key: 0.5, ("s-1", 0, "other"): 0.25}
    scores = [SCORE, SCORE._replace(scorer="other"), SCORE._replace(scorer="gone")]
    assert compare_rows("v", ROW, ROW, scores, again).score_change == 0.25


def test_a_prompt_that_does_not_fit_is_exact_if_it_never_did():
    assert compare_rows("v", ROW._replace(state="truncated", token_ids=()), None, [], {}).exact
    assert not compare_rows("v", ROW, None, [], {}).exact


def record(batch_tokens, sha256):
    settings = {"engine": "packed", "batch_tokens": batch_tokens, "threads": 2}
    return {"settings": settings, "output_sha256": sha256}


def test_the_batch_plan_is_that_of_this_very_file(tmp_path):
    store, files = ArtifactStore(tmp_path), RunFiles(tmp_path, "f" * 32, "v", None)
    files.folder.mkdir(parents=True)
    executions = json.dumps({"generate": record(128, "a")})
    (files.folder / "executions.json").write_text(executions)
    payload = {"executions.json": sha256_text(executions)}
    (files.folder / "payload.json").write_text(json.dumps(payload))
    scene = SimpleNamespace(runs=[LocalRunFiles("f" * 32, files, {})])
    write_record(store, {**record(64, "b"), "stage": "generate", "key": "v", "cost": {}})
    assert recorded_plan(store, "v", "b", scene)[:3] == ("packed", 64, 2)
    assert recorded_plan(store, "v", "a", scene)[:3] == ("packed", 128, 2)
    assert recorded_plan(store, "v", "c", scene) == (None, None, None, "")


def test_only_what_differs_of_two_environments_is_shown():
    recorded, present = {"torch": "2.1", "cpu": "AVX2"}, {"torch": "2.2", "cpu": "AVX2", "x": "1"}
    assert differing_environment(recorded, present) == {"torch": ["2.1", "2.2"], "x": [None, "1"]}
