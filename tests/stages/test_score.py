"""Score: what a scorer sees of a prompt, and what the manifest says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toxtrail.backends.protocols import NoProgress, ScoredText, SingleProcess
from toxtrail.execution.score_rows import LAST_MESSAGE, NamedScorer
from toxtrail.pipeline import manifest_of
from toxtrail.records.rows import Generation, Prompt, Turn
from toxtrail.stages import score
from toxtrail.storage.artifacts import ArtifactStore

PLAIN = Prompt("s-1", "s", "Bye", "file:x", 0)
TALK = PLAIN._replace(earlier=(Turn("user", "Hi"), Turn("assistant", "Hello")))


class Judge:
    """Keeps the prompts that it is shown."""

    def __init__(self):
        self.prompts = []

    def score(self, texts, prompts=None):
        self.prompts += prompts or []
        return [ScoredText({"toxic": 0.5}, 1) for _ in texts]


@pytest.mark.parametrize(
    ("prompt", "environment"),
    [(PLAIN, {}), (TALK, {"sees_prompt": LAST_MESSAGE})],
    ids=["text", "conversation"],
)
def test_a_scorer_sees_the_last_message_and_the_manifest_says_so(prompt, environment, tmp_path):
    store, judge = ArtifactStore(tmp_path), Judge()
    store.write_prompts([prompt], manifest_of("prompts", None, {}, {}, {}))
    row = Generation("s-1", 0, "s", "ok", "See you", (1,), 1, "stop", "")
    store.write_generations("f", "v", [row], manifest_of("generate", "v", {}, {}, {}))
    config = SimpleNamespace(scorers={"judge": SimpleNamespace(plain=dict)}, max_error_share=0.0)
    named = [NamedScorer("judge", judge, "toxic", True)]
    score.run(store, "v", "f", config, named, {}, NoProgress(), SingleProcess())
    assert judge.prompts == ["Bye"]
    manifest = store.describe_input(store.scores_path("f", "v")).manifest
    assert manifest.environment == environment
