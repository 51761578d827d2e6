"""Generate: states, seeds, resume, sharing."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext as nothing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.protocols import Completion, EncodedPrompt, NoProgress, SingleProcess
from toxtrail.config.schema import GenerationConfig, ThoughtConfig
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.execution.generate_rows import collect_generations, generate, row_seed, rows_identity
from toxtrail.provenance.identity import Adapter, BaseWeights, FileHash, Manifest, ModelIdentity
from toxtrail.records.rows import Prompt, Turn
from toxtrail.storage.row_journal import RowJournal

CONFIG = GenerationConfig(
    max_new_tokens=4,
    temperature=0.0,
    top_p=1.0,
    samples=2,
    template="none",
    dtype="float32",
    seed=7,
    max_error_share=0.4,
)


class EchoModel:
    """Continues with its seed, the longest prompts first; some texts make it stop, fail, or not
    fit."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.made: list[str] = []
        self.stop_after = stop_after

    def encode(self, text, earlier=()):
        return EncodedPrompt(tuple(ord(c) for c in text), fits=text != "too long")

    def complete(self, prompts, seeds):
        for number in sorted(range(len(prompts)), key=lambda i: -len(prompts[i].token_ids)):
            if len(self.made) == self.stop_after:
                raise KeyboardInterrupt
            text = "".join(map(chr, prompts[number].token_ids))
            self.made.append(text)
            yield number, self.one(text, seeds[number])

    def one(self, text, seed):
        if text == "silent":
            return Completion((), " ", "stop", "")
        if text == "broken":
            return Completion((), "", "none", "non-finite logits")
        return Completion((seed % 100,), f"{text}-{seed}", "length", "")


class Member(SingleProcess):
    """One of several processes."""

    def __init__(self, number, of):
        self.number, self.of = number, of


def prompts(*texts):
    return [Prompt(f"s-{text}", "s", text, "file:x", i) for i, text in enumerate(texts)]


