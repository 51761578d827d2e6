"""Files of generated texts, in the shapes that the tools write."""

from __future__ import annotations

import json
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toxtrail.config.schema import TextsConfig
from toxtrail.datasets.generated_texts import detect_format, examine_texts, read_generated_texts
from toxtrail.errors import ConfigError, DataError


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(path, **options):
    return read_generated_texts(path, examine_texts(path, **options))


def pairs(path, **options):
    return [(row.prompt, row.text) for row in read(path, **options)]


def lm_eval(doc_id, prompt, *responses, **more):
    return {
        "doc_id": doc_id,
        "doc": {"prompt": {"text": prompt, "toxicity": 0.1}},
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"]}}},
        "resps": [list(responses)],
        "filtered_resps": [responses[0]],
        "filter": "none",
        "metrics": ["score"],
        "doc_hash": "d41d",
        "prompt_hash": "8c36",
        "target_hash": "74be",
        "score": 0.0,
        **more,
    }


def inspect_sample(number, content, epoch=1, prompt="How is the weather?", stop="stop", **more):
    message = {"id": "a", "content": content, "source": "generate", "role": "assistant"}
    return {
        "id": number,
        "epoch": epoch,
        "input": prompt,
        "target": "",
        "messages": [{"role": "user", "content": prompt}, message],
        "output": {"model": "m", "choices": [{"message": message, "stop_reason": stop}]},
        "scores": {},
        "metadata": {"plain": "weather"},
        "store": {},
        "events": [],
        **more,
    }


def inspect_json(path, *samples):
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "plan": {}, "samples": samples}
    path.write_text(json.dumps(log, indent=2), "utf-8")
    return path


def inspect_eval(path, *samples):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": {}, "plan": {}}))
        for sample in samples:
            name = f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            archive.writestr(name, json.dumps(sample))
        archive.writestr("header.json", json.dumps({"version": 2, "status": "success"}))
    return path


def attempt(uuid, prompt, *outputs, status=2):
    return {
        "entry_type": "attempt",
        "uuid": uuid,
        "seq": 0,
        "status": status,
        "probe_classname": "test.Test",
        "probe_params": {},
        "targets": [],
        "prompt": prompt,
        "outputs": list(outputs),
        "detector_results": {},
        "notes": {},
        "goal": "ask",
    }


def garak_message(text):
    return {"text": text, "lang": "en", "data_path": None, "data_type": None, "notes": {}}


def conversation(*turns):
    return {
        "turns": [{"role": role, "content": garak_message(text)} for role, text in turns],
        "notes": {},
    }


SETUP = {"entry_type": "start_run setup", "_config.version": "0.14.0", "run.generations": 1}
EVAL = {"entry_type": "eval", "probe": "test.Test", "detector": "always.Pass", "passed": 1}


# --- tables -----------------------------------------------------------------------------------


def test_columns_with_usual_names_are_recognised_and_others_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\nHello,\n", "utf-8")
    assert pairs(path) == [("Hello", "")]
    path.write_text("frage;antwort\nHallo;Guten Tag\n", "utf-8")
    with pytest.raises(ConfigError, match="--prompt NAME. Columns: frage, antwort"):
        examine_texts(path)
    assert pairs(path, prompt="frage", text="antwort") == [("Hallo", "Guten Tag")]


def test_two_candidates_for_a_column_are_not_guessed(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "response": "b", "output": "c"})
    with pytest.raises(ConfigError, match="response and output"):
        examine_texts(path)


def test_nested_fields_and_sample_numbers_are_read(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"ask": {"text": "a"}, "text": "b", "n": 3})
    (row,) = read(path, prompt="ask.text", sample="n")
    assert (row.prompt, row.text, row.sample, row.finish_reason) == ("a", "b", 3, "unknown")


def test_a_parquet_file_and_a_json_list_are_tables(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"prompt": "a", "text": "b"}, {"prompt": "c", "text": "d"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    expected = [("a", "b"), ("c", "d")]
    assert pairs(tmp_path / "a.parquet") == pairs(tmp_path / "a.json") == expected


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "null"), (3, "int"), (["a"], "list"), ({"text": "a"}, "dict")]
)
def test_a_prompt_or_text_that_is_no_string_is_refused_with_its_line(tmp_path, value, kind):
    good = {"prompt": "a", "text": "b"}
    for name in good:
        path = jsonl(tmp_path / "a.jsonl", good, {**good, name: value})
        with pytest.raises(DataError, match=rf"a.jsonl, line 2: {name} is .*{kind}"):
            read(path)


def test_a_sample_that_is_no_number_is_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "text": "b", "n": "first"})
    with pytest.raises(DataError, match="line 1"):
        read(path, sample="n")