TALK = Prompt(
    "s-1",
    "s",
    "Bye",
    "file:x",
    0,
    earlier=(Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello")),
)
"""A conversation."""  # fmt: skip


def with_chat(**options):
    return GenerationConfig.model_validate({**CONFIG.plain(), "template": "chat", **options})


def test_the_model_gets_the_earlier_messages_and_equal_last_ones_are_other_rows(tmp_path):
    heard = []

    class Listener(EchoModel):
        def encode(self, text, earlier=()):
            heard.append((text, earlier))
            return super().encode(text, earlier)

    asked = [TALK, TALK._replace(prompt_id="s-2", earlier=TALK.earlier[1:])]
    with RowJournal(tmp_path, {}) as rows:
        generate(asked, Listener(), with_chat(), rows, NoProgress(), SingleProcess())
        changed = [TALK._replace(earlier=(Turn("system", "Be rude."), *TALK.earlier[1:]))]
        assert len(collect_generations(asked, with_chat(), rows)) == 4
        with pytest.raises(DataError, match="were not made"):
            collect_generations(changed, with_chat(), rows)
    assert heard == [(prompt.text, prompt.earlier) for prompt in asked]


@pytest.mark.parametrize(
    ("prompt", "config", "said"),
    [
        (TALK, CONFIG, r"template: .none., but s-1 is a conversation of 4 messages"),
        (TALK, with_chat(system="Be brief."), r"generation\.system: s-1 .*Remove generation\.sys"),
        (
            TALK,
            with_chat(
                turns=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            ),
            r"generation\.turns: s-1 includes a system message",
        ),
    ],
)
def test_a_conversation_that_the_settings_do_not_allow_is_refused(prompt, config, said, tmp_path):
    with RowJournal(tmp_path, {}) as rows, pytest.raises(ConfigError, match=said):
        generate([prompt], EchoModel(), config, rows, NoProgress(), SingleProcess())


def test_a_conversation_without_a_system_message_follows_that_of_the_settings(tmp_path):
    asked = [TALK._replace(earlier=TALK.earlier[1:])]
    with RowJournal(tmp_path, {}) as rows:
        work = generate(
            asked, EchoModel(), with_chat(system="x"), rows, NoProgress(), SingleProcess()
        )
    assert work["rows"] == 2


def made(texts, folder, model=None, config=CONFIG):
    asked = prompts(*texts)
    with RowJournal(folder, {}) as rows:
        generate(asked, model or EchoModel(), config, rows, NoProgress(), SingleProcess())
        return collect_generations(asked, config, rows)


def states(rows):
    return {row.prompt_id: row.state for row in rows}


def test_every_prompt_is_continued_as_often_as_asked(tmp_path):
    rows = made(["a", "b", "c"], tmp_path)
    assert sorted(row.key for row in rows) == [(f"s-{t}", k) for t in "abc" for k in (0, 1)]


def test_each_outcome_has_its_own_state_and_none_is_lost(tmp_path):
    rows = made(["fine", "silent", "too long", "ok", "ok2"], tmp_path)
    assert states(rows) == {
        "s-fine": "ok",
        "s-ok": "ok",
        "s-ok2": "ok",
        "s-silent": "empty",
        "s-too long": "truncated",
    }


def test_thoughts_are_kept_apart_and_unfinished_ones_have_their_own_state(tmp_path):
    class Thinking(EchoModel):
        def one(self, text, seed):
            return Completion((1, 2, 3), text, "length", "", (2,) if "</t>" in text else ())

    thought = ThoughtConfig(begin="<t>", end="</t>")
    config = CONFIG.model_copy(update={"thought": thought, "samples": 1})
    texts = ["<t>a</t> b", "<t>a", "<t>a</t>", "b"]
    rows = {row.prompt_id: row for row in made(texts, tmp_path, Thinking(), config)}
    assert [
        (row.thought, row.text, row.state, row.thought_tokens)
        for row in (rows[f"s-{text}"] for text in texts)
    ] == [
        ("<t>a</t> ", "b", "ok", 2),
        ("<t>a", "", "unfinished", 3),
        ("<t>a</t>", "", "empty", 2),
        (None, "b", "ok", None),
    ]


def test_too_many_failed_rows_fail_the_stage(tmp_path):
    with pytest.raises(BackendError, match=r"2 of 4 rows failed .*non-finite logits"):
        made(["broken", "fine"], tmp_path)


def test_a_few_failed_rows_are_kept_as_errors(tmp_path):
    rows = made(["broken", "a", "b"], tmp_path)
    assert states(rows)["s-broken"] == "error"


def test_rows_that_failed_are_tried_again_by_the_next_run_and_no_others(tmp_path):
    """A server that was away is back."""

    class Healed(EchoModel):
        def one(self, text, seed):
            return super().one(text.replace("broken", "healed"), seed)

    texts = ["broken", "fine"]
    with pytest.raises(BackendError, match="2 of 4 rows failed"):
        made(texts, tmp_path)
    model = Healed()
    rows = made(texts, tmp_path, model)
    assert states(rows) == {"s-broken": "ok", "s-fine": "ok"}
    assert model.made == ["broken", "broken"]
    assert made(texts, tmp_path, EchoModel(stop_after=0)) == rows


def test_a_run_that_was_stopped_goes_on_where_it_was_and_ends_the_same(tmp_path):
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    expected = made(texts, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        made(texts, tmp_path / "cut", EchoModel(stop_after=3))
    model = EchoModel()
    assert made(texts, tmp_path / "cut", model) == expected
    assert len(model.made) == 2 * len(texts) - 3


@given(
    st.lists(st.text("abc", min_size=1, max_size=3), unique=True, min_size=1, max_size=6),
    st.integers(1, 3),
    st.data(),
)
def test_more_prompts_or_samples_make_only_what_is_missing(texts, samples, data):
    before = data.draw(st.lists(st.sampled_from(texts), unique=True))
    config = CONFIG.model_copy(update={"samples": samples})
    with tempfile.TemporaryDirectory() as folder:
        expected = made(texts, Path(folder) / "whole", config=config)
        own = Path(folder) / "own"
        made(before, own, config=CONFIG.model_copy(update={"samples": 1}))
        model = EchoModel()
        assert made(texts, own, model, config) == expected
        assert len(model.made) == len(texts) * samples - len(before)


@given(st.integers(1, 4), st.lists(st.text("ab", min_size=1, max_size=4), unique=True, max_size=8))
def test_shared_work_gives_the_rows_of_one_process_and_makes_none_twice(processes, texts):
    with tempfile.TemporaryDirectory() as folder:
        expected = made(texts, Path(folder) / "alone")
        own, models = Path(folder) / "own", [EchoModel() for _ in range(processes)]
        with RowJournal(own, {}, 0) as rows:
            for number in reversed(range(processes)):
                member = Member(number, processes)
                if number:
                    with RowJournal(own, {}, number) as others:
                        asked = prompts(*texts)
                        generate(asked, models[number], CONFIG, others, NoProgress(), member)
            with pytest.raises(DataError, match="run again|Run again") if texts else nothing():
                collect_generations(prompts(*texts), CONFIG, rows)
            generate(prompts(*texts), models[0], CONFIG, rows, NoProgress(), Member(0, processes))
            rows.reload()
            assert collect_generations(prompts(*texts), CONFIG, rows) == expected
        assert sum(len(model.made) for model in models) <= 2 * len(texts)


def test_a_prompt_of_the_same_name_but_another_text_has_no_row_yet(tmp_path):
    with RowJournal(tmp_path, {}) as rows:
        for text in ("one", "two"):
            prompt = Prompt("s-x", "s", text, "file:x", 0)
            generate([prompt], EchoModel(), CONFIG, rows, NoProgress(), SingleProcess())
            (row, _) = collect_generations([prompt], CONFIG, rows)
            assert row.text.startswith(text)


def cards():
    """Two model cards that differ in one place, whichever it is, and the settings beside them."""
    base = {
        "uri": "file:m", "resolved": "x", "sha256": "0" * 64, "architecture": "A",
        "parameters": 1, "stored_dtype": "float32", "quantization": None, "license": None,
    }  # fmt: skip
    places = ["weights", "converted", "tokenizer", "template", "adapter", "seed", "dtype", "code"]
    places += ["torch", "temperature", "tokens", "key", "server"]

    def manifest(changed):
        def value(place):
            return ("b" if place == changed else "a") * 64

        def file(place):
            return (FileHash(path="f", sha256=value(place), size=1),)

        weights = BaseWeights(
            **base, files=file("weights"), converted=file("converted"),
            tokenizer_sha256=value("tokenizer"), chat_template_sha256=value("template"),
        )  # fmt: skip
        adapter = Adapter(
            key="a", uri=None, resolved=None, sha256="0" * 64, files=file("adapter"), training=None
        )
        generation = {
            **CONFIG.plain(),
            "seed": 8 if changed == "seed" else 7,
            "dtype": "bfloat16" if changed == "dtype" else "float32",
            "temperature": 1.0 if changed == "temperature" else 0.0,
            "max_new_tokens": 5 if changed == "tokens" else 4,
        }
        served = {"served_model_name": "m"} if changed == "server" else {}
        return Manifest(
            kind="generate", key="other" if changed == "key" else "own",
            params={"generation": generation, **served},
            inputs={},
            model=ModelIdentity(key="own", base=weights, adapters=(adapter,)),
            code_sha256=value("code"), environment={"torch": value("torch")},
        )  # fmt: skip

    return places, manifest


def test_two_models_or_settings_never_share_a_row(tmp_path):
    places, manifest = cards()
    with RowJournal(tmp_path, rows_identity(manifest(None))) as rows:
        rows.add("row", [1])
    for place in places:
        with RowJournal(tmp_path, rows_identity(manifest(place))) as rows:
            assert "row" not in rows, place
    with RowJournal(tmp_path, rows_identity(manifest(None))) as rows:
        assert "row" in rows


def test_rows_are_kept_when_only_more_of_them_are_asked_for():
    _, manifest = cards()
    one = manifest(None)
    more = {**one.params["generation"], "samples": 25, "max_error_share": 0.5}
    assert rows_identity(one) == rows_identity(
        one.model_copy(update={"params": {"generation": more}})
    )


def test_a_seed_names_prompt_and_sample_and_nothing_else():
    assert row_seed(7, "s-a", 0) == row_seed(7, "s-a", 0)
    assert len({row_seed(s, p, k) for s in (7, 8) for p in ("a", "b") for k in (0, 1)}) == 8


def test_a_language_that_is_declared_later_generates_nothing_again(tmp_path):
    made(["one", "two"], tmp_path)
    asked = [prompt._replace(language="en", cluster="c") for prompt in prompts("one", "two")]
    with RowJournal(tmp_path, {}) as rows:
        generate(asked, EchoModel(stop_after=0), CONFIG, rows, NoProgress(), SingleProcess())
        again = collect_generations(asked, CONFIG, rows)
    assert {(row.language, row.cluster) for row in again} == {("en", "c")}