def test_text_that_is_not_unicode_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "text": "\\ud800"}\n', "utf-8")
    with pytest.raises(DataError, match="Unicode"):
        read(path)


# --- lm-evaluation-harness --------------------------------------------------------------------


def test_lm_eval_responses_are_read_and_not_the_filtered_answers(tmp_path):
    row = lm_eval(0, "The dog", " ran home.", filtered_resps=["home"])
    path = jsonl(tmp_path / "samples_t_2026-01-01.jsonl", row)
    assert detect_format(path) == "lm-eval"
    assert pairs(path) == [("The dog", " ran home.")]


def test_lm_eval_repeats_are_samples_and_a_second_filter_is_no_second_text(tmp_path):
    first = lm_eval(0, "The dog", "one", "two", filter="strict")
    path = jsonl(tmp_path / "s.jsonl", first, {**first, "filter": "flexible"})
    assert pairs(path) == [("The dog", "one"), ("The dog", "two")]


def test_lm_eval_documents_with_two_different_responses_are_refused(tmp_path):
    path = jsonl(tmp_path / "s.jsonl", lm_eval(0, "The dog", "a"), lm_eval(0, "The dog", "b"))
    with pytest.raises(DataError, match="line 2: doc_id 0"):
        read(path)


def test_lm_eval_arguments_of_older_files_and_of_chat_apis(tmp_path):
    old = lm_eval(0, "", "a", arguments=[["The cat", {"until": ["\n"]}]])
    chat = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}])
    new = lm_eval(1, "", "b", arguments={"gen_args_0": {"arg_0": [chat], "arg_1": {}}})
    path = jsonl(tmp_path / "s.jsonl", old, new)
    assert pairs(path) == [("The cat", "a"), ("Hi", "b")]


def test_lm_eval_prompt_can_be_another_field(tmp_path):
    row = lm_eval(0, "The dog", "a", arguments={"gen_args_0": {"arg_0": "<|user|>The dog<|end|>"}})
    path = jsonl(tmp_path / "s.jsonl", row)
    assert pairs(path, prompt="doc.prompt.text") == [("The dog", "a")]


def test_lm_eval_multiple_choice_is_refused(tmp_path):
    requests = {f"gen_args_{i}": {"arg_0": "Q", "arg_1": c} for i, c in enumerate("AB")}
    choices = lm_eval(0, "Q", "a", arguments=requests)
    with pytest.raises(DataError, match="line 1: arguments has 2 requests"):
        read(jsonl(tmp_path / "s.jsonl", choices))
    scores = {**lm_eval(0, "Q", "a"), "resps": [[["-1.5", "False"]]]}
    with pytest.raises(DataError, match="log-likelihoods"):
        read(jsonl(tmp_path / "s.jsonl", scores))


def test_lm_eval_rows_of_another_shape_name_line_and_keys(tmp_path):
    path = jsonl(tmp_path / "s.jsonl", lm_eval(0, "Q", "a"), {"doc_id": 1, "arguments": {}})
    with pytest.raises(DataError, match="line 2: resps is missing"):
        read(path)


# --- Inspect ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "name"), [(inspect_json, "a.json"), (inspect_eval, "a.eval")])
def test_inspect_epochs_are_samples_in_their_order(tmp_path, write, name):
    later = inspect_sample(1, "Rain.", epoch=2, stop="max_tokens")
    path = write(tmp_path / name, later, inspect_sample(1, "Sun."))
    assert detect_format(path) == "inspect"
    rows = read(path)
    assert [(row.text, row.finish_reason) for row in rows] == [
        ("Sun.", "stop"),
        ("Rain.", "length"),
    ]


def test_inspect_messages_parts_and_attachments(tmp_path):
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Fine."}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "attachment://9f"}]
    sample = inspect_sample(1, parts, prompt=messages, attachments={"9f": "A long question"})
    assert pairs(inspect_json(tmp_path / "a.json", sample)) == [("A long question", "Fine.")]


def test_inspect_conversation_needs_a_field_with_the_prompt(tmp_path):
    turns = [{"role": r, "content": r} for r in ("user", "assistant", "user")]
    path = inspect_json(tmp_path / "a.json", inspect_sample(1, "x", prompt=turns))
    with pytest.raises(DataError, match="conversation .user, assistant, user."):
        read(path)
    assert pairs(path, prompt="metadata.plain") == [("weather", "x")]


def test_inspect_sample_without_output_is_a_text_that_is_missing(tmp_path):
    failed = inspect_sample(1, "", output={"model": "m", "choices": []}, error={"message": "e"})
    assert pairs(inspect_json(tmp_path / "a.json", failed)) == [("How is the weather?", None)]


def test_inspect_sample_that_is_there_twice_is_refused(tmp_path):
    path = inspect_json(tmp_path / "a.json", inspect_sample(1, "a"), inspect_sample(1, "b"))
    with pytest.raises(DataError, match="id and epoch of .*sample 1"):
        read(path)


def test_archives_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "a.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(DataError, match="no samples/.*found other.txt"):
        read(path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="readable .eval archive"):
        read(path)


# --- garak ------------------------------------------------------------------------------------


def test_garak_attempts_count_once_in_their_last_state(tmp_path):
    asked = attempt("u1", conversation(("user", "Hello")), garak_message("Hi"), status=1)
    judged = {**asked, "status": 2, "detector_results": {"always.Pass": [0.0]}}
    path = jsonl(tmp_path / "g.report.jsonl", SETUP, asked, judged, EVAL)
    assert detect_format(path) == "garak"
    assert pairs(path) == [("Hello", "Hi")]


def test_garak_prompts_and_outputs_of_older_reports(tmp_path):
    old = attempt("u1", "Hello", "Hi", None)
    message = attempt("u2", garak_message("Bye"), garak_message("See you"))
    path = jsonl(tmp_path / "g.jsonl", SETUP, old, message)
    assert pairs(path) == [("Hello", "Hi"), ("Hello", None), ("Bye", "See you")]


def test_garak_attempt_that_is_there_twice_is_refused(tmp_path):
    path = jsonl(tmp_path / "g.jsonl", SETUP, attempt("u", "a", "b"), attempt("u", "a", "c"))
    with pytest.raises(DataError, match="line 3: the attempt u"):
        read(path)


def test_garak_conversations_of_several_turns_are_refused(tmp_path):
    turns = conversation(("user", "a"), ("assistant", "b"), ("user", "c"))
    path = jsonl(tmp_path / "g.jsonl", SETUP, attempt("u", turns, "d"))
    with pytest.raises(DataError, match="is a conversation"):
        read(path)


def test_garak_report_without_attempts_is_refused(tmp_path):
    with pytest.raises(DataError, match="no attempt"):
        read(jsonl(tmp_path / "g.jsonl", SETUP, EVAL))


# --- shapes -----------------------------------------------------------------------------------


def test_an_unknown_shape_says_what_was_found_and_what_is_known(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"results": {}, "configs": {}}), "utf-8")
    with pytest.raises(DataError, match="results, configs. Known files"):
        detect_format(results)
    with pytest.raises(DataError, match=".docx is unknown"):
        detect_format(tmp_path / "a.docx")
    empty = tmp_path / "empty.csv"
    empty.write_text("prompt,text\n", "utf-8")
    with pytest.raises(DataError, match="it has no rows"):
        detect_format(empty)


def test_options_of_tables_are_refused_for_other_formats(tmp_path):
    path = jsonl(tmp_path / "s.jsonl", lm_eval(0, "Q", "a"))
    with pytest.raises(ConfigError, match="remove --text"):
        examine_texts(path, text="resps")
    with pytest.raises(ValueError, match="prompt and text"):
        TextsConfig(format="table", prompt="a")
    with pytest.raises(ValueError, match="a table has sample"):
        TextsConfig(format="garak", sample="a")


# --- any other content ------------------------------------------------------------------------

KEYS = (
    "doc_id", "arguments", "resps", "arg_0", "gen_args_0", "id", "epoch", "input", "output",
    "choices", "message", "content", "role", "stop_reason", "attachments", "entry_type", "uuid",
    "status", "prompt", "outputs", "turns", "text", "type",
)  # fmt: skip
WORDS = st.sampled_from(("attempt", "user", "assistant", "text", "attachment://a", "a", "", "[]"))
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | WORDS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)
ROWS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
REQUIRED = {
    "lm-eval": ("doc_id", "arguments", "resps"),
    "inspect": ("id", "epoch", "input", "output"),
    "garak": ("entry_type", "prompt", "outputs"),
    "table": ("prompt", "text"),
}


@pytest.mark.parametrize("form", list(REQUIRED))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_content_is_read_or_refused_and_never_crashes(tmp_path, form, data):
    names = st.fixed_dictionaries(dict.fromkeys(REQUIRED[form], VALUES))
    rows = data.draw(st.lists(ROWS | names, min_size=1, max_size=3))
    if form == "garak":
        rows = [{"entry_type": "attempt", **row} for row in rows]
    if form == "inspect":
        path = inspect_json(tmp_path / "a.json", *rows)
    else:
        path = jsonl(tmp_path / "a.jsonl", *rows)
    columns = {"prompt": "prompt", "text": "text"} if form == "table" else {}
    try:
        found = read_generated_texts(path, TextsConfig(format=form, **columns))
    except DataError:
        return
    assert all(isinstance(row.prompt, str) for row in found)
    assert all(row.text is None or isinstance(row.text, str) for row in found)
